"""The hot statements at a million rows in each of the five large tables, planned while they were empty.

The server counts what an operation touches, in the operation's own transaction: scans of whole tables, and
blocks of tables and indexes. A grown index costs a block or two more each time it is gone through;
anything that is not a look-up would cost thousands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import NamedTuple

import asyncpg
import pytest
from tests.conftest import migration_files
from tests.engine import test_sql_plans as hot
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

ROWS = 1_000_000
BLOCKS_A_PATH = 10
"""What the match of an event may read for one path: an index of a million rows has three levels."""
PATHS = 3
"""The one in use, the search for others, and what has none."""
MOST_TIMES = 4
"""How much more an operation may touch than on empty tables, whose indexes are one block; planned anew, each
index of its tables is looked at as well."""

# A million sleeping runs, each with a pause of its own for the same event. In order of their keys: that is
# several times as fast.
_ID = "'R' || lpad(n::text, 8, '0')"
_ALL = f"from generate_series(1, {ROWS}) n"
_FILL = (
    f"""
insert into stepbase.events (id, name, payload, ts, received_at)
  select {_ID}, 'app/f', '{{"data":{{}}}}', '{sql.NOON}', '{sql.NOON}' {_ALL};
insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, created_at)
  select {_ID}, '{sql.FUNCTION_ID}', 1, {_ID}, 'Running', '{sql.NOON}' {_ALL};
""",
    f"""
insert into stepbase.steps (run_id, hash, pos, name, op, status, memo, started_at)
  select {_ID}, 'h', 1, 's', 'Sleep', 'sleeping', 'null', '{sql.NOON}' {_ALL};
insert into stepbase.queue (run_id, job, kind, ready, score, due_at)
  select {_ID}, 'main', 'sleep', false, '{sql.NOON}',
         timestamptz '{sql.NOON}' + interval '1 day' + n * interval '1 second' {_ALL};
insert into stepbase.pauses (run_id, hash, kind, event_name, path, value, own_events, expires_at)
  select {_ID}, 'h', 'cancel', 'app/stop', 'data.ref', '"' || {_ID} || '"', array[{_ID}],
         timestamptz '{sql.NOON}' + interval '1 year' {_ALL};
""",
)

_TOUCHED = """
select coalesce(sum(pg_stat_get_xact_blocks_fetched(oid)), 0)::int as blocks,
       coalesce(sum(pg_stat_get_xact_numscans(oid)) filter (where relkind = 'r' and relname = any ($1)), 0)
         ::int as scans
  from pg_class where relnamespace = 'stepbase'::regnamespace and relkind in ('r', 'i')
"""

Operation = Callable[[Hands], Awaitable[object]]


class Touched(NamedTuple):
    """What an operation touched."""

    blocks: int
    scans: int


@pytest.fixture
def own_server() -> Iterator[str]:
    """The DSN of a database on a server of its own: more than a gigabyte, so not in memory."""
    with Cluster(durable=False, settings={"max_wal_size": "4GB", "autovacuum": "off"}) as cluster:
        asyncio.run(migrate.apply_files(cluster.dsn(), migration_files()))
        yield cluster.dsn()


async def touched(hands: Hands, operation: Operation) -> Touched:
    """Run an operation in a transaction of its own; return what it touched."""
    async with hands.connection.transaction():
        before = await _counters(hands)
        await operation(hands)
        after = await _counters(hands)
    return Touched(after.blocks - before.blocks, after.scans - before.scans)


async def _counters(hands: Hands) -> Touched:
    large = ["events", "runs", "steps", "queue", "pauses"]
    row = await hands.connection.fetchrow(_TOUCHED, large)
    assert row is not None
    return Touched(row["blocks"], row["scans"])


async def warmed_up(connection: asyncpg.Connection) -> Hands:
    """Return hands whose statements have all been planned for good, on empty tables."""
    hands = Hands(connection)
    await hands.at(0)
    await connection.execute("analyze")
    flow = '{"limits":[1,1],"every":1,"slack":1000000}'
    function = (sql.FUNCTION_ID, "app-f1", "f", "{}", flow)
    await hands.register_app(sql.FUNCTION_ID, "app", "http://x", "", "", "", [function])
    for _ in range(7):
        for operation in OPERATIONS.values():
            await operation(hands)
    return hands


async def idle_sweep(hands: Hands) -> None:
    """A sweep that finds nothing, with a short stretch of events to look through."""
    year = timedelta(days=365)
    await hands.sweep(year, year, year, 2)


OPERATIONS: dict[str, Operation] = {
    "a run from event to end": hot.cycle,
    "a group of waits": hot.group,
    "start rules": hot.limit,
    "a run in a lane": hot.in_a_lane,
    "batches and debounces": hot.gather,
    "reads of the API": hot.ask,
    "reruns and metrics": hot.operate,
    "a schedule": hot.alarm,
    "a sweep": idle_sweep,
}


@pytest.mark.timeout(600)
async def test_at_a_million_rows_every_hot_statement_is_still_a_look_up(own_server: str) -> None:
    connections = [await asyncpg.connect(own_server) for _ in range(3)]
    hands = await warmed_up(connections[0])
    empty = {name: await touched(hands, each) for name, each in OPERATIONS.items()}
    await asyncio.gather(*(c.execute(part) for c, part in zip(connections[1:], _FILL, strict=True)))

    full = {name: await touched(hands, each) for name, each in OPERATIONS.items()}
    match = await touched(hands, find_the_one)
    # As well with statistics: then all is planned anew.
    await connections[1].execute("analyze")
    known = {name: await touched(hands, each) for name, each in OPERATIONS.items()}
    for connection in connections:
        await connection.close()

    assert {name: each.scans for name, each in (full | known).items() if each.scans} == {}
    assert match.scans == 0 and match.blocks <= PATHS * BLOCKS_A_PATH
    for name, each in empty.items():
        most = MOST_TIMES * each.blocks
        assert full[name].blocks <= most and known[name].blocks <= most, (name, each, full, known)


async def find_the_one(hands: Hands) -> None:
    """What an event does before anything else: it looks for the one pause among a million that it ends."""
    found = await hands.connection.fetch(
        "select * from stepbase._candidates('E', 'app/stop', '{\"data\":{\"ref\":\"R00400001\"}}', $1)",
        sql.NOON,
    )
    assert [row["run_id"] for row in found] == ["R00400001"]
