"""asyncpg against psycopg 3 on what the engine sends: arrays in, rows out, one prepared statement.

Interleaved on one connection each, medians of the rounds. Prints psycopg's time over asyncpg's, for a
batch of one (an idle engine) and of 24 (a busy one), and the client's CPU alike.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
import psycopg

from stepbase.local.postgres import Cluster

SETUP = """
create function settle_like(a text[], b text[], c int[], d text[], e float8[], f text[], g smallint[])
returns table (call int, outcome text, gen int) language sql as $$
  select u.i::int, 'applied', u.c + 1 from unnest(a, b, c, d, e, f, g) with ordinality
    as u (a, b, c, d, e, f, g, i) $$
"""


def arguments(count: int) -> list[list[object]]:
    """Return the columns of a batch."""
    memo = json.dumps({"data": {"n": 1, "text": "x" * 80}})
    return [
        [f"01M84KVXAAXFDZB1D48JGNR1{i:02}" for i in range(count)], ["main"] * count, [1] * count,
        ["c"] * count, [0.5] * count, [memo] * count, [0] * count,
    ]  # fmt: skip


async def timed(call: Callable[[], Awaitable[object]], times: int) -> tuple[float, float]:
    """Return seconds and CPU seconds for so many calls."""
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        await call()
    return time.perf_counter() - began, time.process_time() - cpu


async def measure(dsn: str, times: int, rounds: int) -> dict[str, float]:
    """Run the rounds."""
    first = await asyncpg.connect(dsn)
    await first.execute(SETUP)
    second = await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0)
    numbered = "select * from settle_like($1, $2, $3, $4, $5, $6, $7)"
    kinds = ("text", "text", "int", "text", "float8", "text", "smallint")
    typed = f"select * from settle_like({', '.join(f'%s::{kind}[]' for kind in kinds)})"
    result: dict[str, float] = {}
    for size in (1, 24):
        columns = arguments(size)

        async def by_asyncpg(columns: list[list[object]] = columns) -> object:
            return await first.fetch(numbered, *columns)

        async def by_psycopg(columns: list[list[object]] = columns) -> object:
            cursor = await second.execute(typed, columns, binary=True)
            return await cursor.fetchall()

        walls, cpus = [], []
        for _ in range(rounds):
            one = await timed(by_asyncpg, times)
            two = await timed(by_psycopg, times)
            walls.append(two[0] / one[0])
            cpus.append(two[1] / one[1])
        result[f"time_ratio_{size}"] = round(statistics.median(walls), 2)
        result[f"cpu_ratio_{size}"] = round(statistics.median(cpus), 2)
    await first.close()
    await second.close()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with Cluster(port=0) as cluster:
        print(json.dumps(asyncio.run(measure(cluster.dsn(), options.times, options.rounds))))


if __name__ == "__main__":
    main()
