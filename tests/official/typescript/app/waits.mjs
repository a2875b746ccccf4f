// What a run waits for: events, signals, other runs.
import { referenceFunction } from "inngest";
import { note, opened } from "./notes.mjs";
import { main, plain } from "./clients.mjs";

const waits = (id, options, handler) =>
  main.createFunction({ id, triggers: [{ event: `ts/${id}` }], ...options }, handler);

const caught = (promise) => promise.catch(({ name, message, cause }) => ({ name, message, cause: cause?.message }));

const child = main.createFunction({ id: "child", triggers: [{ event: "ts/child" }] }, ({ event, step }) =>
  step.run("double", () => ({ name: event.name, doubled: event.data.n * 2 })),
);
const sulking = main.createFunction({ id: "sulking", retries: 1, triggers: [] }, ({ event, attempt }) => {
  note(event.data.k, attempt);
  throw new TypeError("I will not");
});
const slow = main.createFunction({ id: "slow", triggers: [] }, async ({ event, step }) => {
  await step.run("hold", () => opened(event.data.k));
  return note(event.data.k, "slow ends") ?? "slow";
});

export const waiting = [
  child,
  sulking,
  slow,
  waits("waits", {}, async ({ event, step }) => {
    note(event.data.k, "begun");
    const found = await step.waitForEvent("paid", { event: "ts/paid", match: "data.k", timeout: "1h" });
    return [found.name, found.id, found.data];
  }),
  waits("waits-if", {}, async ({ event, step }) => {
    note(event.data.k, "begun");
    const wanted = "async.data.k == event.data.k && async.data.amount >= event.data.amount";
    const found = await step.waitForEvent("paid", { event: "ts/paid", if: wanted, timeout: "1h" });
    return found.data.amount;
  }),
  waits("waits-in-vain", {}, async ({ event, step }) => {
    note(event.data.k, "begun");
    const found = await step.waitForEvent("never", { event: "ts/never", timeout: "1s" });
    note(event.data.k, "ended");
    return found;
  }),
  waits("waits-for-two", {}, async ({ event, step }) => {
    note(event.data.k, "begun");
    const both = ["left", "right"].map((side) =>
      step.waitForEvent(side, { event: `ts/${side}`, match: "data.k", timeout: "1h" }),
    );
    return (await Promise.all(both)).map((found) => found.name);
  }),
  waits("invokes", {}, async ({ event, step }) => [
    await step.invoke("own", { function: child, data: { n: 21 } }),
    await step.invoke("by reference", { function: referenceFunction({ functionId: "child" }), data: { n: 2 } }),
    await step.invoke("of another app", {
      function: referenceFunction({ appId: "ts-plain", functionId: "plain" }),
      data: { k: event.data.k },
    }),
    await step.invoke("only", {
      function: referenceFunction({ functionId: "invoke-only" }),
      data: { a: 1 },
    }),
  ]),
  waits("invokes-badly", {}, async ({ event, step }) => {
    const { k } = event.data;
    const slowly = referenceFunction({ functionId: "slow" });
    return [
      await caught(step.invoke("sulking", { function: sulking, data: { k } })),
      await caught(step.invoke("slow", { function: slowly, data: { k }, timeout: "1s" })),
      await caught(step.invoke("unknown", { function: referenceFunction({ functionId: "nobody" }), data: {} })),
    ];
  }),
  waits("waits-for-signal", {}, async ({ event, step }) => {
    const wanted = { signal: event.data.k, timeout: event.data.timeout, onConflict: event.data.conflict ?? "fail" };
    note(event.data.k, "begun");
    return step.waitForSignal("signal", wanted);
  }),
  waits("sends-signal", { retries: 0 }, async ({ event, step }) =>
    step.sendSignal("signal", { signal: event.data.k, data: { n: 1 } }),
  ),
];

export const elsewhere = [
  plain.createFunction({ id: "plain", triggers: [{ event: "ts/plain" }] }, async ({ event, step }) => {
    for (const id of ["a", "b", "c"]) await step.run(id, () => note(event.data.k, id));
    return "plain";
  }),
];
