"""Steps that run code: alone, together, one within another; in async and in sync functions."""

import threading
from collections import defaultdict
from datetime import timedelta
from functools import partial
from typing import Any

import inngest
from tests.official.python.world import Gate, World, case, completed, data_of, function, seen

gates: defaultdict[str, Gate] = defaultdict(lambda: Gate(3))
"""Where the parallel steps of a run meet, by run."""
barriers: defaultdict[str, threading.Barrier] = defaultdict(lambda: threading.Barrier(3))


@function("run-twice")
async def run_twice(ctx: inngest.Context) -> Any:
    async def work(step: str, number: int) -> list[Any]:
        seen[f"{step} {ctx.run_id}"].append(number)
        return [step, number]

    first = await ctx.step.run("first", work, "one", 1)
    second = await ctx.step.run("second", work, "two", 2)
    return [first, second]


@case("step.run", "input of steps")
async def each_step_runs_once(world: World) -> None:
    run = await world.run("py/run-twice")

    assert completed(run) == [["one", 1], ["two", 2]]
    assert seen[f"one {run['run_id']}"] == [1]
    assert seen[f"two {run['run_id']}"] == [2]


VALUES = [None, True, False, 0, -1, 1.5, 2**53, "", 'ü "\n 漢字 🎈', [], {}, {"data": 1}, [[None]]]


@function("values")
async def values(ctx: inngest.Context) -> Any:
    async def work(at: int) -> Any:
        return VALUES[at]

    for at in range(len(VALUES)):
        found = await ctx.step.run("value", work, at)
        assert found == VALUES[at] and type(found) is type(VALUES[at]), found
    return VALUES


@case("step.run", "repeated step ids")
async def results_come_back_as_they_were(world: World) -> None:
    assert await world.output("py/values") == VALUES


@function("run-sync")
def run_sync(ctx: inngest.ContextSync) -> Any:
    def work(number: int) -> int:
        seen[ctx.run_id].append(number)
        return number

    return [ctx.step.run("same", work, number) for number in range(3)]


@case("sync functions", "step.run", "repeated step ids")
async def sync_functions_have_steps_too(world: World) -> None:
    run = await world.run("py/run-sync")

    assert completed(run) == [0, 1, 2]
    assert seen[run["run_id"]] == [0, 1, 2]


@function("nested", retries=1)
async def nested(ctx: inngest.Context) -> Any:
    async def inner() -> None:
        seen[f"inner {ctx.run_id}"].append(None)

    async def outer() -> None:
        seen[f"outer {ctx.run_id}"].append(ctx.attempt)
        await ctx.step.run("inner", inner)

    try:
        await ctx.step.run("outer", outer)
    except inngest.StepError as error:
        return error.message


@case("nested steps")
async def a_step_within_a_step_is_an_error(world: World) -> None:
    run = await world.run("py/nested")

    assert completed(run) == "Nested steps are not supported."
    assert seen[f"outer {run['run_id']}"] == [0]
    assert f"inner {run['run_id']}" not in seen


@function("step-error", retries=1)
async def step_error(ctx: inngest.Context) -> Any:
    async def fail() -> None:
        seen[f"attempts {ctx.run_id}"].append(ctx.attempt)
        raise LookupError("not here")

    async def undo() -> str:
        return "undone"

    try:
        await ctx.step.run("fail", fail)
    except inngest.StepError as error:
        undone = await ctx.step.run("undo", undo)
        if data_of(ctx)["caught"]:
            return [error.name, error.message, "LookupError" in (error.stack or ""), undone]
        raise


@function("sync-step-error", retries=0)
def sync_step_error(ctx: inngest.ContextSync) -> Any:
    def fail() -> None:
        raise LookupError("not here")

    try:
        ctx.step.run("fail", fail)
    except inngest.StepError as error:
        return [error.name, error.message]


@case("step error")
async def the_error_of_a_step_can_be_caught_after_its_last_attempt(world: World) -> None:
    run = await world.run("py/step-error", {"caught": True})

    assert completed(run) == ["LookupError", "not here", True, "undone"]
    assert seen[f"attempts {run['run_id']}"] == [0, 1]


@case("step error")
async def the_error_of_a_step_that_is_not_caught_fails_the_run(world: World) -> None:
    run = await world.run("py/step-error", {"caught": False})

    assert run["status"] == "Failed"
    assert (run["output"]["name"], run["output"]["message"]) == ("LookupError", "not here")
    assert seen[f"attempts {run['run_id']}"] == [0, 1]


