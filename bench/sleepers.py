"""Waiting is free: 100,000 sleeping runs, and what they cost.

Puts runs to sleep for a day through the API, then measures over 60 idle seconds the CPU of the engine
and of its Postgres backends, how long an engine takes to start beside them, and one refund that
cancels its run through an index (the plan is printed). At the end a thousand runs are woken at once: their
due time is moved up in the database, which is what a day would do, and the engine is told, which then
needs no telling: it knows when the next one is due.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import asyncpg
from bench.support import processes
from bench.support.api import post

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

BATCH = 250
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: list[int]) -> float:
    """Return user and system time of processes that are still there."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


async def until(connection: "asyncpg.Connection[asyncpg.Record]", sql: str, wanted: int) -> None:
    """Wait until a count has been reached."""
    while await connection.fetchval(sql) < wanted:
        await asyncio.sleep(0.1)


async def put_to_sleep(
    engine_url: str, connection: "asyncpg.Connection[asyncpg.Record]", count: int
) -> float:
    """Start the sleepers through the API; return seconds until the last one sleeps."""
    began = time.perf_counter()
    async with aiohttp.ClientSession() as http:
        for start in range(0, count, BATCH):
            ids = range(start, min(start + BATCH, count))
            await post(
                http, engine_url, [{"name": "bench/sleeper", "data": {"id": i}} for i in ids]
            )
            if start % 25_000 == 0:
                print(f"sent {start + len(ids)}", file=sys.stderr)
        await until(
            connection, "select count(*) from stepbase.steps where status = 'sleeping'", count
        )
    return time.perf_counter() - began


async def backends(connection: "asyncpg.Connection[asyncpg.Record]") -> list[int]:
    """Return the process ids of the engine's connections."""
    rows = await connection.fetch(
        "select pid from pg_stat_activity where application_name like 'stepbase engine%'"
    )
    return [row["pid"] for row in rows]


async def refund(
    engine_url: str, connection: "asyncpg.Connection[asyncpg.Record]", wanted: int
) -> tuple[float, bool, str]:
    """Cancel one run by an event; return milliseconds, whether an index was used, and the plan."""
    rows = await connection.fetch(
        "explain (analyze, costs off, timing off) select p.run_id from stepbase.pauses p"
        "  where p.event_name = 'bench/refund' and p.path = 'data.id' and p.value = $1",
        str(wanted),
    )
    plan = "\n".join(row[0] for row in rows)
    async with aiohttp.ClientSession() as http:
        began = time.perf_counter()
        await post(http, engine_url, [{"name": "bench/refund", "data": {"id": wanted}}])
        took = (time.perf_counter() - began) * 1000
    cancelled = await connection.fetchval(
        "select count(*) from stepbase.runs where status = 'Cancelled'"
    )
    assert cancelled == 1, cancelled
    scans = await connection.fetchrow(
        "select seq_tup_read from pg_stat_user_tables where relname = 'pauses'"
    )
    assert scans is not None
    return took, "pauses_by_value" in plan and "Seq Scan" not in plan, plan


async def measure(
    options: argparse.Namespace, dsn: str, engine_url: str, engine_pid: int
) -> dict[str, object]:
    """Run the story against a running engine."""
    connection = await asyncpg.connect(dsn)
    asleep = await put_to_sleep(engine_url, connection, options.sleepers)
    await connection.execute("vacuum analyze")

    pids = [engine_pid, *await backends(connection)]
    before, began = cpu_seconds(pids), time.perf_counter()
    await asyncio.sleep(options.idle_seconds)
    percent = 100 * (cpu_seconds(pids) - before) / (time.perf_counter() - began)

    began = time.perf_counter()
    with processes.engine(dsn):
        start_s = time.perf_counter() - began

    took, uses_index, plan = await refund(engine_url, connection, options.sleepers // 2)
    print(plan)

    woken = await connection.execute(
        "update stepbase.queue set due_at = clock_timestamp() where kind = 'sleep'"
        "  and run_id in (select run_id from stepbase.runs where status = 'Running'"
        "                  order by run_id limit $1)",
        options.wake,
    )
    await connection.execute("notify stepbase, 'q'")
    began = time.perf_counter()
    count = int(woken.split()[1])
    await until(connection, "select count(*) from stepbase.runs where status = 'Completed'", count)
    woke_s = time.perf_counter() - began
    rss = int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(engine_pid)]))
    await connection.close()
    return {
        "sleepers": options.sleepers,
        "idle_cpu_percent": round(percent, 2),
        "cancel_ms": round(took, 2),
        "uses_index": uses_index,
        "asleep_s": round(asleep, 1),
        "start_s": round(start_s, 2),
        "woken": count,
        "woken_s": round(woke_s, 2),
        "engine_rss_mb": round(rss / 1024, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sleepers", type=int, default=100_000)
    parser.add_argument("--wake", type=int, default=1000)
    parser.add_argument("--idle-seconds", type=float, default=60)
    options = parser.parse_args()
    with Cluster(port=0) as cluster:
        dsn = cluster.dsn()
        asyncio.run(migrate.apply(dsn))
        with (
            processes.engine(dsn) as (engine_url, process),
            processes.uvicorn_host("bench.support.functions:asgi_app", engine_url) as serve_url,
        ):
            processes.put(serve_url)
            result = asyncio.run(measure(options, dsn, engine_url, process.pid))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
