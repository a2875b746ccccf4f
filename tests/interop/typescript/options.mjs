// One function for each row of tests/interop/test_sdk_options.py, declared as TypeScript spells it.
import { Inngest } from "inngest";

const triggers = [{ event: "order/paid" }];

const OPTIONS = {
  retries: { retries: 7 },
  "no retries": { retries: 0 },
  name: { name: "For people" },
  "concurrency number": { concurrency: 5 },
  "concurrency two": {
    concurrency: [
      { limit: 5, key: "event.data.a" },
      { limit: 9, key: "'x'", scope: "account" },
    ],
  },
  // Not in its types, but sent as it is written.
  "limit of runs": { concurrency: { fn: [{ limit: 1, key: "event.data.a" }] } },
  "limits of runs and steps": {
    concurrency: { fn: [{ limit: 3 }], step: [{ limit: 5, key: "event.data.a" }, { limit: 9 }] },
  },
  throttle: { throttle: { limit: 3, period: "90s" } },
  "throttle, all": { throttle: { limit: 3, period: "1d", burst: 4, key: "event.data.a" } },
  "rate limit": { rateLimit: { limit: 3, period: "150m", key: "event.data.a" } },
  debounce: { debounce: { period: "1w", key: "event.data.a", timeout: "2w" } },
  priority: { priority: { run: "event.data.a ? 10 : 0" } },
  batch: {
    batchEvents: { maxSize: 10, timeout: "1m", key: "event.data.a", if: "event.data.b" },
  },
  idempotency: { idempotency: "event.data.a" },
  singleton: { singleton: { mode: "skip" } },
  "singleton, all": { singleton: { key: "event.data.a", mode: "cancel" } },
  "cancel on": { cancelOn: [{ event: "order/refunded" }] },
  "cancel on, match": {
    cancelOn: [{ event: "order/refunded", match: "data.order_id", timeout: "1h" }],
  },
  "cancel on, if": { cancelOn: [{ event: "order/refunded", if: "async.data.order_id == 1" }] },
  timeouts: { timeouts: { start: "10s", finish: "1h" } },
  "everything at once": {
    concurrency: { limit: 2, key: "event.data.a", scope: "env" },
    throttle: { limit: 1, period: "1s" },
    priority: { run: "1" },
    timeouts: { finish: "90m" },
    cancelOn: [0, 1, 2, 3, 4].map((i) => ({ event: `order/${i}` })),
  },
  "event with expression": {
    triggers: [{ event: "order/paid", if: "event.data.order_id > 1" }],
  },
  cron: { triggers: [{ cron: "TZ=Asia/Bangkok 0 9 * * 1-5", jitter: "30s" }] },
  "several triggers": {
    triggers: [{ event: "order/paid" }, { event: "user/*" }, { cron: "0 12 * * *" }],
  },
};

export function optionsApp(options) {
  const client = new Inngest(options);
  const functions = Object.entries(OPTIONS).map(([name, each]) => {
    const id = name.replaceAll(/\W+/g, "-");
    return client.createFunction({ id, triggers, retries: 3, ...each, onFailure() {} }, () => {});
  });
  return { client, functions };
}
