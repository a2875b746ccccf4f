// Serves the apps below on a free loopback port, for tests/support/typescript.py: it prints the port, and
// ends when its standard input is closed. The header x-app says which app a request is for.
import http from "node:http";
import { serve as serveStreams } from "inngest/cloudflare";
import { serve } from "inngest/edge";
import { casesApp } from "./cases.mjs";
import { optionsApp } from "./options.mjs";

const { ORIGIN, SIGNING_KEY, SIGNING_KEY_FALLBACK, EVENT_KEY } = process.env;
const dev = { id: "app", isDev: true, baseUrl: ORIGIN };
const cloud = {
  id: "app",
  isDev: false,
  baseUrl: ORIGIN,
  signingKey: SIGNING_KEY,
  signingKeyFallback: SIGNING_KEY_FALLBACK,
  eventKey: EVENT_KEY,
};

const quiet = { info() {}, warn() {}, error() {}, debug() {} };
const plain = { checkpointing: false, logger: quiet, internalLogger: quiet };
function streaming(app) {
  const stream = serveStreams({ ...app, streaming: true });
  return (request) => stream(request, {}); // the second is Cloudflare's environment
}

const handlers = {
  dev: serve(casesApp({ ...dev, ...plain })),
  cloud: serve(casesApp({ ...cloud, ...plain })),
  "dev, streaming": streaming(casesApp({ ...dev, ...plain })),
  "cloud, streaming": streaming(casesApp({ ...cloud, ...plain })),
  checkpointing: serve(casesApp({ ...dev, ...plain, checkpointing: true })),
  options: serve(optionsApp({ ...dev, ...plain })),
};

// A planned step that is gone is waited for, ten seconds long.
const { setTimeout } = globalThis;
globalThis.setTimeout = (call, ms, ...args) => setTimeout(call, ms === 10_000 ? 50 : ms, ...args);

async function answer(incoming, outgoing) {
  const chunks = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const { "x-app": app, ...headers } = incoming.headers;
  const hasBody = !["GET", "HEAD"].includes(incoming.method);
  const reply = await handlers[app](
    new Request(`http://${headers.host}${incoming.url}`, {
      method: incoming.method,
      headers,
      body: hasBody ? Buffer.concat(chunks) : undefined,
    }),
  );
  outgoing.writeHead(reply.status, Object.fromEntries(reply.headers));
  outgoing.end(Buffer.from(await reply.arrayBuffer()));
}

const server = http.createServer((incoming, outgoing) => {
  answer(incoming, outgoing).catch((error) => outgoing.writeHead(500).end(JSON.stringify(String(error))));
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
// An answer that a handler fails to make is a 500 without the SDK's header, as other hosts would send.
process.on("unhandledRejection", (error) => console.error(error));
process.stdin.on("end", () => process.exit(0)).resume();
