"""A database with an engine and a function host of its own, and what a stretch of work costs there."""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
from bench.support import processes
from bench.support.api import post

from stepbase.local import migrate
from stepbase.local.gateway.auth import Keys
from stepbase.local.postgres import Cluster

Connection = asyncpg.Connection  # of asyncpg.Record
EventIn = dict[str, object]

BATCH = 50
_SPENT = """
  select coalesce(sum(total_exec_time), 0)::float8 as ms, coalesce(sum(calls), 0)::float8 as calls
    from pg_stat_statements s join pg_database d on d.oid = s.dbid and d.datname = current_database()
    where toplevel and query like '%stepbase.%' and query not like '%bench:%'
"""


@dataclass
class World:
    """Where a database and its engine are."""

    dsn: str
    engine_url: str
    engine_pid: int

    async def cost(self, events: Sequence[EventIn], steps: int) -> dict[str, float]:
        """Send events at once; return milliseconds a step until the last run ended, wall and Postgres."""
        connection = await asyncpg.connect(self.dsn)
        async with aiohttp.ClientSession() as http:
            before = await _spent(connection)
            began = time.perf_counter()
            batches = [events[i : i + BATCH] for i in range(0, len(events), BATCH)]
            answers = await asyncio.gather(*(post(http, self.engine_url, list(b)) for b in batches))
            await until_ended(connection, [id_ for ids in answers for id_ in ids])
            wall = (time.perf_counter() - began) * 1000
        after = await _spent(connection)
        await connection.close()
        return {"wall_ms": wall / steps, "db_ms": (after - before) / steps}

    async def latencies(self, events: Sequence[EventIn], times: int) -> list[float]:
        """Return, for each event, the median milliseconds from its arrival to the end of its run.

        One run at a time, the events in turns, so that all have the same weather.
        """
        connection = await asyncpg.connect(self.dsn)
        found: list[list[float]] = [[] for _ in events]
        async with aiohttp.ClientSession() as http:
            for i in range(times * len(events)):
                turn = i % len(events)
                ids = await post(http, self.engine_url, [events[turn]])
                await until_ended(connection, ids)
                found[turn].append(await connection.fetchval(_LATENCY, ids[0]))
        await connection.close()
        return [statistics.median(each) for each in found]

    async def latency(self, event: EventIn, times: int) -> float:
        """Return the median milliseconds from an event's arrival to the end of its run, one at a time."""
        return (await self.latencies([event], times))[0]


_LATENCY = """
  select extract(epoch from r.ended_at - e.received_at)::float8 * 1000
    from stepbase.events e join stepbase.runs r on r.event_id = e.id where e.id = $1
"""


async def _spent(connection: "Connection[asyncpg.Record]") -> float:
    row = await connection.fetchrow(_SPENT)
    assert row is not None
    return float(row["ms"])


async def until_ended(connection: "Connection[asyncpg.Record]", events: list[str]) -> None:
    """Wait until each of these events has a run that has completed."""
    while events:
        done = await connection.fetch(
            "/* bench: */ select event_id from stepbase.runs where event_id = any ($1)"
            " and status = 'Completed'",
            events,
        )
        over = {row["event_id"] for row in done}
        events = [each for each in events if each not in over]
        await asyncio.sleep(0.02)  # seldom: whoever asks takes a core from what is measured


@contextlib.contextmanager
def world(
    cluster: Cluster, name: str, module: str, env: dict[str, str] | None = None
) -> Iterator[World]:
    """Make a database with all of stepbase, and serve the functions of a module on it."""
    dsn = make_database(cluster, name)
    with serving(dsn, module, env) as made:
        yield made


def make_database(cluster: Cluster, name: str) -> str:
    """Make a database with all of stepbase; return its DSN."""
    asyncio.run(execute(cluster.dsn(), f'create database "{name}"'))
    dsn = cluster.dsn(name)
    asyncio.run(migrate.apply(dsn))
    asyncio.run(execute(dsn, "create extension pg_stat_statements"))
    return dsn


@contextlib.contextmanager
def serving(dsn: str, module: str, env: dict[str, str] | None = None) -> Iterator[World]:
    """Serve the functions of a module on a database."""
    with (
        processes.engine(dsn) as (engine_url, engine),
        _host(module, {"INNGEST_DEV": engine_url, **(env or {})}) as serve_url,
    ):
        processes.put(serve_url)
        yield World(dsn, engine_url, engine.pid)


@contextlib.contextmanager
def gateway(dsn: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run the REST gateway; yields what a client needs in its environment."""
    keys = Keys.load(folder / "keys.json")
    command = (sys.executable, "-m", "stepbase.cli", "gateway", "--port", "0")
    more = ("--database-url", dsn, "--keys", str(folder / "keys.json"))
    with processes.child(*command, *more) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield {"SUPABASE_URL": f"http://127.0.0.1:{port}", "SUPABASE_SECRET_KEY": keys.secret}


@contextlib.contextmanager
def _host(module: str, env: dict[str, str]) -> Iterator[str]:
    port = processes.free_port()
    command = (sys.executable, "-m", "uvicorn", module, "--port", str(port))
    paths = f"{processes.ROOT}{os.pathsep}{processes.ROOT / 'shared'}"
    env = {"PYTHONPATH": paths, **env}
    with processes.child(*command, "--log-level", "warning", "--no-access-log", env=env):
        url = f"http://127.0.0.1:{port}/api/inngest"
        processes.wait_for(url)
        yield url


async def execute(dsn: str, sql: str) -> None:
    """Execute statements."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()
