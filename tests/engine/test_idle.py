"""An engine with nothing to do leaves the database alone, but for one look at every tick."""

import asyncio
from collections import Counter

import asyncpg
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.stub_host import StubHost, ops, step_run

from stepbase import clock

TICK_SECONDS = 1.0
WATCHED_SECONDS = 3.5
NAP = {"op": "Sleep", "id": "nap", "displayName": "nap", "name": "1d", "opts": {}}


async def statements(connection: asyncpg.Connection, seconds: float) -> Counter[str]:
    """Count the statements that engines begin on this database, by the name of the connection."""
    seen: set[tuple[object, ...]] | None = None
    found: Counter[str] = Counter()
    ends = clock.monotonic() + seconds
    while clock.monotonic() < ends:
        rows = await connection.fetch(
            "select application_name as name, pid, query_start from pg_stat_activity"
            "  where application_name like 'stepbase engine%' and datname = current_database()"
        )
        keys = {(row["pid"], row["query_start"]): row["name"] for row in rows}
        if seen is not None:
            found.update(name for key, name in keys.items() if key not in seen)
        seen = (seen or set()) | set(keys)
        await asyncio.sleep(0.01)
    return found


async def test_no_statement_between_ticks(
    start_engine: StartEngine, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: (
        ops(NAP) if "one" in call["steps"] else ops(step_run("one", 1))
    )
    connection = await connect()
    async with start_engine(sweep_seconds=TICK_SECONDS) as (client, _):
        await client.register(host.registration(host.function("app-f")))
        await client.send({"name": "app/f"})
        async with asyncio.timeout(20):
            while not await connection.fetchval(
                "select exists (select from stepbase.queue where kind = 'sleep')"
            ):
                await asyncio.sleep(0.01)
        await statements(connection, TICK_SECONDS)  # what the run leaves behind

        found = await statements(connection, WATCHED_SECONDS)

    assert found["stepbase engine"] == 0, found
    assert 1 <= found["stepbase engine listener"] <= WATCHED_SECONDS / TICK_SECONDS + 1, found
