// What starts runs: events, schedules, what happened to other runs.
import { eventType } from "inngest";
import { z } from "zod";
import { note } from "./notes.mjs";
import { main } from "./clients.mjs";

const whole = ({ event }) => event;
const noted = ({ event }) => note(event.data.k, event.name);

// Notes the event of a run that ended, under the run's id.
const watched = (id, event) =>
  main.createFunction({ id, triggers: [{ event, if: "event.data.event.data.watched == true" }] }, ({ event }) =>
    note(`${event.name} ${event.data.run_id}`, event),
  );

export const triggers = [
  main.createFunction({ id: "fields", triggers: [{ event: "ts/fields" }] }, (context) => {
    const { event, events, runId, attempt, maxAttempts, sessions } = context;
    return { event, same: events.length === 1 && events[0].id === event.id, runId, attempt, maxAttempts, sessions };
  }),
  main.createFunction({ id: "noted", triggers: [{ event: "ts/noted" }] }, noted),
  main.createFunction(
    { id: "several", triggers: [{ event: "ts/one" }, { event: "ts/two", if: "event.data.n > 1" }] },
    noted,
  ),
  main.createFunction({ id: "slashes", triggers: [{ event: "ts/wild/*" }] }, noted),
  main.createFunction({ id: "dots", triggers: [{ event: "ts/wild.*" }] }, noted),
  main.createFunction(
    { id: "conditional", triggers: [{ event: "ts/if", if: "event.data.n > 1 && event.data.who == 'ann'" }] },
    whole,
  ),
  main.createFunction({ id: "invoke-only", triggers: [] }, ({ event }) => [event.name, event.data]),
  main.createFunction(
    { id: "typed", retries: 0, triggers: [eventType("ts/typed", { schema: z.object({ n: z.number() }) })] },
    ({ event }) => event.data.n,
  ),
  main.createFunction(
    { id: "yearly", triggers: [{ cron: "TZ=Asia/Bangkok 0 9 1 1 *" }, { event: "ts/by.hand" }] },
    ({ event }) => note("yearly", event),
  ),
  main.createFunction({ id: "jittered", triggers: [{ cron: "0 9 1 1 *", jitter: "5m" }] }, ({ event }) =>
    note("jittered", event),
  ),
  watched("watch-finished", "inngest/function.finished"),
  watched("watch-failed", "inngest/function.failed"),
  watched("watch-cancelled", "inngest/function.cancelled"),
];
