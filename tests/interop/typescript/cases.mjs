// The functions of tests/support/peers.py once more: what they do is chosen by event.data.k.
import { Inngest, NonRetriableError, RetryAfterError, StepError } from "inngest";

const UNTIL = process.env.UNTIL;

const VALUES = {
  object: { a: 1 },
  none: null,
  zero: 0,
  empty: "",
  list: [],
  false: false,
  float: 1.5,
  text: 'ü "quoted" \n 漢字 🎈',
  "not json": 10n,
};

class ValueError extends Error {
  name = "ValueError";
}

class KeyError extends Error {
  name = "KeyError";
}

function fail(how) {
  if (how === "error") throw new ValueError("boom");
  if (how === "cause") throw new ValueError("boom", { cause: new KeyError("why") });
  if (how === "final") throw new NonRetriableError("never again");
  throw new RetryAfterError("later", "5s");
}

function work(data) {
  if ("fail" in data) fail(data.fail);
  return VALUES[data.value ?? "object"];
}

const ACTIONS = {
  return: ({ data }) => VALUES[data.value],
  raise: ({ data }) => fail(data.fail),
  run: ({ data, step }) => step.run("a", () => work(data)),
  async twice({ data, step }) {
    return [await step.run("a", () => work(data)), await step.run("a", () => work(data))];
  },
  async catch({ data, step }) {
    try {
      return await step.run("a", () => work(data));
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      return { caught: error.message, name: error.name };
    }
  },
  async sleep({ step }) {
    await step.sleep("a", "1h");
    return "awake";
  },
  async sleep_until({ step }) {
    await step.sleepUntil("a", UNTIL);
    return "awake";
  },
  send: ({ step }) => step.sendEvent("a", { name: "order/paid", data: { a: 1 } }),
  nested: ({ data, step }) => step.run("a", () => step.run("inner", () => work(data))),
};

function act({ event, step, group }) {
  return ACTIONS[event.data.k]({ data: event.data, step, group });
}

export function casesApp(options) {
  const client = new Inngest(options);
  const triggers = [{ event: "case/start" }];
  const functions = ["async", "sync"].map((id) => client.createFunction({ id, triggers }, act));
  return { client, functions };
}
