"""Waits, invokes and signals of our own SDK through a real engine, in both kinds of handlers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel
from tests.conftest import Connect
from tests.engine.conftest import StartEngine, serving_app
from tests.support.engine_client import EngineClient

from stepbase import App, Event, EventData, Step, StepError, SyncStep

app = App("served")


class Go(EventData, name="served/go", extra="forbid"):
    n: int


class Approval(BaseModel):
    by: str


@app.function("double", on=Go)
def double(event: Event[Go]) -> Approval:
    return Approval(by=f"{2 * event.data.n} {event.user.get('id')} {event.v}")


@app.function("broken", retries=0)
def broken() -> None:
    raise ValueError("on purpose")


@app.function("slow")
async def slow(step: Step) -> None:
    await step.sleep("long", "1h")


@app.function("wait-async", on="served/wait.async")
async def wait_async(event: Event[dict[str, Any]], step: Step) -> Any:
    found = await step.wait_for_event("go", Go, match="data.n", timeout="1m")
    missed = await step.wait_for_event("never", "served/never", timeout="1s")
    return [found and [found.name, found.data.n], missed]


@app.function("wait-sync", on="served/wait.sync")
def wait_sync(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    found = step.wait_for_event("go", Go, match="data.n", timeout="1m")
    missed = step.wait_for_event("never", "served/never", timeout="1s")
    return [found and [found.name, found.data.n], missed]


TARGETS: list[tuple[Any, dict[str, Any]]] = [
    (broken, {}),
    ("served-missing", {}),
    (slow, {"timeout": "1s"}),
]


@app.function("invoke-async", on="served/invoke.async")
async def invoke_async(step: Step) -> list[str]:
    made = await step.invoke("double", double, Go(n=2), user={"id": "u"}, v="2")
    seen = [made.by]
    for target, options in TARGETS:
        try:
            await step.invoke("other", target, **options)
        except StepError as error:
            seen.append(error.message)
    return seen


@app.function("invoke-sync", on="served/invoke.sync")
def invoke_sync(step: SyncStep) -> list[str]:
    made = step.invoke("double", double, Go(n=2), user={"id": "u"}, v="2")
    seen = [made.by]
    for target, options in TARGETS:
        try:
            step.invoke("other", target, **options)
        except StepError as error:
            seen.append(error.message)
    return seen


@app.function("approve-async", on="served/approve.async")
async def approve_async(event: Event[dict[str, Any]], step: Step) -> Any:
    name = f"approve:{event.data['n']}"
    conflict = event.data.get("conflict", "fail")
    signal = await step.wait_for_signal(
        "approval",
        name,
        timeout=event.data.get("timeout", "1m"),
        on_conflict=conflict,
        returns=Approval,
    )
    return signal and [signal.name, signal.data.by]


@app.function("approve-sync", on="served/approve.sync")
def approve_sync(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    name = f"approve:{event.data['n']}"
    conflict = event.data.get("conflict", "fail")
    signal = step.wait_for_signal(
        "approval", name, timeout="1m", on_conflict=conflict, returns=Approval
    )
    return signal and [signal.name, signal.data.by]


@app.function("tell-async", on="served/tell.async")
async def tell_async(event: Event[dict[str, Any]], step: Step) -> str | None:
    return await step.send_signal("tell", f"approve:{event.data['n']}", {"by": "ann"})


@app.function("tell-sync", on="served/tell.sync")
def tell_sync(event: Event[dict[str, Any]], step: SyncStep) -> str | None:
    return step.send_signal("tell", f"approve:{event.data['n']}", {"by": "ann"})


@pytest.fixture
async def engine(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EngineClient]:
    """An engine that has synced the app above."""
    async with serving_app(app, start_engine, monkeypatch) as client:
        yield client


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def waiting(connection: asyncpg.Connection, name: str) -> None:
    """Return when a run waits for that event or signal."""
    async with asyncio.timeout(20):
        while not await connection.fetchval(
            "select exists (select from stepbase.pauses where event_name = $1)", name
        ):
            await asyncio.sleep(0.01)


async def test_a_wait_ends_by_its_event_or_its_time(
    engine: EngineClient, connect: Connect, kind: str
) -> None:
    [event_id] = await engine.send({"name": f"served/wait.{kind}", "data": {"n": 7}})
    await waiting(await connect(), "served/go")

    await engine.send(
        {"name": "served/go", "data": {"n": 8}}, {"name": "served/go", "data": {"n": 7}}
    )
    run = await engine.result(event_id)

    assert (run["status"], run["output"]) == ("Completed", [["served/go", 7], None])


async def test_an_invoke_gives_the_result_or_the_failure(engine: EngineClient, kind: str) -> None:
    [event_id] = await engine.send({"name": f"served/invoke.{kind}"})

    run = await engine.result(event_id)

    assert run["output"] == [
        "4 u 2",
        "on purpose",
        "could not find function with ID: served-missing",
        "Timed out waiting for invoked function to complete",
    ]


async def test_a_signal_wakes_the_run_that_waits_for_it(
    engine: EngineClient, connect: Connect, kind: str
) -> None:
    [early] = await engine.send({"name": f"served/tell.{kind}", "data": {"n": 7}})
    assert (await engine.result(early))["output"] is None
    [event_id] = await engine.send({"name": f"served/approve.{kind}", "data": {"n": 7}})
    await waiting(await connect(), "approve:7")

    [told] = await engine.send({"name": f"served/tell.{kind}", "data": {"n": 7}})
    run, teller = await engine.result(event_id), await engine.result(told)

    assert run["output"] == ["approve:7", "ann"]
    assert teller["output"] == run["run_id"]


async def test_the_second_run_to_wait_for_a_signal_fails(
    engine: EngineClient, connect: Connect
) -> None:
    first, second = {"name": "served/approve.async", "data": {"n": 1}}, "served/approve.sync"
    [waits] = await engine.send(first)
    await waiting(await connect(), "approve:1")
    [late] = await engine.send({"name": second, "data": {"n": 1}})

    run = await engine.result(late)
    await engine.send({"name": "served/tell.sync", "data": {"n": 1}})

    first = await engine.result(waits)
    assert (run["status"], run["output"]["name"]) == ("Failed", "SignalTaken")
    assert run["output"]["message"] == (
        f'run {first["run_id"]} waits for the signal "approve:1" already'
    )
    assert first["output"] == ["approve:1", "ann"]


async def test_a_run_may_take_a_signal_over(
    engine: EngineClient, connect: Connect, kind: str
) -> None:
    first = {"name": "served/approve.async", "data": {"n": 1, "timeout": "2s"}}
    [waits] = await engine.send(first)
    await waiting(await connect(), "approve:1")
    taking = {"n": 1, "conflict": "replace"}
    [late] = await engine.send({"name": f"served/approve.{kind}", "data": taking})
    async with asyncio.timeout(20):
        connection = await connect()
        while (
            await connection.fetchval(
                "select count(*) from stepbase.steps where status = 'waiting'"
            )
            < 2
        ):
            await asyncio.sleep(0.01)

    await engine.send({"name": "served/tell.sync", "data": {"n": 1}})

    assert (await engine.result(late))["output"] == ["approve:1", "ann"]
    assert (await engine.result(waits))["output"] is None
