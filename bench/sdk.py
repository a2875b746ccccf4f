"""The SDK beside the official `inngest` package: import, app start, and calls with memoised steps.

Everything is measured in one run, interleaved, medians of five rounds; only ratios (ours to theirs)
mean anything. Prints one JSON line.

* `import_ratio`: bare `import stepbase` to `import inngest`, each over the bare interpreter.
* `app_ratio`: a script that defines one typed event and one function, over the bare interpreter.
* `call_N_ratio`: one call through the serve endpoint as an ASGI application (theirs on FastAPI), the
  same request bytes, a handler of N + 1 steps of which N are memoised.
* `linear_10000`: our call with 10,000 memoised steps, over ten times the one with 1,000.
* `parallel_500_ms`: our call that finds 500 steps side by side.
* `cold_ratio`: a fresh interpreter until the first call is answered, both served by uvicorn.
* `memory_ratio`: resident memory after the last ten of 100 calls with 3.5 MiB of memoised state each,
  over that after the first ten.
"""

import asyncio
import gc
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.support import processes  # noqa: E402  # needs the path

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

OUR_SERVER = (
    OUR_APP.replace("main = serve(app)", "").replace(", serve", ", asgi") + "served = asgi(app)\n"
)
THEIR_SERVER = (
    THEIR_APP
    + """
import fastapi, inngest.fast_api
served = fastapi.FastAPI()
inngest.fast_api.serve(served, client, [f])
"""
)
PAID = {
    "name": "order/paid",
    "data": {"order_id": 1},
    "id": "1",
    "ts": 1_795_451_384_936,
    "user": {},
}

MEMORY_CALLS = 100
STATE_BYTES = 3_670_016

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

    @app.function("state", on="order/paid")
    async def state(event: stepbase.Event[dict[str, int]], step: stepbase.Step) -> int:
        return sum([len(await step.run(f"step-{i}", str)) for i in range(event.data["steps"] + 1)])

    @app.function("many", on="order/paid")
    async def many(step: stepbase.Step) -> int:
        return len(await asyncio.gather(*(step.run(f"step-{i}", work, i) for i in range(500))))

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


async def call(app: ASGI, body: bytes, function: str = "f") -> tuple[int, bytes]:
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
        "query_string": f"fnId=bench-{function}&stepId=step".encode(),
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


async def our_figures() -> dict[str, float]:
    """Measure what has no peer: ten thousand memoised steps, and 500 side by side."""
    app = our_app()

    async def ms(body: bytes, function: str, calls: int) -> float:
        await call(app, body, function)
        gc.collect()
        begun = time.perf_counter()
        for _ in range(calls):
            await call(app, body, function)
        return (time.perf_counter() - begun) / calls * 1000

    small, large, none = request_body(1_000), request_body(10_000), request_body(0)
    rounds = [
        (await ms(small, "f", 20), await ms(large, "f", 3), await ms(none, "many", 5))
        for _ in range(ROUNDS)
    ]
    _, answer = await call(app, none, "many")
    assert [op["op"] for op in json.loads(answer)] == ["StepPlanned"] * 500, answer[:200]
    return {
        "call_10000_ms": round(statistics.median(each[1] for each in rounds), 1),
        "linear_10000": round(statistics.median(each[1] / each[0] / 10 for each in rounds), 3),
        "parallel_500_ms": round(statistics.median(each[2] for each in rounds), 1),
    }


def cold_ratio() -> float:
    """Measure fresh interpreters until their first answered call, interleaved."""
    seconds: dict[str, list[float]] = {OUR_SERVER: [], THEIR_SERVER: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS + 1):
            for code, found in seconds.items():
                taken = _first_answer_seconds(Path(folder), code)
                if number > 0:  # byte code is written by then
                    found.append(taken)
    ours, theirs = (statistics.median(found) for found in seconds.values())
    return round(ours / theirs, 3)


def _first_answer_seconds(folder: Path, code: str) -> float:
    name = f"served_{zlib.crc32(code.encode())}"
    (folder / f"{name}.py").write_text(code)
    call_object = json.loads(request_body(0))
    body = json.dumps({**call_object, "event": PAID, "events": [PAID]}).encode()
    port = processes.free_port()
    command = (sys.executable, "-m", "uvicorn", "--app-dir", str(folder), f"{name}:served")
    begun = time.perf_counter()
    with processes.child(*command, "--port", str(port), "--log-level", "error"):
        while True:
            try:
                http = HTTPConnection("127.0.0.1", port)
                http.request("POST", "/api/inngest?fnId=bench-f&stepId=step", body)
                answer = http.getresponse()
            except OSError:
                time.sleep(0.002)
                continue
            assert (answer.status, answer.read()) == (200, b"1")
            return time.perf_counter() - begun


def memory_ratio() -> float:
    """Measure resident memory over calls with much state, in an interpreter of its own."""
    code = "import asyncio; from bench import sdk; print(asyncio.run(sdk.memory_growth()))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return round(float(done.stdout), 3)


async def memory_growth() -> float:
    """Return the least resident memory after one of the last ten calls over the mean of the first ten."""
    app = our_app()
    state = json.loads(request_body(50))
    for memo in state["steps"].values():
        memo["data"] = "x" * (STATE_BYTES // 50)
    body = json.dumps(state).encode()
    del state
    pages = []
    for _ in range(MEMORY_CALLS):
        status, _ = await call(app, body, "state")
        assert status == 206
        pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    # What is kept stays; what the allocator holds for a moment on a busy machine goes again.
    return min(pages[-10:]) / statistics.mean(pages[:10])


def main() -> None:
    """Measure everything and print one JSON line."""
    figures = {
        **start_ratios(),
        **asyncio.run(call_ratios()),
        **asyncio.run(our_figures()),
        "cold_ratio": cold_ratio(),
        "memory_ratio": memory_ratio(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
