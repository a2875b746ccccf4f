// Steps that run here: values, errors and their attempts, steps beside each other.
import { NonRetriableError, referenceFunction, RetryAfterError, StepError } from "inngest";
import { meet, note, opened } from "./notes.mjs";
import { main } from "./clients.mjs";

const steps = (id, options, handler) =>
  main.createFunction({ id, triggers: [{ event: `ts/${id}` }], ...options }, handler);

class OutOfStock extends Error {
  name = "OutOfStock";
}

function fail(message = "no more", more) {
  throw new OutOfStock(message, more);
}

const shown = (error) => ({
  is: error instanceof StepError,
  name: error.name,
  message: error.message,
  cause: error.cause?.message ?? null,
});

const caught = (promise) => promise.then(
  (value) => value,
  (error) => shown(error),
);

export const ran = [
  steps("values", {}, async ({ step }) => [
    await step.run("object", () => ({ a: [1, { b: null }] })),
    await step.run("nothing", () => {}),
    await step.run("null", async () => null),
    await step.run("zero", () => 0),
    await step.run("false", () => false),
    await step.run("text", () => 'ü "quoted" \n 漢字 🎈'),
    await step.run("list", () => []),
    await step.run({ id: "named", name: "A name for people" }, () => 1.5),
    await step.run("inputs", (a, b) => a + b, 2, 3),
  ]),
  steps("repeated", {}, async ({ step }) => {
    const found = [];
    for (let i = 0; i < 3; i++) found.push(await step.run("same", () => i));
    await step.sleep("same", "1s");
    found.push(await step.run("same", () => "after the sleep"));
    return found;
  }),
  steps("order", {}, async ({ event, step }) => {
    for (const id of ["a", "b", "c"]) await step.run(id, () => note(event.data.k, id));
    return "done";
  }),
  steps("naps", {}, async ({ event, step }) => {
    await step.run("begin", () => note(event.data.k, "begun"));
    await step.sleep("for a second", 1000);
    await step.run("one", () => note(event.data.k, "one"));
    const until = await step.run("until", () => new Date(Date.now() + 1000).toISOString());
    await step.sleepUntil("until then", until);
    await step.run("two", () => note(event.data.k, "two"));
    await step.sleepUntil("past", new Date(0));
    return until;
  }),
  steps("default-retries", {}, ({ maxAttempts }) => maxAttempts),
  steps("no-retries", { retries: 0 }, ({ event, attempt }) => {
    note(event.data.k, attempt);
    fail();
  }),
  steps("fails-thrice", { retries: 2 }, ({ event, attempt, maxAttempts }) => {
    note(event.data.k, [attempt, maxAttempts]);
    if (attempt < 2 || event.data.n === "always") fail("at attempt " + attempt);
    return attempt;
  }),
  steps("step-fails-twice", { retries: 2 }, async ({ event, step, attempt }) => {
    const first = await step.run("first", () => 1);
    const second = await step.run("second", () => {
      note(event.data.k, attempt);
      if (attempt < 2) fail();
      return 2;
    });
    return [first, second, attempt, await step.run("third", () => 3)];
  }),
  steps("step-gives-up", { retries: 1 }, async ({ event, step, attempt }) => {
    const error = await caught(
      step.run("charge", () => {
        note(event.data.k, attempt);
        fail("card declined", { cause: new Error("no funds") });
      }),
    );
    return [error, await step.run("refund", () => "refunded")];
  }),
  steps("step-gives-up-uncaught", { retries: 1 }, async ({ event, step }) => {
    await step.run("before", () => note(event.data.k, "before"));
    await step.run("charge", () => {
      note(event.data.k, "charge");
      fail();
    });
  }),
  steps("final", { retries: 5 }, ({ event }) => {
    note(event.data.k, "once");
    throw new NonRetriableError("never again", { cause: new Error("why") });
  }),
  steps("final-step", { retries: 5 }, async ({ event, step }) =>
    caught(
      step.run("once", () => {
        note(event.data.k, "once");
        throw new NonRetriableError("never again");
      }),
    ),
  ),
  steps("retries-later", { retries: 2 }, async ({ event, step, attempt }) => {
    await step.run("step", () => {
      note(event.data.k, "step");
      if (attempt === 0) throw new RetryAfterError("later", "1s");
    });
    note(event.data.k, "function");
    if (attempt === 0) throw new RetryAfterError("later", new Date(Date.now() + 1000));
    return attempt;
  }),
  steps(
    "with-handler",
    {
      retries: 0,
      onFailure: async ({ event, error, step, runId }) => {
        const told = [error.name, error.message, event.data.function_id, event.data.run_id, event.data.event.data];
        await step.run("tell", () => note(event.data.event.data.k, told));
      },
    },
    () => fail("sold out"),
  ),
  steps("together", {}, async ({ event, step }) => {
    const { k } = event.data;
    const both = [step.run("a", () => meet(k, 2).then(() => "a")), step.run("b", () => meet(k, 2).then(() => "b"))];
    return [...(await Promise.all([...both, step.sleep("c", "1s")])), await step.run("after", () => "after")];
  }),
  steps("chains", {}, async ({ event, step }) => {
    const chain = async (name) => {
      const first = await step.run(`${name}1`, () => `${name}1`);
      return `${first} ${await step.run(`${name}2`, () => `${name}2`)}`;
    };
    const first = await step.run("first", () => "first");
    return [first, ...(await Promise.all([chain("a"), chain("b"), chain("c")]))];
  }),
  steps("settled", { retries: 1 }, async ({ event, step, attempt }) => {
    const all = await Promise.allSettled([
      step.run("good", () => 1),
      step.run("bad", () => {
        note(event.data.k, attempt);
        fail();
      }),
      step.run("final", () => {
        throw new NonRetriableError("never");
      }),
    ]);
    return all.map(({ value, reason }) => value ?? shown(reason));
  }),
  steps("many", {}, async ({ step }) => {
    const all = Array.from({ length: 30 }, (_, i) => step.run(`s${i}`, () => i));
    return (await Promise.all(all)).reduce((sum, i) => sum + i, 0);
  }),
  steps("promise-race", {}, async ({ event, step }) => {
    const winner = await Promise.race([
      step.run("slow", () => opened(event.data.k).then(() => "slow")),
      step.run("fast", () => note(event.data.k, "fast") ?? "fast"),
    ]);
    note(event.data.k, `${winner} won`);
    return winner;
  }),
  steps("race", {}, async ({ event, step, group }) => {
    const winner = await group.parallel({ mode: "race" }, () =>
      Promise.race([
        step.run("fast", () => "fast"),
        step.run("slow", () => opened(event.data.k).then(() => "slow")),
      ]),
    );
    const after = await step.run("after", () => {
      note(event.data.k, "after");
      return opened(`${event.data.k} after`).then(() => "after");
    });
    return [winner, after];
  }),
  steps("sends", {}, async ({ event, step }) => {
    const to = (n) => ({ name: "ts/noted", data: { k: event.data.k, n } });
    const one = await step.sendEvent("one", to(1));
    const two = await step.sendEvent("two", [to(2), { ...to(3), id: `${event.data.k} three` }]);
    return [one.ids, two.ids];
  }),
  steps("talks", {}, async ({ step, sessions }) => {
    const to = (meta) => ({ name: "ts/fields", data: {}, ...(meta && { meta }) });
    const events = [to(), to({ sessions: { chat: null, user: 7 } })];
    const { ids } = await step.sendEvent("send", events);
    const told = await step.invoke("invoke", { function: referenceFunction({ functionId: "fields" }), data: {} });
    return [sessions, ids, told.sessions];
  }),
  steps("large", { retries: 0 }, async ({ event, step }) => {
    const { mib, count, returned } = event.data;
    for (let i = 0; i < count; i++) await step.run(`s${i}`, () => String(i).repeat(mib * 2 ** 20));
    await step.sleep("nap", "1s");
    return returned ? "r".repeat(returned * 2 ** 20) : "small";
  }),
];
