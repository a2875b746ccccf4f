"""What checkpointing saves: a function of fifty steps, off, with one buffered step, and with ten.

Two measurements, interleaved in every round, on one durable Postgres, engine and host processes of
their own: one run at a time, from "event accepted" to "run completed" (`…_ratio`, latency), and
twenty at once (`…_load_ratio`, seconds for all). Ratios are to checkpointing off; medians.
"""

import argparse
import asyncio
import json
import statistics
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

NAMES = ("off", "buffer1", "buffer10")
AT_ONCE = 20


async def until_completed(
    connection: "asyncpg.Connection[asyncpg.Record]", events: list[str]
) -> None:
    """Wait until the events' runs have completed."""
    while True:
        done = await connection.fetchval(
            "select count(*) from stepbase.runs where status = 'Completed' and event_id = any ($1)",
            events,
        )
        if done == len(events):
            return
        await asyncio.sleep(0.005)


async def measure(dsn: str, engine_url: str, runs: int) -> dict[str, float]:
    """Return milliseconds of a run alone, and seconds for twenty at once, by name."""
    found = {}
    connection = await asyncpg.connect(dsn)
    async with aiohttp.ClientSession() as http:
        for name in NAMES:
            ids = []
            for _ in range(runs):
                new = await post(http, engine_url, [{"name": f"bench/{name}"}])
                await until_completed(connection, new)
                ids += new
            alone = await connection.fetch(
                "select extract(epoch from r.ended_at - e.received_at)::float8 * 1000 as ms"
                "  from stepbase.runs r join stepbase.events e on e.id = r.event_id"
                "  where e.id = any ($1)",
                ids,
            )
            found[name] = statistics.median(row["ms"] for row in alone)
            began = time.perf_counter()
            many = await post(http, engine_url, [{"name": f"bench/{name}"}] * AT_ONCE)
            await until_completed(connection, many)
            found[f"{name}_load"] = time.perf_counter() - began
    await connection.close()
    return found


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5, help="one at a time, a round")
    options = parser.parse_args()
    rounds = []
    with Cluster(durable=True) as cluster:
        dsn = cluster.dsn()
        asyncio.run(migrate.apply(dsn))
        with (
            processes.engine(dsn) as (engine_url, _),
            processes.uvicorn_host(
                "bench.support.checkpoint_functions:asgi_app", engine_url
            ) as serve_url,
        ):
            processes.put(serve_url)
            asyncio.run(measure(dsn, engine_url, 2))  # warms up
            for i in range(options.rounds):
                rounds.append(asyncio.run(measure(dsn, engine_url, options.runs)))
                print(f"round {i + 1}: {json.dumps(rounds[-1])}", flush=True)
    median = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    result: dict[str, object] = {"off_ms": round(median["off"], 1)}
    for name in NAMES[1:]:
        result[f"{name}_ratio"] = round(
            statistics.median(each[name] / each["off"] for each in rounds), 3
        )
        result[f"{name}_load_ratio"] = round(
            statistics.median(each[f"{name}_load"] / each["off_load"] for each in rounds), 3
        )
    print(json.dumps({**result, "rounds": options.rounds}))


if __name__ == "__main__":
    main()
