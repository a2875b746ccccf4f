// Functions of the other clients: checkpoints, middleware, encryption, streams, keys.
import { trace } from "@opentelemetry/api";
import { referenceFunction } from "inngest";
import { note } from "./notes.mjs";
import { cloud, edge, encrypting, found, main, marking, streams, synced, traced } from "./clients.mjs";

const make = (client, id, options, handler) =>
  client.createFunction({ id, triggers: [{ event: `ts/${id}` }], ...options }, handler);

const five = async ({ event, step }) => {
  for (let i = 0; i < 5; i++) {
    await step.run(`s${i}`, () => new Promise((go) => setTimeout(go, event.data.pause ?? 0)));
  }
  return "five";
};

export const checkpointing = [
  make(main, "checkpoints", { checkpointing: { maxRuntime: "1h" } }, five),
  make(main, "checkpoints-in-threes", { checkpointing: { bufferedSteps: 3, maxRuntime: "1h" } }, five),
  make(main, "checkpoints-for-a-while", { checkpointing: { maxRuntime: 200 } }, five),
  make(main, "checkpoints-at-intervals", { checkpointing: { bufferedSteps: 100, maxInterval: 200, maxRuntime: "1h" } }, five),
  make(main, "checkpoints-off", { checkpointing: false }, five),
  make(main, "checkpoints-and-more", {}, async ({ event, step, attempt }) => {
    await step.run("a", () => note(event.data.k, "a"));
    await step.sleep("nap", "1s");
    await step.run("b", () => note(event.data.k, "b"));
    await step.run("c", () => {
      note(event.data.k, `c ${attempt}`);
      if (attempt === 0) throw new Error("again");
    });
    await Promise.all([step.run("d", () => note(event.data.k, "d")), step.sleep("e", "1s")]);
    await step.run("f", () => note(event.data.k, "f"));
    return "all";
  }),
];

// server.mjs does not let the first calls come through.
export const hard = [
  make(main, "hard-to-reach", { retries: 1 }, ({ attempt }) => attempt),
  make(main, "nested", {}, ({ event, step }) =>
    step.run("outer", () => {
      note(event.data.k, "outer");
      return step.run("inner", () => "inner");
    }),
  ),
];

export const marked = [
  make(marking, "marked", { retries: 1 }, async ({ event, step, mark, dependency, attempt }) => {
    const ran = await step.run("a", (n) => n, 4);
    await step.run("b", () => {
      if (attempt === 0) throw new Error("again");
    });
    await step.sendEvent("send", { name: "ts/fields", data: { k: event.data.k } });
    return { ran, mark, dependency, seen: event.data.seen };
  }),
];

export const encrypted = [
  make(encrypting, "secret", {}, async ({ event, step }) => {
    const { secret } = event.data.encrypted;
    const kept = await step.run("keep", () => ({ kept: secret }));
    await step.sleep("nap", "1s");
    const child = referenceFunction({ functionId: "confidant" });
    const told = await step.invoke("tell", { function: child, data: { encrypted: { secret } } });
    return { kept, told };
  }),
  encrypting.createFunction({ id: "confidant", triggers: [] }, ({ event }) => `heard ${event.data.encrypted.secret}`),
  encrypting.createFunction(
    { id: "sender", triggers: [{ event: "ts/sender" }] },
    ({ event, step }) => step.sendEvent("send", { name: "ts/secret", data: { encrypted: { secret: event.data.secret } } }),
  ),
];

const three = async ({ event, step }) => {
  const first = await step.run("a", () => "a");
  await step.sleep("nap", "1s");
  return [first, await step.run("b", () => "b")];
};

export const streamed = [
  make(streams, "streamed", {}, three),
  make(streams, "streamed-error", { retries: 1 }, ({ event, attempt }) => {
    note(event.data.k, attempt);
    throw new Error("in a stream");
  }),
];

export const edged = [make(edge, "edged", {}, three)];
export const tracing = [
  make(traced, "traced", {}, ({ step }) =>
    step.run("a", () => trace.getTracer("test").startActiveSpan("of the user", (span) => span.end() ?? "traced")),
  ),
];

export const signed = [make(cloud, "signed", {}, three)];

const answer = () => "here";
export const before = [make(synced, "stays", {}, answer), make(synced, "goes", {}, answer)];
export const after = before.slice(0, 1);
export const discovered = [make(found, "found", {}, answer)];
