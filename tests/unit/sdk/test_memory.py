"""Calls leave nothing behind: no growth, and no cycles that only the garbage collector finds."""

import asyncio
import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from bench import sdk
from tests.support.fake_api import fake_api
from tests.support.sdk_calls import call_object, hashed

from stepbase import App, Step, SyncStep
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.sdk import post
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request, Response

app = App("m")
BRANCHES = 5
TIMES = 10


async def one() -> int:
    return 1


def fail() -> None:
    raise ValueError("no")


@app.function("row")
async def row(step: Step) -> int:
    return sum([await step.run(f"s{i}", one) for i in range(BRANCHES)])


@app.function("beside")
async def beside(step: Step) -> int:
    return sum(await asyncio.gather(*(step.run(f"s{i}", one) for i in range(BRANCHES))))


@app.function("beside-sync")
def beside_sync(step: SyncStep) -> int:
    return sum(step.parallel(*(lambda i=i: step.run(f"s{i}", int) for i in range(BRANCHES))))


@app.function("fails")
async def fails(step: Step) -> None:
    await asyncio.gather(*(step.run(f"s{i}", fail) for i in range(BRANCHES)))


@app.function("group")
async def group(step: Step) -> None:
    async with asyncio.TaskGroup() as tasks:
        for i in range(BRANCHES):
            tasks.create_task(step.run(f"s{i}", one))
    await step.sleep("nap", "1h")


DONE = {hashed(f"s{i}"): {"data": 1} for i in range(BRANCHES)}


def test_a_hundred_calls_with_much_state_leave_no_growth() -> None:
    assert sdk.memory_ratio() <= 1.05


@pytest.mark.parametrize("together", ["true", "false"])
@pytest.mark.parametrize("steps", [{}, DONE], ids=["new", "done"])
@pytest.mark.parametrize("name", ["row", "beside", "beside-sync", "fails", "group"])
def test_calls_leave_no_cycles(
    name: str, steps: dict[str, Any], together: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = dumps_bytes(call_object(may_checkpoint=True, steps=steps))
    request = Request(
        "POST",
        "http://x/",
        f"fnId=m-{name}&stepId=step",
        {"x-stepbase-together": together},
        body,
    )
    with fake_api() as api:
        monkeypatch.setenv("INNGEST_DEV", api.url)
        endpoint = Endpoint(app, framework="test")

        async def ask() -> int:
            response = await endpoint.ahandle(request)
            assert isinstance(response, Response)
            return response.status

        left = asyncio.run(garbage_of(ask))
        post.close()

    assert left == Counter()


async def garbage_of(ask: Callable[[], Awaitable[int]]) -> Counter[str]:
    """Return what of ours is left by some calls, by type."""
    for _ in range(3):
        assert await ask() in (200, 206)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(TIMES):
            await ask()
        gc.collect()
        found = Counter(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    kept = ("Replay", "Call", "Turns", "SyncTurns", "Parked", "Task", "frame", "traceback")
    return Counter({name: found[name] for name in kept if found[name] >= TIMES})


TUNED = """
import gc
{before}
from stepbase.hosts import collector
collector.tune()
print(gc.get_threshold()[0], gc.get_freeze_count() > 1000, gc.isenabled())
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", "10000 True True"),
        ("gc.set_threshold(50_000)", "50000 True True"),
        ("gc.set_threshold(0)", "0 True True"),
        ("gc.disable()", "10000 True False"),
    ],
)
def test_a_host_tells_the_collector_what_it_is(before: str, expected: str) -> None:
    code = TUNED.format(before=before)

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert printed.strip() == expected
