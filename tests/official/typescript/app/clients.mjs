// The clients: one for each way to talk to the engine.
import { encryptionMiddleware } from "@inngest/middleware-encryption";
import { dependencyInjectionMiddleware, Inngest, Middleware } from "inngest";
import { note } from "./notes.mjs";

const { ENGINE, CLOUD, SIGNING_KEY, SIGNING_KEY_FALLBACK, EVENT_KEY } = process.env;

const quiet = { info() {}, warn() {}, error() {}, debug() {} };

// Notes what the SDK asks the engine for.
function noting(url, init) {
  const path = new URL(url).pathname;
  const [, runId] = /^\/v1\/checkpoint\/(\w+)\/async$/.exec(path) ?? [];
  if (runId) {
    const named = JSON.parse(init.body).steps.map((step) => step.displayName);
    note(`checkpoints ${runId}`, named);
  }
  return fetch(url, init);
}

const dev = { isDev: true, baseUrl: ENGINE, logger: quiet, internalLogger: quiet, fetch: noting };

export const main = new Inngest({ id: "ts", ...dev });
export const plain = new Inngest({ id: "ts-plain", ...dev, checkpointing: false });
export const streams = new Inngest({ id: "ts-streams", ...dev });
export const synced = new Inngest({ id: "ts-synced", ...dev });
export const edge = new Inngest({ id: "ts-edge", ...dev });
export const found = new Inngest({ id: "ts-found", ...dev });

const keys = { ...dev, isDev: false, baseUrl: CLOUD, eventKey: EVENT_KEY };
export const cloud = new Inngest({
  ...keys,
  id: "ts-cloud",
  signingKey: SIGNING_KEY,
  signingKeyFallback: SIGNING_KEY_FALLBACK,
});
export const traced = new Inngest({ ...keys, id: "ts-traced", signingKey: SIGNING_KEY_FALLBACK });

export const encrypting = new Inngest({
  ...dev,
  id: "ts-encrypting",
  middleware: [encryptionMiddleware({ key: "a key of the test" })],
});

// Loses the first answer of the engine to each request, so that the SDK sends it again.
const lost = new Set();
async function losing(url, init) {
  const answer = await fetch(url, init);
  if (lost.has(init.body)) return answer;
  lost.add(init.body);
  throw new Error("the answer is lost");
}
export const unlucky = new Inngest({ ...dev, id: "ts-unlucky", fetch: losing });

class Marks extends Middleware.BaseMiddleware {
  id = "marks";

  transformFunctionInput(arg) {
    const event = { ...arg.ctx.event, data: { ...arg.ctx.event.data, seen: true } };
    return { ...arg, ctx: { ...arg.ctx, event, mark: "of the middleware" } };
  }

  transformStepInput(arg) {
    return { ...arg, input: arg.input.map((each) => (typeof each === "number" ? each * 10 : each)) };
  }

  transformSendEvent(arg) {
    const events = arg.events.map((each) => ({ ...each, data: { ...each.data, marked: true } }));
    return { ...arg, events };
  }

  async wrapStepHandler({ next, stepInfo }) {
    const result = await next();
    return stepInfo.stepType === "run" ? { handled: result } : result;
  }

  async wrapStep({ next, stepInfo }) {
    const result = await next();
    return stepInfo.stepType === "run" ? { ...result, wrapped: true } : result;
  }

  async wrapFunctionHandler({ next }) {
    return { result: await next() };
  }

  onRunStart({ ctx }) {
    note(ctx.event.data.k, "run start");
  }

  onStepStart({ ctx, stepInfo }) {
    note(ctx.event.data.k, `${stepInfo.options.id} start`);
  }

  onStepError({ ctx, stepInfo, error, isFinalAttempt }) {
    note(ctx.event.data.k, `${stepInfo.options.id} ${error.message} ${isFinalAttempt}`);
  }

  onStepComplete({ ctx, stepInfo }) {
    note(ctx.event.data.k, `${stepInfo.options.id} complete`);
  }

  onRunComplete({ ctx }) {
    note(ctx.event.data.k, "run complete");
  }

  onRunError({ ctx, error, isFinalAttempt }) {
    note(ctx.event.data.k, `run ${error.message} ${isFinalAttempt}`);
  }
}

export const marking = new Inngest({
  ...dev,
  id: "ts-marking",
  middleware: [Marks, dependencyInjectionMiddleware({ dependency: 42 })],
});
