"""An engine's slots while most of them are taken by long calls: what is free is used."""

import asyncio
from typing import Any

from tests.engine.conftest import StartEngine
from tests.support.stub_host import Answer, StubHost

SLOTS = 8
BURST = 30


class Calls:
    """The handlers of calls that go on until the test says so, and of short ones."""

    def __init__(self) -> None:
        self.long_count = 0
        self.have_come = asyncio.Event()
        self.end = asyncio.Event()

    async def long(self, call: dict[str, Any]) -> Answer:
        self.long_count += 1
        if self.long_count == SLOTS - 1:
            self.have_come.set()
        await self.end.wait()
        return Answer(200, "long")

    def short(self, call: dict[str, Any]) -> Answer:
        return Answer(200, "short")


async def test_the_last_free_slot_is_used_while_long_calls_go_on(
    start_engine: StartEngine, host: StubHost
) -> None:
    calls = Calls()
    host.handlers |= {"app-long": calls.long, "app-short": calls.short}
    async with start_engine(max_calls=SLOTS) as (client, engine):
        await client.register(
            host.registration(host.function("app-long"), host.function("app-short"))
        )
        try:
            long = await client.send(*[{"name": "app/long"}] * (SLOTS - 1))
            async with asyncio.timeout(10):
                await calls.have_come.wait()
            # More than there are slots: all but the first wait in the queue.
            short = await client.send(*[{"name": "app/short"}] * BURST)

            for event_id in short:
                [run] = await client.ended(event_id, seconds=15)
                assert run["output"] == "short"
            assert engine.worker.in_flight >= SLOTS - 1, "the long calls still go on"
        finally:
            calls.end.set()
        for event_id in long:
            assert (await client.result(event_id))["output"] == "long"
