"""The SDK beside the official `inngest` package: import, app start, and calls with memoised steps.

Everything is measured in one run, interleaved, medians of five rounds; only ratios (ours to theirs)
mean anything. Prints one JSON line.

* `import_ratio`: bare `import stepbase` to `import inngest`, each over the bare interpreter.
* `app_ratio`: a script that defines one typed event and one function, over the bare interpreter.
* `call_N_ratio`: one call through the serve endpoint as an ASGI application (theirs on FastAPI), the
  same request bytes, a handler of N + 1 steps of which N are memoised.
"""

import asyncio
import gc
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ["INNGEST_DEV"] = "1"

ROUNDS = 5
STEPS = {0: 200, 100: 100, 1000: 20}
"""Memoised steps of a call, and how many calls a round makes with each."""

BARE = "pass"
OUR_IMPORT = "import stepbase, sys; assert 'pydantic' not in sys.modules"
THEIR_IMPORT = "import inngest"
OUR_APP = """
from stepbase import App, Event, EventData, Step, serve
class Paid(EventData, name="order/paid"):
    order_id: int
app = App("bench")
@app.function("f", on=Paid)
async def f(event: Event[Paid], step: Step) -> int:
    return 1
main = serve(app)
"""
THEIR_APP = """
import inngest, pydantic
class Paid(pydantic.BaseModel):
    order_id: int
client = inngest.Inngest(app_id="bench", is_production=False)
@client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="order/paid"))
async def f(ctx: inngest.Context) -> int:
    return Paid.model_validate(ctx.event.data).order_id
"""

ASGI = Callable[[Any, Any, Any], Awaitable[None]]


def _start_seconds(code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


def start_ratios() -> dict[str, float]:
    """Measure fresh interpreters, and return the ratios of import and app."""
    codes = (BARE, OUR_IMPORT, THEIR_IMPORT, OUR_APP, THEIR_APP)
    seconds: dict[str, list[float]] = {code: [] for code in codes}
    for code in codes:
        _start_seconds(code)  # byte code is written by now
    for _ in range(ROUNDS):
        for code in codes:
            seconds[code].append(_start_seconds(code))
    medians = {code: statistics.median(times) for code, times in seconds.items()}

    def ratio(ours: str, theirs: str) -> float:
        return (medians[ours] - medians[BARE]) / (medians[theirs] - medians[BARE])

    return {
        "import_ratio": round(ratio(OUR_IMPORT, THEIR_IMPORT), 3),
        "app_ratio": round(ratio(OUR_APP, THEIR_APP), 3),
    }


def our_app() -> ASGI:
    """Return the bench function served by stepbase."""
    import stepbase

    app = stepbase.App("bench")

    async def work(i: int) -> int:
        return i

    @app.function("f", on="order/paid")
    async def f(event: stepbase.Event[dict[str, int]], step: stepbase.Step) -> int:
        total = 0
        for i in range(event.data["steps"] + 1):
            total += await step.run(f"step-{i}", work, i)
        return total

    return stepbase.asgi(app)


def their_app() -> ASGI:
    """Return the same function served by the official package on FastAPI."""
    import fastapi
    import inngest
    import inngest.fast_api

    client = inngest.Inngest(app_id="bench", is_production=False)

    async def work(i: int) -> int:
        return i

    @client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="order/paid"))
    async def f(ctx: inngest.Context) -> int:
        total = 0
        for i in range(int(str(ctx.event.data["steps"])) + 1):
            total += await ctx.step.run(f"step-{i}", work, i)
        return total

    app = fastapi.FastAPI()
    inngest.fast_api.serve(app, client, [f])
    return app


def request_body(steps: int) -> bytes:
    """Return a call with that many memoised steps."""
    hashed = [hashlib.sha1(f"step-{i}".encode()).hexdigest() for i in range(steps)]
    event = {
        "name": "order/paid",
        "data": {"steps": steps},
        "id": "1",
        "ts": 1_795_451_384_936,
        "user": {},
    }
    ctx = {
        "attempt": 0,
        "disable_immediate_execution": False,
        "max_attempts": 4,
        "run_id": "01M84KVXAAXFDZB1D48JGNR1MF",
        "stack": {"current": steps, "stack": hashed},
        "step_id": "step",
    }
    memos = {each: {"data": i} for i, each in enumerate(hashed)}
    call = {"ctx": ctx, "event": event, "events": [event], "steps": memos, "use_api": False}
    return json.dumps({**call, "version": 2}).encode()


async def call(app: ASGI, body: bytes) -> tuple[int, bytes]:
    """Post a call to an ASGI application, in process."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/inngest",
        "raw_path": b"/api/inngest",
        "root_path": "",
        "query_string": b"fnId=bench-f&stepId=step",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])


async def call_ratios() -> dict[str, float]:
    """Measure calls of both, interleaved, and return the ratios and our milliseconds."""
    ours, theirs = our_app(), their_app()
    figures: dict[str, float] = {}
    for steps, calls in STEPS.items():
        body = request_body(steps)
        for app in (ours, theirs):
            status, answer = await call(app, body)
            op = json.loads(answer)[0]
            assert status == 206 and op["data"] == steps and op["op"] == "StepRun", answer
        seconds: dict[int, list[float]] = {0: [], 1: []}
        for _ in range(ROUNDS):
            for which, app in enumerate((ours, theirs)):
                gc.collect()
                begun = time.perf_counter()
                for _ in range(calls):
                    await call(app, body)
                seconds[which].append((time.perf_counter() - begun) / calls)
        mine, other = statistics.median(seconds[0]), statistics.median(seconds[1])
        figures[f"call_{steps}_ratio"] = round(mine / other, 3)
        figures[f"call_{steps}_ms"] = round(mine * 1000, 3)
    return figures


def main() -> None:
    """Measure everything and print one JSON line."""
    figures = {**start_ratios(), **asyncio.run(call_ratios())}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
