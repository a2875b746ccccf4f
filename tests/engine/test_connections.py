"""The engine's sessions: reused, bounded, replaced when they break, closed in the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.conftest import Connect

from stepbase.database.connections import Connections

PID = "select pg_backend_pid()"
MINE = """
select count(*) from pg_stat_activity
  where application_name = 'stepbase' and datname = current_database()
"""


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    """Two at most."""
    connections = Connections(database, size=2)
    yield connections
    await connections.close(5)


async def pid(connections: Connections) -> int:
    """Return which session serves the next statement."""
    found: int = (await connections.fetch(PID))[0][0]
    return found


async def test_the_session_used_last_is_used_next(connections: Connections) -> None:
    await asyncio.gather(*(connections.fetch("select pg_sleep(0.05)") for _ in range(2)))

    assert len({await pid(connections) for _ in range(5)}) == 1


async def test_who_comes_when_all_are_in_use_waits(connections: Connections) -> None:
    rows = await asyncio.gather(
        *(connections.fetch("select pg_backend_pid() from pg_sleep(0.02)") for _ in range(10))
    )

    assert len({row[0][0] for row in rows}) == 2


async def test_an_error_of_the_statement_keeps_the_session(connections: Connections) -> None:
    before = await pid(connections)

    with pytest.raises(asyncpg.DivisionByZeroError):
        await connections.fetch("select 1 / 0")

    assert await pid(connections) == before


async def test_a_cancelled_statement_costs_its_session(
    connections: Connections, connect: Connect
) -> None:
    before = await pid(connections)
    waiting = asyncio.create_task(connections.fetch("select pg_sleep(60)"))
    watcher = await connect()
    async with asyncio.timeout(10):
        while not await watcher.fetchval(
            "select true from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'", before
        ):
            await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert await pid(connections) != before


async def test_a_session_unused_for_long_is_not_trusted(database: str) -> None:
    connections = Connections(database, size=2, idle=0.0)

    first, second = await pid(connections), await pid(connections)

    assert first != second
    await connections.close(5)


async def test_sessions_not_needed_any_more_are_ended(database: str, connect: Connect) -> None:
    connections = Connections(database, size=2, idle=0.3)
    await asyncio.gather(*(connections.fetch("select pg_sleep(0.05)") for _ in range(2)))
    watcher = await connect()
    assert await watcher.fetchval(MINE) == 2

    async with asyncio.timeout(10):
        while await watcher.fetchval(MINE) != 1:
            await connections.fetch("select 1")
    await connections.close(5)


async def test_a_session_that_the_server_ended_is_replaced(
    connections: Connections, connect: Connect
) -> None:
    before = await pid(connections)
    await (await connect()).execute("select pg_terminate_backend($1, 5000)", before)
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await connections.fetch("select 1")  # the driver may not have seen it yet

    assert await pid(connections) != before


async def test_closing_lets_statements_finish_and_leaves_no_session(
    connections: Connections, connect: Connect
) -> None:
    under_way = asyncio.create_task(connections.fetch("select 7 from pg_sleep(0.2)"))
    await asyncio.sleep(0)

    await connections.close(5)

    assert (await under_way)[0][0] == 7
    watcher = await connect()
    async with asyncio.timeout(10):
        while await watcher.fetchval(MINE):
            await asyncio.sleep(0.01)


async def test_after_closing_there_is_none(connections: Connections) -> None:
    await connections.close(5)

    async with asyncio.timeout(10):
        with pytest.raises(asyncpg.InterfaceError, match="closed"):
            await connections.fetch("select 1")


async def test_closing_does_not_wait_for_ever(connections: Connections) -> None:
    under_way = asyncio.create_task(connections.fetch("select pg_sleep(60)"))
    await asyncio.sleep(0)

    await connections.close(0.2)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await under_way


async def test_a_session_that_opens_after_closing_has_given_up_is_ended(
    connections: Connections, connect: Connect
) -> None:
    opening = asyncio.create_task(connections.fetch("select pg_sleep(60)"))
    await asyncio.sleep(0)

    await connections.close(0)

    async with asyncio.timeout(10):
        with pytest.raises(asyncpg.InterfaceError, match="closed"):
            await opening
        watcher = await connect()
        while await watcher.fetchval(MINE):
            await asyncio.sleep(0.01)
