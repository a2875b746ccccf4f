"""Steps beside each other in async handlers: what is found, in which order memos come back, who wins."""

import asyncio
import logging
from typing import Any

import pytest
from tests.support.planner import Planner
from tests.support.sdk_calls import Reply, call_body, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Step, StepError, asgi

app = App("side")
told: list[str] = []


async def post(query: str, body: bytes) -> Reply:
    return await ask_asgi(asgi(app))("POST", query=query, body=body)


async def call(name: str, **options: Any) -> Reply:
    step_id = options.pop("target", "step")
    return await post(f"fnId=side-{name}&stepId={step_id}", call_body(**options))


def shown(reply: Reply) -> list[str]:
    return [f"{op['op']} {op['displayName']}" for op in reply.body]


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    told.clear()


async def one(step: Step, name: str, value: Any = None) -> Any:
    result = await step.run(name, lambda: value or name)
    told.append(name)
    return result


async def two(step: Step, name: str) -> list[Any]:
    return [await one(step, f"{name}1"), await one(step, f"{name}2")]


@app.function("gather")
async def gather(step: Step) -> list[Any]:
    return list(await asyncio.gather(two(step, "a"), two(step, "b"), one(step, "c")))


@app.function("group")
async def group(step: Step) -> list[Any]:
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(two(step, "a"))
        second = tasks.create_task(one(step, "b"))
        await step.sleep("nap", "1h")
    return [first.result(), second.result()]


@app.function("nested")
async def nested(step: Step) -> list[Any]:
    async def inner(name: str) -> Any:
        return await asyncio.gather(one(step, name + "x"), asyncio.gather(one(step, name + "y")))

    return list(await asyncio.gather(inner("a"), inner("b")))


@app.function("completed")
async def completed(step: Step) -> list[Any]:
    tasks = [one(step, name) for name in "abc"]
    return [await each for each in asyncio.as_completed(tasks)]


@app.function("ticks")
async def ticks(step: Step) -> list[Any]:
    async def late(name: str) -> Any:
        for _ in range(4):
            await asyncio.sleep(0)
        return await one(step, name)

    return list(await asyncio.gather(late("a"), late("b")))


@app.function("io")
async def io(step: Step) -> list[Any]:
    async def slow() -> Any:
        await asyncio.sleep(0.01)
        return await one(step, "slow")

    return list(await asyncio.gather(slow(), one(step, "fast")))


@app.function("own-task")
async def own_task(step: Step) -> list[Any]:
    beside = asyncio.create_task(one(step, "beside"))
    here = await one(step, "here")
    return [here, await beside]


@app.function("race")
async def race(step: Step) -> Any:
    winner = await step.race(two(step, "a"), one(step, "b"))
    return [winner, await one(step, "after")]


@app.function("limit")
async def limit(step: Step) -> str:
    try:
        return str(await step.timeout("2d", one(step, "work")))
    except TimeoutError as error:
        return str(error)


@app.function("fails")
async def fails(step: Step) -> Any:
    def broken() -> None:
        raise ValueError("no")

    said = None
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(step.run("bad", broken))
            tasks.create_task(two(step, "a"))
    except* StepError:
        said = await one(step, "sorry")
    return said


@app.function("waits")
async def waits(step: Step) -> Any:
    return await asyncio.wait_for(one(step, "a"), 5)


@app.function("many")
async def many(step: Step) -> int:
    return len(await asyncio.gather(*(step.run("x", int) for _ in range(500))))


background: list[Any] = []


@app.function("library")
async def library(step: Step) -> Any:
    background.pop()()
    return await one(step, "a")


@app.function("changed")
async def changed(step: Step) -> Any:
    return list(await asyncio.gather(one(step, "new"), one(step, "kept")))


async def test_all_first_steps_are_planned_at_once() -> None:
    assert shown(await call("gather")) == ["StepPlanned a1", "StepPlanned b1", "StepPlanned c"]
    assert shown(await call("nested")) == [f"StepPlanned {x}" for x in ("ay", "ax", "by", "bx")]
    assert shown(await call("ticks")) == ["StepPlanned a", "StepPlanned b"]
    assert shown(await call("group")) == ["Sleep nap", "StepPlanned a1", "StepPlanned b"]


async def test_a_planned_step_runs_when_it_is_called_for() -> None:
    reply = await call("gather", target=hashed("b1"))

    assert (shown(reply), reply.op["data"]) == (["StepRun b1"], "b1")
    assert told == []


@pytest.mark.parametrize("name", ["gather", "nested", "completed", "ticks", "io", "own-task"])
@pytest.mark.parametrize("choice", [0, -1])
async def test_a_run_ends_whatever_order_its_steps_are_called_in(name: str, choice: int) -> None:
    planner = Planner(post, f"side-{name}", lambda due: due[choice])

    output = await planner.finish()

    assert sorted(_flat(output)) == sorted(
        {
            "gather": ["a1", "a2", "b1", "b2", "c"],
            "nested": ["ax", "ay", "bx", "by"],
            "completed": ["a", "b", "c"],
            "ticks": ["a", "b"],
            "io": ["fast", "slow"],
            "own-task": ["beside", "here"],
        }[name]
    )


