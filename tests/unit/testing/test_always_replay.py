"""`always_replay` finds handlers that do not go the same way each time, and passes those that do."""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from stepbase import App, Step, StepError, SyncStep
from stepbase.testing import Lab, NotDeterministicError

counter = iter(range(10_000))
odd_and_even = itertools.cycle([0, 1])


async def a_counter_chooses_the_step(step: Step) -> None:
    await step.run("first", lambda: 1)
    await step.run(f"step {next(counter)}", lambda: 2)


async def a_counter_chooses_the_result(step: Step) -> int:
    await step.run("first", lambda: 1)
    return next(counter)


def chance_in_a_sync_handler(step: SyncStep) -> None:
    step.run("first", lambda: 1)
    step.run(f"step {random.random()}", lambda: 2)


async def a_step_only_at_first(step: Step) -> None:
    if next(odd_and_even) == 0:
        await step.run("first", lambda: 1)


WRONG: dict[str, Callable[..., Any]] = {
    'after step "first" it reached step "step ': a_counter_chooses_the_step,
    'after step "first" it returned ': a_counter_chooses_the_result,
    'after step "first" it reached step "step 0.': chance_in_a_sync_handler,
    'before its first step it reached step "first", and called again': a_step_only_at_first,
}


async def all_kinds_of_steps(step: Step) -> list[Any]:
    log: list[Any] = []

    async def branch(name: str) -> None:
        log.append(await step.run(name, lambda: name))
        await step.sleep(f"nap {name}", "1m")
        log.append(await step.run(f"{name} again", lambda: name))

    await step.run("first", lambda: 1)
    await asyncio.gather(branch("a"), branch("b"))
    try:
        await step.run("bad", fail)
    except StepError as error:
        log.append(error.name)
    finally:
        await step.run("tidy", lambda: None)
    log.append(await step.race(step.run("x", lambda: "x"), step.run("y", lambda: "y")))
    return log


def fail() -> None:
    raise ValueError("no")


def plain_steps(step: SyncStep) -> int:
    return sum(step.run("n", lambda n=n: n, returns=int) for n in range(5))


RIGHT = (all_kinds_of_steps, plain_steps)


@pytest.mark.parametrize("message", WRONG)
async def test_what_goes_another_way_is_named(message: str) -> None:
    app = App("wrong")
    app.function("f", on="go")(WRONG[message])

    async with Lab(app, always_replay=True) as lab:
        with pytest.raises(NotDeterministicError) as caught:
            [run] = await lab.send({"name": "go"})
            await lab.finish(run)

    assert message in str(caught.value)
    assert "belong inside a step" in str(caught.value)


@pytest.mark.parametrize("handler", RIGHT)
@pytest.mark.parametrize("order", range(4))
async def test_what_goes_the_same_way_passes(handler: Callable[..., Any], order: int) -> None:
    app = App("right")
    app.function("f", on="go", retries=1)(handler)

    async with Lab(app, always_replay=True, order=order) as lab:
        [run] = await lab.send({"name": "go"})
        await lab.finish(run)

    assert run.status == "completed"


async def test_a_changed_way_back_is_found_at_the_end() -> None:
    """The handler is steady until the run is old, and then leaves out its first step."""
    app = App("old")
    ages: list[int] = []

    @app.function("f", on="go")
    async def f(step: Step) -> None:
        ages.append(1)
        if len(ages) <= 4:
            await step.run("first", lambda: 1)
        await step.run("second", lambda: 2)

    async with Lab(app, always_replay=True) as lab:
        with pytest.raises(
            NotDeterministicError, match='had reached step "first" at its beginning'
        ):
            await lab.send({"name": "go"})
