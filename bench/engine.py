"""The engine's hot path: runs of three steps, against a hand-written floor, DBOS and Absurd, in one sitting.

Each round measures all of them, one after another, on one durable Postgres of stock configuration
(plus the preload of pg_stat_statements): 1,000 events sent 50 a request, until the last run has
ended; then runs one at a time, from "event accepted" to "run completed". The engine, the functions
and Postgres are processes of their own, and share this machine's cores. `official` is the same engine
with the official Python SDK as the functions, `inngest` on FastAPI, in two processes; `ours` makes a
call for each step, as the floor and the official SDK do; `by_default` is ours with checkpoints, as
users get it.

Prints medians over the rounds. `vs_…` are steps per second, ours over theirs; `official_vs_dbos` is
the official SDK's on this engine over DBOS's; `idle_vs_floor` is latency, ours over the floor's,
each run 25 ms after the one before and watched by nobody while it lasts.
`cpu_us_per_step` is CPU time by process, and `where_us` where it goes (one more round, under a sampler).
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
from bench.support import hot_path, processes
from bench.support.hot_path import Bench, Figures

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

PYTHON = sys.executable
DATABASES = ("ours", "floor", "dbos", "absurd")


def sides(bench: Bench, floor_url: str, dbos_polling: float) -> dict[str, Callable[[], Figures]]:
    """Return who is measured, by name."""
    dsn = bench.cluster.dsn
    runs, idle_runs = str(bench.runs), str(bench.idle_runs)
    floor = (PYTHON, "bench/floor.py", "run", dsn("floor"), floor_url, runs, idle_runs)
    dbos = (PYTHON, "bench/support/peer_dbos.py", dsn("dbos"), runs, "0", str(dbos_polling))
    absurd = (PYTHON, "bench/support/peer_absurd.py", dsn("absurd"), runs)
    return {
        "ours": lambda: asyncio.run(hot_path.measure(bench, "ours")),
        "by_default": lambda: asyncio.run(hot_path.measure(bench, "by_default")),
        "official": lambda: asyncio.run(hot_path.measure(bench, "official")),
        "floor": lambda: processes.printed_json(*floor),
        "dbos": lambda: processes.printed_json(*dbos),
        "absurd": lambda: processes.printed_json(*absurd),
    }


def measure(options: argparse.Namespace, cluster: Cluster) -> dict[str, list[Figures]]:
    """Run the rounds."""
    results: dict[str, list[Figures]] = {}
    with (
        hot_path.running(cluster, options.runs, options.idle_runs) as bench,
        processes.bare_host() as floor_url,
    ):
        for i in range(options.rounds):
            for name, side in sides(bench, floor_url, options.dbos_polling).items():
                if name not in options.without:
                    results.setdefault(name, []).append(side())
            print(f"round {i + 1}: " + json.dumps({k: v[-1] for k, v in results.items()}))
    return results


async def _prepare(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.dsn())
    for name in DATABASES:
        await connection.execute(f'create database "{name}"')
    await connection.close()
    await migrate.apply(cluster.dsn("ours"))
    connection = await asyncpg.connect(cluster.dsn("ours"))
    await connection.execute("create extension pg_stat_statements")
    await connection.close()


def summary(results: dict[str, list[Figures]], runs: int) -> dict[str, object]:
    """Return the medians and what they are to each other; None for what was not measured."""

    def median(who: str, key: str) -> float:
        return statistics.median(each[key] for each in results[who])

    def over(one: str, other: str, key: str = "seconds") -> float | None:
        if one not in results or other not in results:
            return None
        return round(median(one, key) / median(other, key), 2)

    found: dict[str, object] = {
        "steps_per_s": {who: round(3 * runs / median(who, "seconds")) for who in results},
        "vs_floor": over("floor", "ours"),
        "vs_dbos": over("dbos", "ours"),
        "vs_absurd": over("absurd", "ours"),
        "official_vs_dbos": over("dbos", "official"),
        "idle_p50_ms": round(median("ours", "idle_p50_ms"), 2),
    }
    found["idle_vs_floor"] = over("ours", "floor", "idle_p50_ms")
    found["by_default"] = {
        "idle_vs_floor": over("by_default", "floor", "idle_p50_ms"),
        "vs_floor": over("floor", "by_default"),
        "vs_dbos": over("dbos", "by_default"),
    }
    for who in ("ours", "official"):
        if who in results:
            cpu = {part: round(median(who, f"{part}_us"), 1) for part in hot_path.PROCESSES}
            found["cpu_us_per_step" if who == "ours" else "official_cpu_us_per_step"] = cpu
    for key in hot_path.COUNTED:
        found[key] = round(median("ours", key), 3)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--idle-runs", type=int, default=100)
    parser.add_argument("--dbos-polling", type=float, default=0.05)
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=("by_default", "official", "floor", "dbos", "absurd"),
        help="leave one out",
    )
    options = parser.parse_args()
    with Cluster(port=0, preload=["pg_stat_statements"]) as cluster:
        asyncio.run(_prepare(cluster))
        results = measure(options, cluster)
        where = hot_path.where_it_goes(cluster, options.runs)
    print(
        json.dumps({**summary(results, options.runs), "where_us": where, "rounds": options.rounds})
    )


if __name__ == "__main__":
    main()
