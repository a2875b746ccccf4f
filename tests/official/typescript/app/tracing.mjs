// Traces as an app sets them up; notes how the engine answered what was exported to it.
import diagnostics from "node:diagnostics_channel";
import { context, trace } from "@opentelemetry/api";
import { AsyncHooksContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";
import { InngestSpanProcessor } from "inngest/experimental";
import { traced } from "./clients.mjs";
import { note } from "./notes.mjs";

context.setGlobalContextManager(new AsyncHooksContextManager().enable());
const processor = new InngestSpanProcessor(traced);
trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [processor] }));

diagnostics.subscribe("http.client.response.finish", ({ request, response }) => {
  if (request.path === "/v1/traces/userland") note("traces", response.statusCode);
});
