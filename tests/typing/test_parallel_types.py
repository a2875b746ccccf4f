"""Typed examples of steps side by side: each branch keeps the type of its result."""

import asyncio
from typing import assert_type

from stepbase import App, Function, Step, SyncStep

app = App("typed-parallel")


def count() -> int:
    return 1


async def name() -> str:
    return "n"


async def branch(step: Step) -> list[int]:
    first = await step.run("first", count)
    return [first, await step.run("second", count)]


@app.function("gather")
async def gather(step: Step) -> int:
    both = await asyncio.gather(step.run("a", count), step.run("b", name))
    assert_type(both, tuple[int, str])
    many = await asyncio.gather(*[step.run("c", count) for _ in range(3)])
    assert_type(many, list[int])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(branch(step))
    assert_type(task.result(), list[int])
    return both[0]


@app.function("race")
async def race(step: Step) -> str:
    assert_type(await step.race(step.run("a", count), step.run("b", count)), int)
    assert_type(await step.timeout("2d", branch(step)), list[int])
    return await step.race(step.run("c", name), step.run("d", name))


@app.function("plain")
def plain(step: SyncStep) -> int:
    both = step.parallel(lambda: step.run("a", count), lambda: step.run("b", name))
    assert_type(both, tuple[int, str])
    assert_type(step.parallel(*[count for _ in range(4)]), tuple[int, ...])
    return both[0]


assert_type(gather, Function[int])
assert_type(race, Function[str])


def test_the_examples_define_functions() -> None:
    assert set(app.functions) == {f"typed-parallel-{each}" for each in ("gather", "race", "plain")}
