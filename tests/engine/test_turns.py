"""Runs take turns: who has made ten calls in a row lets others go first, and only if there are others."""

import asyncio
from typing import Any

from tests.engine.conftest import StartEngine
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase.engine.executor import MAX_HOPS

STEPS = 30


class Turns:
    """The handler of a long run and a short one; knows in which order their calls came."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.gens: list[int] = []
        self.came = asyncio.Event()
        self.go_on = asyncio.Event()

    async def long(self, call: dict[str, Any]) -> Answer:
        self.order.append("long")
        self.gens.append(call["ctx"]["generation_id"])
        self.came.set()
        await self.go_on.wait()
        done = len(call["steps"])
        return Answer(200, done) if done == STEPS else ops(step_run(f"s{done}", done))

    def short(self, call: dict[str, Any]) -> Answer:
        self.order.append("short")
        return Answer(200, None)


async def test_a_long_run_makes_no_more_than_ten_calls_while_another_waits(
    start_engine: StartEngine, host: StubHost
) -> None:
    turns = Turns()
    host.handlers |= {"app-long": turns.long, "app-short": turns.short}
    async with start_engine(max_calls=1) as (client, _):
        await client.register(
            host.registration(host.function("app-long"), host.function("app-short"))
        )
        [first] = await client.send({"name": "app/long"})
        await turns.came.wait()
        [second] = await client.send({"name": "app/short"})
        turns.go_on.set()
        assert (await client.result(first))["output"] == STEPS
        await client.result(second)

    assert turns.order.count("long") == STEPS + 1
    # The call in flight when the other came, and ten that may follow it.
    assert turns.order.index("short") <= 1 + MAX_HOPS


async def test_a_run_alone_goes_on_without_being_leased_again(
    start_engine: StartEngine, host: StubHost
) -> None:
    turns = Turns()
    turns.go_on.set()
    host.handlers["app-long"] = turns.long
    async with start_engine(max_calls=1) as (client, _):
        await client.register(host.registration(host.function("app-long")))
        [only] = await client.send({"name": "app/long"})
        assert (await client.result(only))["output"] == STEPS

    # A lease raises the generation once more than a call that follows another.
    assert turns.gens == list(range(1, STEPS + 2))
