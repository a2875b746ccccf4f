"""Handlers that do with asyncio what they should not, and hosts that do it to them."""

import asyncio
import gc
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from tests.support.planner import Planner
from tests.support.sdk_calls import Reply, call_body, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Context, Step, SyncStep, asgi
from stepbase.sdk import turns

app = App("wild", checkpointing=False)
told: list[Any] = []
whose: ContextVar[str] = ContextVar("whose", default="nobody's")


async def post(query: str, body: bytes) -> Reply:
    return await ask_asgi(asgi(app))("POST", query=query, body=body)


async def call(name: str, **options: Any) -> Reply:
    return await post(f"fnId=wild-{name}&stepId=step", call_body(**options))


async def finish(name: str) -> Any:
    return await Planner(post, f"wild-{name}").finish()


def shown(reply: Reply) -> list[str]:
    assert reply.status == 206, reply.content
    return [f"{op['op']} {op['displayName']}" for op in reply.body]


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    told.clear()


@pytest.fixture(autouse=True)
async def complaints() -> list[str]:
    """What the event loop has complained of."""
    global began, gate
    began, gate = asyncio.Event(), asyncio.Event()  # of this test's loop
    found: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: found.append(str(context["message"]))
    )
    return found


async def one(step: Step, name: str) -> Any:
    return await step.run(name, lambda: name)


async def two(step: Step, name: str) -> list[Any]:
    return [await one(step, f"{name}1"), await one(step, f"{name}2")]


@app.function("swallows")
async def swallows(step: Step) -> Any:
    async def greedy(name: str) -> Any:
        try:
            return await one(step, name)
        except BaseException:
            return await one(step, f"instead of {name}")

    try:
        return await asyncio.gather(greedy("a"), greedy("b"))
    except BaseException:
        return "made up"


@app.function("slow-clean-up")
async def slow_clean_up(step: Step) -> Any:
    async def careful(name: str) -> Any:
        try:
            return await two(step, name)
        finally:
            await asyncio.sleep(0.001)
            told.append(f"{name} is clean")

    return await asyncio.gather(careful("a"), careful("b"))


@app.function("group-in-a-race")
async def group_in_a_race(step: Step) -> Any:
    async def many() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(two(step, name)) for name in "abc"]
        return [task.result() for task in tasks]

    winner = await step.race(many(), one(step, "fast"))
    return [winner, await one(step, "after")]


@app.function("background")
async def background(step: Step) -> Any:
    async def breaks() -> None:
        await one(step, "in the background")
        raise ValueError("nobody waits for this")

    task = asyncio.create_task(breaks())
    result = await two(step, "a")
    return [*result, task.done()]


@app.function("plain")
async def plain(step: Step) -> Any:
    return await asyncio.gather(two(step, "a"), two(step, "b"), one(step, "c"))


@app.function("own-factory")
async def own_factory(step: Step) -> Any:
    loop = asyncio.get_running_loop()
    ours = loop.get_task_factory()
    loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop))
    try:
        return await asyncio.gather(two(step, "a"), one(step, "b"))
    finally:
        loop.set_task_factory(ours)


@app.function("context")
async def context(step: Step) -> Any:
    async def branch(name: str) -> list[str]:
        whose.set(name)
        return [await step.run(f"{name} plain", whose.get), await step.run(f"{name} async", read)]

    async def read() -> str:
        return whose.get()

    return [*await asyncio.gather(branch("a"), branch("b")), whose.get()]


@app.function("held")
async def held(step: Step) -> Any:
    async def forever() -> None:
        told.append("begun")
        began.set()
        await asyncio.Event().wait()

    async def branch() -> None:
        try:
            await step.run("held", forever)
        finally:
            told.append("cleaned")

    await asyncio.gather(branch(), one(step, "other"))


@app.function("threads")
async def threads(step: Step) -> Any:
    def outside() -> bool:
        return threading.current_thread() is threading.main_thread()

    return await asyncio.gather(asyncio.to_thread(outside), step.run("in a thread", outside))


@app.function("too-late")
async def too_late(step: Step) -> str:
    async def late() -> None:
        await gate.wait()
        told.append("at the step")
        try:
            await one(step, "late")
        finally:
            told.append("left")

    late_ones[:] = [asyncio.create_task(late())]
    await asyncio.sleep(0)
    return "gone"


@app.function("polls")
async def polls(step: Step) -> Any:
    task = asyncio.create_task(one(step, "a"))
    while not task.done():
        await asyncio.sleep(0)
    return task.result()


@app.function("fickle")
async def fickle(step: Step, ctx: Context) -> Any:
    task = asyncio.create_task(one(step, "a"))
    for _ in range(ctx.attempt):
        await asyncio.sleep(0)
    task.cancel()
    return await one(step, "b")


@app.function("waits-outside")
async def waits_outside(step: Step) -> Any:
    async def slow() -> None:
        await gate.wait()

    return await asyncio.gather(slow(), one(step, "a"), asyncio.sleep(0.01))


@app.function("stubborn")
async def stubborn(step: Step) -> Any:
    async def stays() -> None:
        try:
            await one(step, "a")
        except asyncio.CancelledError:
            await gate.wait()

    async def falls() -> None:
        try:
            await one(step, "b")
        finally:
            raise ValueError("while it is left")

    late_ones[:] = [asyncio.create_task(stays()), asyncio.create_task(falls())]
    return await one(step, "c")


