"""Fixtures for tests of the relay: a receiver that records, and relays in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from tests.support.event_receiver import EventReceiver

from stepbase.relay.process import running
from stepbase.relay.relay import Relay
from stepbase.relay.settings import Settings

PATIENCE = 20.0
KEY = "test-event-key"

StartRelay = Callable[..., AbstractAsyncContextManager[Relay]]


@pytest.fixture
async def receiver() -> AsyncIterator[EventReceiver]:
    """A receiver that listens."""
    async with EventReceiver() as receiver:
        yield receiver


def settings(database: str, receiver: EventReceiver, **changes: Any) -> Settings:
    """Return a relay's settings with short times."""
    made = Settings(
        database_url=database,
        event_origin=receiver.url,
        event_key=KEY,
        project="test",
        timeout=5.0,
        lease=timedelta(seconds=10),
    )
    return replace(made, **changes)


@pytest.fixture
def start_relay(database: str, receiver: EventReceiver) -> StartRelay:
    """Run relays from the test's database to the receiver: `async with start_relay(poll=…) as relay`."""

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[Relay]:
        async with running(settings(database, receiver, **changes)) as (relay, _):
            tasks = [asyncio.create_task(relay.run()), asyncio.create_task(relay.listen())]
            yield relay
            relay.stop()
            await tasks[0]
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)

    return start


@pytest.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's own database; what it does is committed."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def emit(
    db: asyncpg.Connection, count: int = 1, name: str = "a/b", size: int = 0
) -> list[str]:
    """Emit events in one transaction; return their ids in order."""
    rows = await db.fetch(
        "select stepbase.emit($1, jsonb_build_object('n', n, 'filling', repeat('x', $3))) as id"
        " from generate_series(1, $2::int) as n",
        name,
        count,
        size,
    )
    return [row["id"] for row in rows]


async def until(holds: Callable[[], Awaitable[object] | object], seconds: float = PATIENCE) -> None:
    """Return when something holds, looking often."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await asyncio.sleep(0.005)


async def empty(db: asyncpg.Connection) -> bool:
    """Say whether no event is on its way; the dead are not."""
    return not await db.fetchval(
        "select exists (select from stepbase.outbox where dead_at is null)"
    )
