// The front door of "onboarding" on Supabase Edge Functions: passes every request on to the Python host.
// Written by stepbase (stepbase.hosts.front_door); a change here is lost when it is written again.
//
// The variable below says where the host is. Method, path, query, body and headers reach it as they
// came, so signatures still hold and are checked there; the reply is passed back as it arrives.
// Whatever goes wrong on the way is answered without `X-Inngest-SDK` and with 502, 503 or 504, by which
// the server knows that no function has seen the call, and tries again.

const APP = "onboarding";
const VARIABLE = "STEPBASE_ORIGIN_ONBOARDING";

// Supabase answers 504 by itself after 150 seconds of silence; be earlier, and leave a line in the log.
const PATIENCE_MS = Number(Deno.env.get("STEPBASE_FRONT_DOOR_SECONDS") || 140) * 1000;

const BEFORE_REST = new RegExp(`^(?:/functions/v1)?/${APP}(?=/|$)`);

// Of this connection, not of the message (RFC 9110 7.6.1). The body's length and coding are fetch's matter.
const OF_THE_CONNECTION = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "content-length",
];

function passedOn(given: Headers, also: string[]): Headers {
  const headers = new Headers(given);
  const named = (given.get("connection") ?? "").split(",").map((name) => name.trim()).filter(Boolean);
  for (const name of [...OF_THE_CONNECTION, ...also, ...named]) headers.delete(name);
  return headers;
}

function refusal(status: number, code: string, error: string): Response {
  return Response.json({ error, code }, { status, headers: { "retry-after": "5" } });
}

function origin(): string | undefined {
  const given = (Deno.env.get(VARIABLE) ?? "").trim().replace(/\/+$/, "");
  return /^https?:\/\/[^/]/.test(given) ? given : undefined;
}

async function forward(request: Request, url: URL, host: string): Promise<Response> {
  const headers = passedOn(request.headers, ["host", "accept-encoding"]);
  headers.set("accept-encoding", "identity");
  const hasBody = request.method !== "GET" && request.method !== "HEAD";
  const body = hasBody ? await request.arrayBuffer() : undefined;
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), PATIENCE_MS);
  try {
    const reply = await fetch(host + url.pathname.replace(BEFORE_REST, "") + url.search, {
      method: request.method,
      headers,
      body,
      redirect: "manual",
      signal: giveUp.signal,
    });
    return new Response(reply.body, {
      status: reply.status,
      headers: passedOn(reply.headers, ["content-encoding"]),
    });
  } catch (error) {
    if (giveUp.signal.aborted) {
      const error = `the host of "${APP}" sent nothing for ${PATIENCE_MS / 1000} seconds`;
      return refusal(504, "host_timeout", error);
    }
    console.error(`${APP}: the host at ${host} cannot be reached: ${error}`.slice(0, 300));
    return refusal(502, "host_away", `the host of "${APP}" cannot be reached; ${VARIABLE} says where it is`);
  } finally {
    clearTimeout(timer);
  }
}

Deno.serve(async (request: Request) => {
  const started = performance.now();
  const url = new URL(request.url);
  const host = origin();
  const reply = host === undefined
    ? refusal(
      503,
      "no_origin",
      `${VARIABLE} is not the URL of a host: supabase secrets set ${VARIABLE}=https://… (where "${APP}" runs)`,
    )
    : await forward(request, url, host);
  // One line a call, of what the Edge logs can be searched by; no payload, no keys.
  console.log(JSON.stringify({
    app: APP,
    function: url.searchParams.get("fnId")?.slice(0, 200),
    step: url.searchParams.get("stepId")?.slice(0, 200),
    run: request.headers.get("x-run-id")?.slice(0, 200),
    method: request.method,
    status: reply.status,
    ms: Math.round(performance.now() - started),
  }));
  return reply;
});