@app.function("nobody-races")
async def nobody_races(step: Step) -> Any:
    return await step.race()


@app.function("nobody-races-sync")
def nobody_races_sync(step: SyncStep) -> Any:
    return step.race()


began = asyncio.Event()
gate = asyncio.Event()
late_ones: list["asyncio.Task[None]"] = []


async def test_a_handler_that_swallows_its_end_reports_its_steps_and_nothing_more() -> None:
    assert shown(await call("swallows")) == ["StepPlanned a", "StepPlanned b"]
    assert await finish("swallows") == ["a", "b"]


async def test_clean_up_of_branches_may_wait_before_the_call_ends() -> None:
    await call("slow-clean-up")

    assert sorted(told) == ["a is clean", "b is clean"]
    assert await finish("slow-clean-up") == [["a1", "a2"], ["b1", "b2"]]


async def test_a_task_group_that_loses_a_race_begins_no_further_step() -> None:
    memos = {hashed(name): {"data": name} for name in ("a1", "fast")}

    assert shown(await call("group-in-a-race", steps=memos)) == ["StepRun after"]
    assert (await finish("group-in-a-race"))[1] == "after"


async def test_an_error_in_the_background_is_asyncios_to_tell_and_ends_no_run(
    complaints: list[str],
) -> None:
    assert (await finish("background"))[:2] == ["a1", "a2"]

    gc.collect()
    assert set(complaints) <= {"Task exception was never retrieved"}


def eager(loop: Any, coroutine: Any, **options: Any) -> Any:
    """Make a task of a class of one's own."""
    return Named(coroutine, loop=loop, **options)


class Named(asyncio.Task[Any]):
    """What a tracing library makes of tasks, say."""


FACTORIES: list[Callable[..., Any]] = [eager]
if hasattr(asyncio, "eager_task_factory"):
    FACTORIES.append(asyncio.eager_task_factory)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_task_factory_of_others_keeps_its_say(factory: Any, is_first: bool) -> None:
    if not is_first:
        await call("plain")
    asyncio.get_running_loop().set_task_factory(factory)

    assert await finish("plain") == [["a1", "a2"], ["b1", "b2"], "c"]


async def test_tasks_of_a_factory_that_a_handler_sets_are_found_at_their_first_step() -> None:
    assert shown(await call("own-factory")) == ["StepPlanned a1", "StepPlanned b"]
    assert await finish("own-factory") == [["a1", "a2"], "b"]


async def test_steps_see_the_context_of_their_branch() -> None:
    assert await finish("context") == [["a", "a"], ["b", "b"], "nobody's"]


async def test_a_client_that_goes_away_in_the_middle_of_a_group_leaves_no_tasks(
    complaints: list[str],
) -> None:
    before = asyncio.all_tasks()
    query = f"fnId=wild-held&stepId={hashed('held')}"
    request = asyncio.create_task(post(query, call_body()))
    await began.wait()

    request.cancel()

    with pytest.raises(asyncio.CancelledError):
        await request
    gc.collect()
    assert told == ["begun", "cleaned"]
    assert (asyncio.all_tasks() - before, complaints) == (set(), [])


async def test_two_runs_on_one_loop_do_not_meet() -> None:
    planners = [Planner(post, "wild-plain"), Planner(post, "wild-context")]

    first, second = await asyncio.gather(*(planner.finish() for planner in planners))

    assert first == [["a1", "a2"], ["b1", "b2"], "c"]
    assert second == [["a", "a"], ["b", "b"], "nobody's"]


async def test_threads_and_steps_may_stand_side_by_side() -> None:
    assert await finish("threads") == [False, False]


async def test_a_step_that_is_reached_after_the_handler_has_returned_is_left(
    complaints: list[str],
) -> None:
    reply = await call("too-late")
    (late,) = late_ones

    gate.set()
    await asyncio.wait([late])

    assert (reply.body, told, complaints) == ("gone", ["at the step", "left"], [])
    assert late.cancelled()


async def test_a_handler_that_polls_its_task_is_ended_all_the_same() -> None:
    assert shown(await call("polls")) == ["StepRun a"]
    assert await finish("polls") == "a"


@pytest.mark.parametrize("at", range(16))
async def test_a_step_may_be_cancelled_at_any_turn(at: int) -> None:
    reply = await call("fickle", attempt=at, max_attempts=None)

    assert shown(reply) in (["StepRun a"], ["StepRun b"])


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_call_for_a_lost_step_waits_for_what_the_handler_waits_for_but_not_for_ever(
    is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.05)
    if is_open:
        gate.set()

    reply = await post(f"fnId=wild-waits-outside&stepId={hashed('lost')}", call_body())

    assert (reply.status, reply.body["code"]) == (500, "step_unexpected")


async def test_tasks_that_do_not_end_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, complaints: list[str]
) -> None:
    monkeypatch.setattr(turns, "LEAVING_SECONDS", 0.05)

    reply = await call("stubborn", steps={hashed("c"): {"data": "c"}})

    gate.set()
    await asyncio.wait(late_ones)
    assert reply.body == "c"
    assert ("1 tasks of a handler do not end" in caplog.text, complaints) == (True, [])


@pytest.mark.parametrize("name", ["nobody-races", "nobody-races-sync"])
async def test_a_race_needs_a_branch(name: str) -> None:
    reply = await call(name)

    assert (reply.status, reply.body["message"]) == (500, "step.race needs a branch at least")