@case("step error", "sync functions")
async def sync_functions_catch_the_errors_of_steps(world: World) -> None:
    assert await world.output("py/sync-step-error") == ["LookupError", "not here"]


@function("parallel")
async def parallel(ctx: inngest.Context) -> Any:
    async def work(number: int) -> int:
        await gates[ctx.run_id].passed()
        seen[f"parallel {ctx.run_id}"].append(number)
        return number

    before = await ctx.step.run("before", returning("before"))
    results = await ctx.group.parallel(
        tuple(partial(ctx.step.run, f"step {n}", work, n) for n in range(3))
    )
    after = await ctx.step.run("after", returning("after"))
    return [before, results, after]


def returning(value: str) -> Any:
    """Return a step's code that returns a value."""

    async def work() -> str:
        return value

    return work


@case("parallel")
async def steps_of_a_group_run_at_once(world: World) -> None:
    run = await world.run("py/parallel")

    assert completed(run) == ["before", [0, 1, 2], "after"]
    assert sorted(seen[f"parallel {run['run_id']}"]) == [0, 1, 2]


@function("parallel-sync")
def parallel_sync(ctx: inngest.ContextSync) -> Any:
    def work(number: int) -> int:
        barriers[ctx.run_id].wait(30)
        return number

    return ctx.group.parallel(tuple(partial(ctx.step.run, f"step {n}", work, n) for n in range(3)))


@case("parallel", "sync functions")
async def steps_of_a_group_run_at_once_in_threads(world: World) -> None:
    assert await world.output("py/parallel-sync") == [0, 1, 2]


@function("parallel-error", retries=1)
async def parallel_error(ctx: inngest.Context) -> Any:
    async def work(number: int) -> int:
        seen[f"step {number} {ctx.run_id}"].append(ctx.attempt)
        if number == 1:
            raise ValueError("one of two")
        return number

    try:
        await ctx.group.parallel(
            (
                lambda: ctx.step.run("zero", work, 0),
                lambda: ctx.step.run("one", work, 1),
            )
        )
    except inngest.StepError as error:
        return error.message


@case("parallel", "step error")
async def the_error_of_one_step_of_a_group_can_be_caught(world: World) -> None:
    run = await world.run("py/parallel-error")

    assert completed(run) == "one of two"
    assert seen[f"step 0 {run['run_id']}"] == [0]
    assert seen[f"step 1 {run['run_id']}"] == [0, 1]


@function("race")
async def race(ctx: inngest.Context) -> Any:
    gate = gates[ctx.run_id]

    async def slow() -> str:
        # Only the second step of the other branch lets it go on.
        await gate.passed()
        return "slow"

    async def last() -> str:
        gate.open()
        return "last"

    async def quick() -> str:
        await ctx.step.run("quick", returning("quick"))
        return await ctx.step.run("last", last)

    return await ctx.group.parallel(
        (lambda: ctx.step.run("slow", slow), quick),
        parallel_mode=inngest.ParallelMode.RACE,
    )


@case("race")
async def in_a_race_a_branch_goes_on_while_another_still_runs(world: World) -> None:
    assert await world.output("py/race") == ["slow", "last"]


@function("kinds")
async def kinds(ctx: inngest.Context) -> Any:
    step = ctx.step
    results = await ctx.group.parallel(
        (
            lambda: step.run("run", returning("ran")),
            lambda: step.sleep("sleep", timedelta(milliseconds=20)),
            lambda: step.wait_for_event("wait", event="py/kinds.now", timeout=60_000),
            lambda: step.wait_for_event("never", event="py/kinds.never", timeout=1_000),
            lambda: step.invoke("invoke", function=invoked, data={"n": 1}),
            lambda: step.send_event("send", inngest.Event(name="py/kinds.sent")),
        )
    )
    ran, slept, event, missed, answer, [sent] = results
    return [ran, slept, event.name, missed, answer, sent]


@function("kinds-invoked", [])
async def invoked(ctx: inngest.Context) -> Any:
    return data_of(ctx)["n"]


@case("planned steps", "parallel")
async def a_group_has_steps_of_all_kinds(world: World) -> None:
    event_id = await world.send("py/kinds")
    await world.waits(await world.started(event_id), "wait")
    await world.send("py/kinds.now")

    *results, sent = completed(await world.engine.result(event_id))

    assert results == ["ran", None, "py/kinds.now", None, 1]
    status, answer = await world.engine.request("GET", f"/v1/events/{sent}")
    assert (status, answer["data"]["name"]) == (200, "py/kinds.sent")
