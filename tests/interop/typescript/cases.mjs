// The functions of tests/support/peers.py once more: what they do is chosen by event.data.k.
import { Inngest, NonRetriableError, referenceFunction, RetryAfterError, StepError } from "inngest";

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
  events: ({ events }) => events.map((each) => [each.name, each.id, each.data]),
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
  async wait({ data, step }) {
    const wanted = { event: "order/paid", timeout: "1h", if: data.if };
    const found = await step.waitForEvent("a", wanted);
    return found && [found.name, found.id, found.data];
  },
  invoke: ({ id, step }) =>
    step.invoke("a", { function: referenceFunction({ functionId: id }), data: { z: 1 } }),
  invoke_by_id: ({ step }) =>
    step.invoke("a", {
      function: referenceFunction({ appId: "app2", functionId: "f2" }),
      data: { z: 1 },
      timeout: "1h",
    }),
  async wait_for_signal({ step }) {
    const wanted = { signal: "go", timeout: "1h", onConflict: "replace" };
    const found = await step.waitForSignal("a", wanted);
    return found && [found.signal, found.data];
  },
  async send_signal({ step }) {
    await step.sendSignal("a", { signal: "go", data: { n: 1 } });
    return "sent";
  },
  async fetch({ step }) {
    const options = { method: "POST", headers: { "x-a": "b" }, body: '{"q":1}' };
    const answer = await step.fetch("https://models.example/q", options);
    return [answer.status, answer.headers.get("x-t"), await answer.text()];
  },
  infer: ({ step }) =>
    step.ai.infer("a", {
      model: step.ai.models.openai({ model: "m", apiKey: "k", baseUrl: "https://models.example/v1" }),
      body: { messages: [{ role: "user", content: "hi" }] },
      headers: { "x-extra": "1" },
    }),
  nested: ({ data, step }) => step.run("a", () => step.run("inner", () => work(data))),
  parallel: ({ data, step }) =>
    Promise.all([
      step.run("a", () => work(data)),
      step.sleepUntil("b", UNTIL),
      step.run("c", () => work(data)),
    ]),
  branches({ data, step }) {
    const branch = async (name) => {
      const first = await step.run(`${name}1`, () => work(data));
      return [first, await step.run(`${name}2`, () => work(data))];
    };
    return Promise.all([branch("a"), branch("b")]);
  },
  groups: ({ data, step }) =>
    Promise.all([
      Promise.all([step.run("a", () => work(data)), step.run("b", () => work(data))]),
      step.run("c", () => work(data)),
    ]),
  async after({ data, step }) {
    await step.run("a", () => work(data));
    const both = [step.run("b", () => work(data)), step.run("b", () => work(data))];
    return [await Promise.all(both), await step.run("c", () => work(data))];
  },
  race: ({ data, step, group }) =>
    group.parallel({ mode: "race" }, () =>
      Promise.race([step.run("a", () => work(data)), step.run("b", () => work(data))]),
    ),
};

const act = (id) => ({ event, events, step, group }) =>
  ACTIONS[event.data.k]({ data: event.data, events, id, step, group });

function onFailure({ event, error, step }) {
  const started = event.data.event;
  return step.run("a", () => [error.message, started.name, started.data]);
}

export function casesApp(options) {
  const client = new Inngest(options);
  const triggers = [{ event: "case/start" }];
  const functions = ["async", "sync"].map((id) => client.createFunction({ id, triggers, onFailure }, act(id)));
  return { client, functions };
}