async def test_memos_come_back_in_the_order_of_the_stack() -> None:
    memos = {hashed(name): {"data": name} for name in ("c", "a", "b")}

    assert (await call("completed", steps=memos)).body == ["c", "a", "b"]


async def test_what_is_under_way_is_planned_again_and_a_lone_step_runs() -> None:
    memos = {hashed(name): {"data": name} for name in ("a1", "b1", "c", "b2")}

    planning = await call("gather", steps=memos, is_planning=True)
    running = await call("gather", steps=memos)

    assert (shown(planning), shown(running)) == (["StepPlanned a2"], ["StepRun a2"])


async def test_a_call_for_a_step_in_a_gather_runs_it_before_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memos = {hashed("a1"): {"data": "a1"}, hashed("c"): {"error": {"name": "E", "message": "no"}}}

    reply = await call("gather", steps=memos, target=hashed("b1"))

    assert shown(reply) == ["StepRun b1"]
    assert told == []
    assert caplog.records == []


async def test_its_later_steps_wait_for_what_was_stored_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memos = {hashed("a1"): {"data": "a1"}, hashed("c"): {"data": "c"}}

    reply = await call("gather", steps=memos, target=hashed("a2"))

    assert shown(reply) == ["StepRun a2"]
    assert told == ["a1"]


async def test_the_first_to_end_wins_and_the_others_begin_no_step() -> None:
    begun = await call("race")
    memos = {hashed("a1"): {"data": "a1"}, hashed("b"): {"data": "b"}}
    won = await call("race", steps=memos)
    other = await call("race", steps={hashed("b"): {"data": "b"}, hashed("a1"): {"data": "a1"}})

    assert [op["opts"] for op in begun.body] == [{"parallelMode": "race"}] * 2
    assert shown(won) == ["StepRun after"]
    assert shown(other) == ["StepRun after"]


async def test_a_call_for_a_step_of_a_loser_is_answered_with_nothing() -> None:
    memos = {hashed("a1"): {"data": "a1"}, hashed("b"): {"data": "b"}}

    reply = await call("race", steps=memos, target=hashed("a2"))

    assert (reply.status, reply.body) == (206, [])


async def test_a_limit_is_a_sleep_that_races() -> None:
    begun = await call("limit")
    in_time = await call("limit", steps={hashed("work"): {"data": "done"}, hashed("timeout"): None})
    late = await call("limit", steps={hashed("timeout"): None, hashed("work"): {"data": "done"}})

    assert shown(begun) == ["StepPlanned work", "Sleep timeout"]
    assert (in_time.body, late.body) == ("done", 'step.timeout "timeout": 2d is over')


async def test_a_failure_leaves_the_group_as_asyncio_has_it() -> None:
    memos = {hashed("bad"): {"error": {"name": "ValueError", "message": "no"}}}

    reply = await call("fails", steps=memos)
    of_the_left = await call("fails", steps=memos, target=hashed("a1"))

    assert shown(reply) == ["StepRun sorry"]
    assert (of_the_left.status, of_the_left.body) == (206, [])


async def test_a_step_in_wait_for_is_refused_with_the_way_out() -> None:
    reply = await call("waits")

    assert (reply.status, reply.body["code"]) == (500, "step_wait_for")
    assert "use step.timeout" in reply.body["message"]


async def test_a_planned_step_that_is_not_there_any_more_is_an_error() -> None:
    reply = await call("gather", target=hashed("gone"))

    assert (reply.status, reply.body["code"]) == (500, "step_unexpected")


async def test_tasks_of_a_library_live_on_after_the_call() -> None:
    made: list[asyncio.Task[Any]] = []

    async def keep_alive() -> None:
        await asyncio.get_running_loop().create_future()

    background.append(lambda: made.append(asyncio.create_task(keep_alive())))

    reply = await call("library")

    assert shown(reply) == ["StepRun a"]
    assert not made[0].done()
    made[0].cancel()


async def test_five_hundred_steps_are_found_in_one_call() -> None:
    reply = await call("many")

    assert [op["op"] for op in reply.body] == ["StepPlanned"] * 500


async def test_five_hundred_results_are_taken_in_one_call() -> None:
    memos = {hashed("x", n): {"data": 0} for n in range(500)}

    assert (await call("many", steps=memos)).body == 500


async def test_changed_code_goes_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    memos = {hashed(name): {"data": name} for name in ("gone", "kept")}

    with caplog.at_level(logging.WARNING, "stepbase"):
        reply = await call("changed", steps=memos)

    assert shown(reply) == ["StepRun new"]
    assert "the function was changed" in caplog.text


def _flat(value: Any) -> list[str]:
    if isinstance(value, list):
        return [each for part in value for each in _flat(part)]
    return [value]
