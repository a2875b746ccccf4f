// Requests that the engine makes for a function.
import { fetch as durable, NonRetriableError } from "inngest";
import { main } from "./clients.mjs";

const requests = (id, options, handler) =>
  main.createFunction({ id, triggers: [{ event: `ts/${id}` }], ...options }, handler);

const caught = (promise) => promise.catch(({ name, message }) => ({ name, message }));

const model = (step, event) =>
  step.ai.models.openai({ model: "gpt-test", apiKey: "sk-test", baseUrl: `${event.data.web}/v1` });

export const requested = [
  requests("fetches", {}, async ({ event, step }) => {
    const { web } = event.data;
    const options = { method: "POST", headers: { "x-asked": "yes" }, body: '{"q":1}' };
    const first = await step.fetch(`${web}/one`, options);
    const second = await durable(`${web}/two`);
    const inside = await step.run("inside", async () => (await durable(`${web}/three`)).text());
    return [first.status, first.headers.get("x-t"), await first.json(), await second.json(), inside];
  }),
  requests("fetches-badly", { retries: 1 }, async ({ event, step }) => caught(step.fetch(`${event.data.web}/broken`))),
  requests("infers", {}, async ({ event, step }) => {
    const messages = [{ role: "user", content: "hi" }];
    const answer = await step.ai.infer("ask", { model: model(step, event), body: { messages } });
    return answer.choices[0].message.content;
  }),
  requests("infers-badly", { retries: 0 }, async ({ event, step }) =>
    caught(step.ai.infer("ask", { model: model(step, event), body: { messages: [] } })),
  ),
  requests("wraps", {}, ({ event, step }) =>
    step.ai.wrap("ask", async (prompt) => ({ said: `${prompt}?` }), event.data.prompt),
  ),
];
