"""Steps beside each other where it is easy to get wrong: clean-up, errors nobody asks for, who is left."""

import asyncio
import gc
from typing import Any

import pytest
from tests.support.sdk_calls import Reply, call_body, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Step, asgi

app = App("edge")
told: list[Any] = []
FAILED = {"error": {"name": "ValueError", "message": "no"}}


async def post(query: str, body: bytes) -> Reply:
    return await ask_asgi(asgi(app))("POST", query=query, body=body)


async def call(name: str, **options: Any) -> Reply:
    step_id = options.pop("target", "step")
    before = asyncio.all_tasks()
    reply = await post(f"fnId=edge-{name}&stepId={step_id}", call_body(**options))
    assert asyncio.all_tasks() == before, "a call has left tasks behind"
    return reply


def done(*names: str) -> dict[str, Any]:
    return {hashed(name): {"data": name} for name in names}


def shown(reply: Reply) -> list[str]:
    assert reply.status == 206, reply.content
    return [f"{op['op']} {op['displayName']}" for op in reply.body]


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    told.clear()


@pytest.fixture
async def complaints() -> list[str]:
    """What the event loop has complained of."""
    found: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: found.append(str(context["message"]))
    )
    return found


async def one(step: Step, name: str) -> Any:
    result = await step.run(name, lambda: name)
    told.append(name)
    return result


@app.function("clean-up")
async def clean_up(step: Step) -> Any:
    async def slow() -> Any:
        try:
            return await one(step, "slow")
        finally:
            await one(step, "clean up")

    winner = await step.race(slow(), one(step, "fast"))
    return [winner, await one(step, "after")]


@app.function("unasked")
async def unasked(step: Step) -> Any:
    tasks = [asyncio.create_task(one(step, name)) for name in ("a", "b")]
    await one(step, "c")
    return await asyncio.gather(*tasks, return_exceptions=True)


@app.function("outlived")
async def outlived(step: Step) -> Any:
    async def leave(number: int) -> Any:
        try:
            await one(step, f"step {number}")
        finally:
            told.append(number)

    tasks = [asyncio.create_task(leave(number)) for number in range(40)]
    await one(step, "enough")
    return len(tasks)


@app.function("sore-loser")
async def sore_loser(step: Step) -> Any:
    async def slow() -> None:
        try:
            await one(step, "slow")
        finally:
            raise ValueError("I was nearly there")

    return await step.race(slow(), one(step, "fast"))


@app.function("impatient")
async def impatient(step: Step) -> Any:
    async def slow() -> Any:
        try:
            return await one(step, "slow")
        finally:
            await one(step, "clean up")

    racing = asyncio.create_task(step.race(slow(), one(step, "fast")))
    await one(step, "enough")
    racing.cancel()
    await asyncio.wait([racing])
    return await one(step, "after")


@app.function("forgotten")
async def forgotten(step: Step) -> Any:
    async def group() -> Any:
        return await asyncio.gather(one(step, "a"), one(step, "b"))

    tasks = [asyncio.create_task(group()), asyncio.create_task(step.race(group(), group()))]
    await one(step, "c")
    return len(tasks)


@app.function("lingering")
async def lingering(step: Step) -> Any:
    async def group() -> Any:
        try:
            return await asyncio.gather(one(step, "a"), one(step, "b"))
        finally:
            await asyncio.sleep(0.001)
            told.append("cleaned")

    task = asyncio.create_task(group())
    await one(step, "c")
    task.cancel()
    return "enough"


async def test_a_task_whose_tasks_have_steps_ends_with_the_handler() -> None:
    assert (await call("lingering", steps=done("c"))).body == "enough"
    assert told == ["c", "cleaned"]


async def test_tasks_that_wait_for_tasks_end_with_the_handler() -> None:
    assert (await call("forgotten", steps=done("c"))).body == 2
    assert shown(await call("forgotten", target=hashed("c"))) == ["StepRun c"]


async def test_a_race_that_is_cancelled_leaves_no_loser_behind() -> None:
    cleaning = await call("impatient", steps=done("fast"))
    cancelled = await call("impatient", steps=done("fast", "enough"))

    assert shown(cleaning) == ["StepPlanned enough", "StepPlanned clean up"]
    assert shown(cancelled) == ["StepRun after"]


async def test_a_loser_may_clean_up_by_a_step_and_the_race_waits_for_it() -> None:
    memos = done("fast", "slow")

    cleaning = await call("clean-up", steps=memos)
    cleaned = await call("clean-up", steps=memos | done("clean up"))

    assert shown(cleaning) == ["StepPlanned clean up"]
    assert shown(cleaned) == ["StepRun after"]


async def test_errors_the_handler_had_no_time_to_ask_for_are_no_news(complaints: list[str]) -> None:
    reply = await call("unasked", steps={hashed("a"): FAILED, hashed("b"): FAILED})
    gc.collect()

    assert (shown(reply), complaints) == (["StepRun c"], [])


async def test_what_losers_raise_is_no_news(complaints: list[str]) -> None:
    reply = await call("sore-loser", steps=done("fast"))
    gc.collect()

    assert (reply.body, complaints) == ("fast", [])


async def test_what_outlives_the_handler_is_ended_in_the_order_of_its_making() -> None:
    for _ in range(3):
        told.clear()

        reply = await call("outlived", steps=done("enough"))

        assert (reply.status, reply.body) == (200, 40)
        assert told == ["enough", *range(40)]
