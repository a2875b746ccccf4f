"""The functions that bench/scale.py measures, served over ASGI."""

import asyncio
import os
from typing import Any

from stepbase import App, CancelOn, Event, Step
from stepbase.hosts.asgi import asgi
from stepbase.supabase import client

# Of both kinds: with checkpoints, as functions are by default, and with a call for each step.
app = App("bench", checkpointing=os.environ.get("BENCH_CHECKPOINTING") == "1")
MANY = 100


@app.function("three", on="bench/three")
async def three(step: Step) -> dict[str, int]:
    """Run three steps, one after another."""
    one = await step.run("one", lambda: 1)
    two = await step.run("two", lambda: 2)
    more = await step.run("three", lambda: 3)
    return {"sum": one + two + more}


@app.function("sleeper", on="bench/sleeper", cancel_on=CancelOn("bench/refund", match="data.id"))
async def sleeper(step: Step) -> str:
    """Sleep for a day, unless a refund comes."""
    await step.sleep("nap", "1d")
    return "awake"


@app.function("keyed", on="bench/keyed")
async def keyed(step: Step) -> bool:
    """Wait for the event with this run's id."""
    return await step.wait_for_event("go", "bench/go", match="data.id", timeout="1d") is not None


@app.function("residual", on="bench/residual")
async def residual(step: Step) -> bool:
    """Wait for the same with a condition that no index serves."""
    found = await step.wait_for_event(
        "go", "bench/go-residual", if_="async.data.id - event.data.id == 0", timeout="1d"
    )
    return found is not None


async def work(seconds: float) -> int:
    """Do nothing, or wait as for an answer."""
    if seconds:
        await asyncio.sleep(seconds)
    return 1


@app.function("sequential", on="bench/sequential")
async def sequential(event: Event[Any], step: Step) -> int:
    """Run a hundred steps one after another."""
    seconds = event.data["seconds"]
    return sum([await step.run(f"step-{i}", work, seconds) for i in range(MANY)])


@app.function("parallel", on="bench/parallel")
async def parallel(event: Event[Any], step: Step) -> int:
    """Run the same hundred side by side."""
    seconds = event.data["seconds"]
    steps = [step.run(f"step-{i}", work, seconds) for i in range(MANY)]
    return sum(await asyncio.gather(*steps))


async def add_directly(cents: int) -> int:
    """Call the SQL function as any code does: not exactly once."""
    answer = await client.async_client().rpc("bench_add", {"p_cents": cents}).execute()
    return int(str(answer.data))


@app.function("without-ledger", on="bench/without-ledger")
async def without_ledger(step: Step) -> int:
    """Call an SQL function in ten steps that may happen twice."""
    return sum([await step.run(f"add-{i}", add_directly, i) for i in range(10)])


@app.function("with-ledger", on="bench/with-ledger")
async def with_ledger(step: Step) -> int:
    """Call the same ten times through the ledger."""
    calls = [
        await step.rpc("bench_add", {"p_cents": i}, id=f"add-{i}", returns=int) for i in range(10)
    ]
    return sum(calls)


asgi_app = asgi(app)
