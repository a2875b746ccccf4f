"""What history costs, and what it costs to be rid of it: a million ended runs with three million steps.

A quarter of them is past its age. Measures bytes by table and index, the sweep alone and while runs of
three steps come in, what that does to those runs, a sweep that finds nothing, and the vacuum afterwards.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
from bench.support import history
from bench.support.world import World, world

from stepbase.local.postgres import Cluster

TABLES = ("events", "runs", "steps")
THREE: dict[str, object] = {"name": "bench/three", "data": {"n": 1}}
BATCH = 1000
PAUSE_SECONDS = 0.02

_SIZES = """
select relname, pg_table_size(oid)::float8 as heap, pg_indexes_size(oid)::float8 as indexes
  from pg_class where relnamespace = 'stepbase'::regnamespace and relname = any ($1)
"""

Connection = asyncpg.Connection  # of asyncpg.Record


async def sweep(connection: "Connection[asyncpg.Record]") -> int:
    """Sweep once as the engine does; return how many runs went."""
    row = await connection.fetchrow(
        "select * from stepbase.sweep($1, $2, $3, $4)",
        timedelta(days=30),
        timedelta(days=90),
        timedelta(days=7),
        BATCH,
    )
    assert row is not None
    return int(row["runs"])


async def sweep_until(connection: "Connection[asyncpg.Record]", stop: asyncio.Event) -> float:
    """Sweep with the engine's pauses until stopped; return runs a second."""
    began, gone = time.perf_counter(), 0
    while not stop.is_set():
        found = await sweep(connection)
        gone += found
        if found < BATCH:  # only of a small history
            break
        await asyncio.sleep(PAUSE_SECONDS)
    return gone / (time.perf_counter() - began)


async def under_load(where: World, connection: "Connection[asyncpg.Record]") -> dict[str, float]:
    """Measure runs without and with a sweep beside them."""
    ratios, rates = [], []
    await where.cost([THREE] * 200, 600)
    for _ in range(3):
        alone = await where.cost([THREE] * 1000, 3000)
        stop = asyncio.Event()
        sweeping = asyncio.create_task(sweep_until(connection, stop))
        beside = await where.cost([THREE] * 1000, 3000)
        stop.set()
        rates.append(await sweeping)
        ratios.append(beside["wall_ms"] / alone["wall_ms"])
    return {
        "loaded_runs_per_s": round(statistics.median(rates)),
        "step_ratio": round(statistics.median(ratios), 2),
    }


async def measure(where: World, stored: int) -> dict[str, object]:
    """Fill, measure, sweep."""
    await history.add_ended_runs(where.dsn, stored)
    connection = await asyncpg.connect(where.dsn)
    result: dict[str, object] = {"stored_runs": stored}
    for row in await connection.fetch(_SIZES, TABLES):
        sizes = {"heap": row["heap"], "indexes": row["indexes"]}
        result[row["relname"]] = {key: round(size / stored) for key, size in sizes.items()}
    result.update(await under_load(where, connection))
    times, rest = [], BATCH
    while rest == BATCH:
        began = time.perf_counter()
        rest = await sweep(connection)
        times.append((time.perf_counter() - began) * 1000)
    result["sweep_ms"] = round(statistics.median(times), 1)
    result["alone_runs_per_s"] = round(BATCH / (statistics.median(times) / 1000 + PAUSE_SECONDS))
    began = time.perf_counter()
    for _ in range(10):
        assert await sweep(connection) < BATCH / 10  # what has reached its age meanwhile
    result["nothing_ms"] = round((time.perf_counter() - began) * 100, 1)
    vacuums = {}
    for table in TABLES:
        began = time.perf_counter()
        await connection.execute(f"vacuum analyze stepbase.{table}")
        vacuums[table] = round(time.perf_counter() - began, 1)
    await connection.close()
    return {**result, "vacuum_s": vacuums}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stored", type=int, default=1_000_000)
    options = parser.parse_args()
    with (
        Cluster(port=0, preload=["pg_stat_statements"]) as cluster,
        world(cluster, "history", "bench.support.scale_functions:asgi_app") as where,
    ):
        print(json.dumps(asyncio.run(measure(where, options.stored))))


if __name__ == "__main__":
    main()
