"""The engine's hot path: runs of three steps, against a hand-written floor and DBOS, in one sitting.

Each round measures all of them, one after another, on one durable Postgres of stock configuration
(plus the preload of pg_stat_statements): 1,000 events sent 50 a request, until the last run has
ended; then runs one at a time, from "event accepted" to "run completed". The engine, the functions
and Postgres are processes of their own, and share this machine's cores.

Prints medians over the rounds. `vs_floor` and `vs_dbos` are steps per second, ours over theirs;
`idle_vs_floor` is latency, ours over theirs.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import asyncpg
from bench.support import processes
from bench.support.api import post

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

BATCH = 50


async def until_all_ended(connection: "asyncpg.Connection[asyncpg.Record]", count: int) -> None:
    """Wait until so many runs have completed in all."""
    while True:
        done = await connection.fetchval(
            "select count(*) from stepbase.runs where status = 'Completed'"
        )
        if done >= count:
            return
        await asyncio.sleep(0.01)


STATEMENTS = """
  select coalesce(sum(calls), 0)::float8 as calls, coalesce(sum(total_exec_time), 0)::float8 as ms
    from pg_stat_statements
    where toplevel and query ilike '%stepbase.%' and query not ilike '%count(*)%'
      and query not ilike '%received_at)::%'
"""
POSITION = """
  select pg_current_wal_lsn() - '0/0'::pg_lsn as wal,
         pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xid
"""


class Counters:
    """What a stretch of work cost in Postgres."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def __aenter__(self) -> "Counters":
        await self._connection.execute("select pg_stat_statements_reset()")
        self._before = await self._connection.fetchrow(POSITION)
        return self

    async def __aexit__(self, *_: object) -> None:
        after = await self._connection.fetchrow(POSITION)
        row = await self._connection.fetchrow(STATEMENTS)
        assert self._before and after and row
        self.statements = row["calls"]
        self.db_ms = row["ms"]
        self.wal = float(after["wal"] - self._before["wal"])
        self.xids = float(after["xid"] - self._before["xid"])


async def ours(dsn: str, engine_url: str, runs: int, idle_runs: int) -> dict[str, float]:
    """Measure the engine."""
    connection = await asyncpg.connect(dsn)
    async with aiohttp.ClientSession() as http:
        before = await connection.fetchval("select count(*) from stepbase.runs")
        event: dict[str, object] = {"name": "bench/three", "data": {"n": 1}}
        for _ in range(10):
            await post(http, engine_url, [event])
        await until_all_ended(connection, before + 10)

        ids = []
        async with Counters(connection) as alone:
            for i in range(idle_runs):
                ids += await post(http, engine_url, [event])
                await until_all_ended(connection, before + 11 + i)
        idle = await connection.fetch(
            "select extract(epoch from r.ended_at - e.received_at)::float8 * 1000 as ms"
            "  from stepbase.runs r join stepbase.events e on e.id = r.event_id"
            "  where e.id = any($1)",
            ids,
        )

        async with Counters(connection) as loaded:
            began = time.perf_counter()
            batches = [[event] * min(BATCH, runs - i) for i in range(0, runs, BATCH)]
            await asyncio.gather(*(post(http, engine_url, batch) for batch in batches))
            await until_all_ended(connection, before + 10 + idle_runs + runs)
            seconds = time.perf_counter() - began
    await connection.close()
    return {
        "seconds": seconds,
        "idle_p50_ms": statistics.median(row["ms"] for row in idle),
        "statements_alone": alone.statements / idle_runs,
        "write_tx_alone": alone.xids / idle_runs,
        "statements_per_run": loaded.statements / runs,
        "write_tx_per_run": loaded.xids / runs,
        "db_ms_per_run": loaded.db_ms / runs,
        "wal_bytes_per_run": loaded.wal / runs,
    }


def printed_json(*command: str) -> dict[str, float]:
    """Run a script and return the JSON of its last line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=processes.ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stderr[-2000:]}")
    last: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return last


@contextlib.contextmanager
def bare_host() -> Iterator[str]:
    """Serve the floor's function."""
    port = processes.free_port()
    with processes.child(sys.executable, "bench/floor.py", "host", str(port)):
        url = f"http://127.0.0.1:{port}/"
        processes.wait_for(url)
        yield url


def measure(options: argparse.Namespace, cluster: Cluster) -> dict[str, list[dict[str, float]]]:
    """Run the rounds."""
    for name in ("ours", "floor", "dbos"):
        asyncio.run(_create(cluster.dsn(), name))
    asyncio.run(migrate.apply(cluster.dsn("ours")))
    asyncio.run(_execute(cluster.dsn("ours"), "create extension pg_stat_statements"))
    results: dict[str, list[dict[str, float]]] = {"ours": [], "floor": [], "dbos": []}
    with (
        processes.engine(cluster.dsn("ours")) as (engine_url, _),
        processes.uvicorn_host("bench.support.functions:asgi_app", engine_url) as serve_url,
        bare_host() as floor_url,
    ):
        processes.put(serve_url)
        for i in range(options.rounds):
            results["ours"].append(
                asyncio.run(ours(cluster.dsn("ours"), engine_url, options.runs, options.idle_runs))
            )
            results["floor"].append(
                printed_json(
                    sys.executable,
                    "bench/floor.py",
                    "run",
                    cluster.dsn("floor"),
                    floor_url,
                    str(options.runs),
                    str(options.idle_runs),
                )  # fmt: skip
            )
            if not options.without_dbos:
                results["dbos"].append(
                    printed_json(
                        sys.executable,
                        "bench/support/peer_dbos.py",
                        cluster.dsn("dbos"),
                        str(options.runs),
                        "0",
                        str(options.dbos_polling),
                    )  # fmt: skip
                )
            print(f"round {i + 1}: " + json.dumps({k: v[-1] for k, v in results.items() if v}))
    return results


async def _create(dsn: str, name: str) -> None:
    await _execute(dsn, f'create database "{name}"')


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--idle-runs", type=int, default=100)
    parser.add_argument("--dbos-polling", type=float, default=0.05)
    parser.add_argument("--without-dbos", action="store_true")
    options = parser.parse_args()
    with Cluster(port=0, preload=["pg_stat_statements"]) as cluster:
        results = measure(options, cluster)
    steps = 3 * options.runs

    def median(who: str, key: str) -> float:
        return statistics.median(each[key] for each in results[who])

    rate = {who: steps / median(who, "seconds") for who, rounds in results.items() if rounds}
    summary = {
        "steps_per_s": round(rate["ours"]),
        "vs_floor": round(rate["ours"] / rate["floor"], 2),
        "vs_dbos": round(rate["ours"] / rate["dbos"], 2) if "dbos" in rate else None,
        "idle_p50_ms": round(median("ours", "idle_p50_ms"), 2),
        "idle_vs_floor": round(median("ours", "idle_p50_ms") / median("floor", "idle_p50_ms"), 2),
        **{
            key: round(median("ours", key), 3)
            for key in (
                "statements_alone",
                "write_tx_alone",
                "statements_per_run",
                "write_tx_per_run",
                "db_ms_per_run",
                "wal_bytes_per_run",
            )  # fmt: skip
        },
        "rounds": options.rounds,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
