"""A lab that lets handlers go on in one call, as the engine does: steps beside each other, too."""

import asyncio
from functools import partial

import pytest

from stepbase import App, Concurrency, Event, Step, SyncStep
from stepbase.testing import Lab

beside = App("beside")
beside_calls: list[str] = []


@beside.function("async", on="b/async")
async def beside_async(step: Step) -> list[int]:
    beside_calls.append("call")
    found = await asyncio.gather(*(step.run(f"part {n}", int, n) for n in range(3)))
    return [*found, await step.run("last", int, 3)]


@beside.function("sync", on="b/sync")
def beside_sync(step: SyncStep) -> list[int]:
    beside_calls.append("call")
    found = step.parallel(*(partial(step.run, f"part {n}", int, n) for n in range(3)))
    return [*found, step.run("last", int, 3)]


@beside.function("limited", on="b/limited", concurrency=Concurrency(2))
async def beside_limited(step: Step) -> list[int]:
    found: list[int] = await beside_async(step)
    return found


@pytest.mark.parametrize(("kind", "calls"), [("async", 1), ("sync", 1), ("limited", 5)])
async def test_steps_beside_each_other_run_in_the_call_that_finds_them(
    kind: str, calls: int
) -> None:
    """As on the engine; under a limit of steps at once, which counts calls, each has its own."""
    beside_calls.clear()
    async with Lab(beside, checkpointing=True) as lab:
        lab.fake_step("part 1", lambda n: n)
        [run] = await lab.send(Event(f"b/{kind}"))

        assert run.result == [0, 1, 2, 3]
        assert dict(run.steps) == {"part 0": 0, "part 1": 1, "part 2": 2, "last": 3}
        assert len(beside_calls) == calls


async def test_one_that_fails_beside_others_is_tried_again_on_its_own() -> None:
    async with Lab(beside, checkpointing=True) as lab:
        lab.fail_step("part 1", ValueError("no"))
        [run] = await lab.send(Event("b/async"))

        assert (run.status, dict(run.steps)) == ("retrying", {"part 0": 0, "part 2": 2})
        await lab.finish(run)
        assert run.result == [0, 1, 2, 3]
        assert [(each.step, each.attempt) for each in run.attempts] == [("part 1", 0)]
