"""A call for a planned step waits a while for it when the handler waits for other things than steps."""

import asyncio
from typing import Any

import pytest
from tests.support.sdk_calls import Reply, call_body, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Step, asgi
from stepbase.sdk import turns

app = App("patient")


async def call(name: str, target: str) -> Reply:
    query = f"fnId=patient-{name}&stepId={hashed(target)}"
    return await ask_asgi(asgi(app))("POST", query=query, body=call_body())


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.05)


async def after(seconds: float, step: Step, name: str, work_seconds: float = 0) -> Any:
    await asyncio.sleep(seconds)
    return await step.run(name, asyncio.sleep, work_seconds, name)


@app.function("late")
async def late(step: Step) -> Any:
    return await asyncio.gather(
        step.run("here", str), after(0.005, step, "passed"), after(0.01, step, "late", 0.1)
    )


@app.function("never")
async def never(step: Step) -> Any:
    return await asyncio.gather(step.run("here", str), asyncio.get_running_loop().create_future())


@app.function("both")
async def both(step: Step) -> Any:
    beside = asyncio.create_task(after(0, step, "beside"))
    return [await step.run("here", str), await beside]


@app.function("elsewhere")
async def elsewhere(step: Step) -> Any:
    beside = asyncio.create_task(after(0, step, "beside"))
    await asyncio.get_running_loop().create_future()
    return await beside


async def test_a_step_that_comes_late_runs_however_long_it_takes() -> None:
    reply = await call("late", "late")

    assert (reply.op["op"], reply.op["data"]) == ("StepRun", "late")


@pytest.mark.parametrize("name", ["never", "elsewhere", "both"])
async def test_a_step_that_never_comes_is_an_error_once_the_patience_is_over(name: str) -> None:
    reply = await call(name, "gone")

    assert (reply.status, reply.body["code"]) == (500, "step_unexpected")
