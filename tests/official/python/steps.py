"""Steps, by async and by sync functions."""

from collections import Counter
from typing import Any

import inngest
from tests.official.python.world import World, case, function

ran: Counter[str] = Counter()


@function("run-twice")
async def run_twice(ctx: inngest.Context) -> Any:
    async def work(step: str) -> str:
        ran[f"{ctx.run_id} {step}"] += 1
        return step

    first = await ctx.step.run("first", work, "one")
    second = await ctx.step.run("second", work, "two")
    return [first, second, ctx.run_id]


@case("step.run")
async def each_step_runs_once(world: World) -> None:
    first, second, run_id = await world.output("py/run-twice")

    assert (first, second) == ("one", "two")
    assert (ran[f"{run_id} one"], ran[f"{run_id} two"]) == (1, 1)


@function("run-sync")
def run_sync(ctx: inngest.ContextSync) -> Any:
    def work(number: int) -> int:
        return number

    return [ctx.step.run(f"step {number}", work, number) for number in range(3)]


@case("sync functions", "step.run")
async def sync_functions_have_steps_too(world: World) -> None:
    assert await world.output("py/run-sync") == [0, 1, 2]
