"""What only async handlers can do: wait for the event loop between steps, be cancelled, start tasks."""

import asyncio
from typing import Any

import pytest
from tests.support.sdk_calls import Reply, call_body, event, hashed, untimed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Event, Step, StepError, asgi

app = App("loop")
Data = Event[dict[str, Any]]


@app.function("io", on="a")
async def io(step: Step) -> list[Any]:
    await asyncio.sleep(0)
    one = await step.run("one", slow)
    await asyncio.sleep(0.001)
    async with asyncio.timeout(10):
        two = await step.run("two", slow)
    await asyncio.wait_for(asyncio.sleep(0), 1)
    return [one, two]


async def slow() -> str:
    await asyncio.sleep(0.001)
    return "slow"


@app.function("gather", on="a")
async def gather(step: Step) -> list[str]:
    return list(await asyncio.gather(step.run("a", slow), step.run("b", slow)))


@app.function("timeout", on="a")
async def timeout(step: Step) -> str:
    async def forever() -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(0.01):
        await step.run("forever", forever)
    return "unreachable"


@app.function("cancelled", on="a")
async def cancelled() -> None:
    raise asyncio.CancelledError("of its own accord")


@app.function("waiting", on="a")
async def waiting() -> None:
    await asyncio.Event().wait()


@app.function("cleanup", on="a")
async def cleanup(step: Step) -> str:
    try:
        return await step.run("one", slow)
    finally:
        await asyncio.sleep(0)
        seen.append("cleaned")


seen: list[str] = []


async def call(name: str, **options: Any) -> Reply:
    ask = ask_asgi(asgi(app))
    return await ask("POST", query=f"fnId=loop-{name}&stepId=step", body=call_body(**options))


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")


async def test_it_may_await_anything_between_steps() -> None:
    memo = {"data": "slow"}

    first = await call("io")
    second = await call("io", steps={hashed("one"): memo})
    last = await call("io", steps={hashed("one"): memo, hashed("two"): memo})

    assert (first.op["displayName"], second.op["displayName"]) == ("one", "two")
    assert last.body == ["slow", "slow"]


async def test_clean_up_may_await() -> None:
    seen.clear()

    reply = await call("cleanup")

    assert reply.op["data"] == "slow"
    assert seen == ["cleaned"]


async def test_steps_side_by_side_are_planned() -> None:
    reply = await call("gather")

    assert reply.status == 206
    assert [(op["op"], op["displayName"]) for op in reply.body] == [
        ("StepPlanned", "a"),
        ("StepPlanned", "b"),
    ]


async def test_finished_steps_may_be_gathered() -> None:
    memos = {hashed("a"): {"data": "x"}, hashed("b"): {"data": "y"}}

    assert (await call("gather", steps=memos)).body == ["x", "y"]


async def test_a_timeout_around_a_step_ends_its_work() -> None:
    reply = await call("timeout")

    assert (reply.status, reply.body["name"]) == (500, "TimeoutError")


async def test_a_handler_that_cancels_itself_has_failed() -> None:
    reply = await call("cancelled")

    assert (reply.status, reply.body["name"]) == (500, "CancelledError")
    assert reply.body["message"] == "of its own accord"


async def test_a_host_that_stops_cancels_the_handler() -> None:
    task = asyncio.ensure_future(call("waiting"))
    await asyncio.sleep(0.01)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_calls_at_the_same_time_do_not_meet() -> None:
    bodies = [call("io", first=event(id=str(i)), run_id=f"run-{i}") for i in range(20)]

    replies = await asyncio.gather(*bodies)

    ops = [untimed(reply.op) for reply in replies]
    assert ops == [ops[0]] * 20


async def test_a_step_error_can_be_caught_around_a_memo() -> None:
    @app.function("caught", on="a")
    async def caught(event: Data, step: Step) -> str:
        try:
            return await step.run("one", slow)
        except StepError as error:
            return str(error)

    reply = await call("caught", steps={hashed("one"): {"error": {"name": "E", "message": "m"}}})

    assert reply.body == "E: m"
