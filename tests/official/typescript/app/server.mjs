// Serves the apps below on a free loopback port, for tests/official: it prints the port, and ends when its
// standard input is closed. What is not under /api/ is for the tests: what the functions did, and gates.
import http from "node:http";
import { serve as serveRequests } from "inngest/edge";
import { readRequestBody, serve } from "inngest/node";
import * as clients from "./clients.mjs";
import "./tracing.mjs";
import { flows } from "./flow.mjs";
import { callsOf, noteCall, noted, open } from "./notes.mjs";
import * as others from "./others.mjs";
import { requested } from "./requests.mjs";
import { ran } from "./steps.mjs";
import { triggers } from "./triggers.mjs";
import { elsewhere, waiting } from "./waits.mjs";

const { main, plain, streams, encrypting, marking, cloud, traced, edge, synced, found } = clients;

const functions = [...triggers, ...flows, ...ran, ...waiting, ...requested, ...others.checkpointing, ...others.hard];

// Hosts that speak the fetch API, made one for Node.
function serveEdge(options) {
  const serving = serveRequests(options);
  return async (incoming, outgoing) => {
    const { method, headers, url } = incoming;
    const body = ["GET", "HEAD"].includes(method) ? undefined : await readRequestBody(incoming);
    const reply = await serving(new Request(`http://${headers.host}${url}`, { method, headers, body }));
    outgoing.writeHead(reply.status, Object.fromEntries(reply.headers)).end(await reply.text());
  };
}

// The first call of such a run is cut off, the second one answered by something else.
function isKept(runId, url, incoming, outgoing) {
  if (url.searchParams.get("fnId") !== "ts-hard-to-reach") return false;
  const calls = callsOf(runId).length;
  if (calls === 1) incoming.destroy();
  if (calls === 2) outgoing.end("<h1>Under construction</h1>");
  return calls <= 2;
}

const apps = {
  "/api/inngest": serve({ client: main, functions }),
  "/api/plain": serve({ client: plain, functions: elsewhere }),
  "/api/streams": serve({ client: streams, functions: others.streamed, streaming: true }),
  "/api/marking": serve({ client: marking, functions: others.marked }),
  "/api/edge": serveEdge({ client: edge, functions: others.edged }),
  "/api/encrypting": serve({ client: encrypting, functions: others.encrypted }),
  "/api/cloud": serve({ client: cloud, functions: others.signed }),
  "/api/traced": serve({ client: traced, functions: others.tracing }),
  "/api/before": serve({ client: synced, functions: others.before }),
  "/api/after": serve({ client: synced, functions: others.after }),
  "/api/found": serve({ client: found, functions: others.discovered }),
};

const asked = {
  notes: (url) => noted(url.searchParams.get("topic"), Number(url.searchParams.get("wanted"))),
  calls: (url) => callsOf(url.searchParams.get("run")),
  open: (url) => open(url.searchParams.get("gate")) ?? null,
  send: (url, body) => clients[url.searchParams.get("client") ?? "main"].send(body),
  signal: (url, body) => main.sendSignal(body),
};

async function answer(incoming, outgoing, url) {
  try {
    const result = await asked[url.pathname.slice(1)](url, JSON.parse((await readRequestBody(incoming)) || "null"));
    outgoing.end(JSON.stringify(result));
  } catch (error) {
    outgoing.writeHead(500).end(String(error));
  }
}

const server = http.createServer((incoming, outgoing) => {
  const url = new URL(incoming.url, "http://localhost");
  const app = apps[url.pathname];
  if (!app) return answer(incoming, outgoing, url);
  const runId = incoming.headers["x-run-id"];
  if (runId) noteCall(runId, url.searchParams.get("stepId"));
  if (isKept(runId, url, incoming, outgoing)) return;
  return app(incoming, outgoing);
});

server.keepAliveTimeout = 300_000; // shorter ones close a connection just when it is used again
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.on("unhandledRejection", (error) => console.error(error));
process.stdin.on("end", () => process.exit(0)).resume();
