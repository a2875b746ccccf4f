// One function for each option that decides when a run starts, waits or ends.
import { inside, meet, note, opened } from "./notes.mjs";
import { main } from "./clients.mjs";

const flow = (id, options, handler) =>
  main.createFunction({ id, triggers: [{ event: `ts/${id}` }], ...options }, handler);

const noted = ({ event }) => note(event.data.k, event.data.n);

// Two at a time come through, unless there is only one.
const inPairs = ({ event, step }) =>
  step.run("work", async () => {
    const { k, tenant } = event.data;
    const size = k.endsWith("alone") ? 1 : 2;
    await inside(k, () => inside(`${k} ${tenant}`, () => meet(k, size)));
    return tenant ?? null;
  });

const held = async ({ event, step }) => {
  await step.run("hold", () => {
    note(event.data.k, event.data.n);
    return opened(`${event.data.k} ${event.data.n}`);
  });
  return event.data.n;
};

const asleep = async ({ event, step }) => {
  note(event.data.k, "begun");
  await step.sleep("long", "1h");
};

const shared = { concurrency: { limit: 1, key: "'of two functions'", scope: "account" } };
const forEnv = { concurrency: [{ limit: 1, key: "event.data.k", scope: "env" }] };

export const flows = [
  flow("limited", { concurrency: 2 }, inPairs),
  flow("by-key", { concurrency: { limit: 1, key: "event.data.tenant", scope: "fn" } }, inPairs),
  flow("two-limits", { concurrency: [{ limit: 1, key: "event.data.tenant" }, { limit: 2 }] }, inPairs),
  flow("shared-one", shared, held),
  flow("shared-two", shared, held),
  flow("env-one", forEnv, held),
  flow("env-two", forEnv, held),
  // Not in the types of the SDK, which sends it as it is.
  flow("whole-runs", { concurrency: { fn: [{ limit: 1, key: "event.data.k" }] } }, async ({ event, step }) => {
    await step.run("begin", () => note(event.data.k, `${event.data.n} begins`));
    await step.sleep("nap", "1s");
    await step.run("end", () => note(event.data.k, `${event.data.n} ends`));
  }),
  flow("throttled", { throttle: { limit: 1, period: "1s", key: "event.data.k" } }, noted),
  flow("in-a-burst", { throttle: { limit: 2, period: "7d", burst: 2, key: "event.data.k" } }, noted),
  flow("rated", { rateLimit: { limit: 1, period: "24h", key: "event.data.who" } }, noted),
  flow("rated-in-tens", { rateLimit: { limit: 10, period: "24h" } }, noted),
  flow("once", { idempotency: "event.data.who" }, noted),
  flow("debounced", { debounce: { period: "1s", key: "event.data.who" } }, noted),
  flow("debounced-at-most", { debounce: { period: "7d", timeout: "1s" } }, noted),
  flow("by-priority", { concurrency: 1, priority: { run: "event.data.n == 1 ? 0 : event.data.n" } }, held),
  flow(
    "batched",
    { batchEvents: { maxSize: 3, timeout: "1h", key: "event.data.who", if: "event.data.n < 100" } },
    ({ event, events }) => [event.data.n, events.map((each) => each.data.n)],
  ),
  flow("batched-in-time", { batchEvents: { maxSize: 100, timeout: "1s" } }, ({ events }) =>
    events.map((each) => each.data.n),
  ),
  flow("alone-or-skipped", { singleton: { key: "event.data.who", mode: "skip" } }, held),
  flow("alone-or-cancels", { singleton: { key: "event.data.who", mode: "cancel" } }, held),
  flow("cancelled-by-match", { cancelOn: [{ event: "ts/stop", match: "data.k" }] }, asleep),
  flow(
    "cancelled-if",
    { cancelOn: [{ event: "ts/stop.if", if: "async.data.k == event.data.k && async.data.n > event.data.n" }] },
    asleep,
  ),
  flow(
    "cancelled-in-time",
    { cancelOn: [{ event: "ts/stop.soon", match: "data.k", timeout: "1s" }] },
    async ({ event, step }) => {
      await step.sleep("nap", "1s");
      note(event.data.k, "too late");
      await step.waitForEvent("go", { event: "ts/go", match: "data.k", timeout: "1h" });
      return "not cancelled";
    },
  ),
  flow("ends-in-time", { timeouts: { finish: "1s" } }, asleep),
  flow("starts-in-time", { concurrency: { limit: 1, key: "event.data.k" }, timeouts: { start: "5s" } }, held),
  flow("sleeps", {}, asleep),
  flow("paused", {}, noted),
];
