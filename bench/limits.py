"""Limits are kept: three engine processes, one killed on the way, and not one call or run too many.

The function host counts, from inside, the calls it is in and the runs that are going on, whenever one
begins; beside it the queue is sampled in SQL as fast as it answers. Both count towards `instants`. The
starts under a throttle are compared with the instants of GCRA, worked out from where the throttle's row
ends (host and database have the same clock).
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import asyncpg
from aiohttp import web
from bench.support import processes
from bench.support.api import post

from stepbase import clock
from stepbase.local import migrate
from stepbase.local.postgres import Cluster

TENANTS = 6
PER_TENANT, OVERALL, RUNS = 3, 8, 2
LIMIT, BURST, EVERY_MS = 10, 1, 100
STARTS = 60
ROUND = 120  # runs of each kind
LEASE_SECONDS = 2.0
CALL_SECONDS = 0.004

OPTIONS: dict[str, dict[str, object]] = {
    "steps": {"concurrency": [{"limit": PER_TENANT, "key": "event.data.t"}, {"limit": OVERALL}]},
    "runs": {"concurrency": {"fn": [{"limit": RUNS, "key": "event.data.t"}]}},
    "paced": {"throttle": {"limit": LIMIT, "period": "1s", "burst": BURST}},
}
HEADERS = {"x-inngest-sdk": "bench:v1", "x-inngest-req-version": "2"}


@dataclass
class Options:
    """What to do."""

    instants: int = 10_000
    engines: int = 3
    kills: int = 1


@dataclass
class Host:
    """The functions: how many calls and runs there are, and how many there were at most."""

    now: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    going: dict[str, set[str]] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    instants: int = 0
    url: str = ""

    async def start(self) -> web.AppRunner:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_post("/api/inngest", self._serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/inngest"
        return runner

    async def _serve(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = request.query["fnId"].removeprefix("bench-")
        self.instants += 1
        keys = self._count(name, body)
        try:
            await asyncio.sleep(CALL_SECONDS)
        finally:
            self.now.subtract(keys)
        done = len(body["steps"])
        if name == "paced" or done == 2:
            if name == "runs":
                self.going[f"runs {body['event']['data']['t']}"].discard(body["ctx"]["run_id"])
            return web.json_response(None, headers=HEADERS)
        op: dict[str, Any] = {"op": "StepRun", "id": f"s{done}", "displayName": "s", "data": done}
        if name == "runs" and done == 1:
            op = {"op": "Sleep", "id": "z", "displayName": "z", "name": "30ms"}
        return web.json_response([op], status=206, headers=HEADERS)

    def _count(self, name: str, body: dict[str, Any]) -> list[str]:
        tenant, run_id = body["event"]["data"]["t"], body["ctx"]["run_id"]
        if name == "paced":
            self.starts.setdefault(run_id, clock.utcnow().timestamp())
            return []
        if name == "runs":
            # It ends for the host with its last reply, a moment before it does for the engines.
            key = f"runs {tenant}"
            going = self.going.setdefault(key, set())
            going.add(run_id)
            self.most[key] = max(self.most[key], len(going))
            return []
        keys = [f"steps {tenant}", "steps"]
        self.now.update(keys)
        for key in keys:
            self.most[key] = max(self.most[key], self.now[key])
        return keys

    def registration(self) -> dict[str, object]:
        """Return what registers the functions."""
        return {
            "url": self.url, "deployType": "ping", "appName": "bench", "sdk": "bench:v1", "v": "0.1",
            "framework": "bench",
            "functions": [
                {
                    "id": f"bench-{name}", "name": name, "triggers": [{"event": f"bench/{name}"}],
                    "steps": {"step": {
                        "id": "step", "name": "step", "retries": {"attempts": 3},
                        "runtime": {"type": "http", "url": f"{self.url}?fnId=bench-{name}&stepId=step"},
                    }},
                    **options,
                }
                for name, options in OPTIONS.items()
            ],
        }  # fmt: skip

    def exceeded(self) -> int:
        """Return how many keys had more than they may."""
        return sum(most > _limit_of(key) for key, most in self.most.items())


def _limit_of(key: str) -> int:
    if key.startswith("runs"):
        return RUNS
    return OVERALL if key == "steps" else PER_TENANT


class Samples:
    """The queue as other sessions see it."""

    SQL = """
      select coalesce(max(n) filter (where kind = 'place'), 0) as runs,
             coalesce(max(n) filter (where kind = 'key'), 0) as tenant,
             coalesce(max(n) filter (where kind = 'all'), 0) as overall
        from (
          select 'place' as kind, count(*) as n from stepbase.queue where place is not null group by place
          union all
          select 'key', count(*) from stepbase.queue where owner is not null and key_1 is not null
            group by key_1
          union all
          select 'all', count(*) from stepbase.queue where owner is not null and key_2 is not null
            group by key_2
        ) x
    """

    def __init__(self) -> None:
        self.count = self.exceeded = 0
        self.most = {"runs": 0, "tenant": 0, "overall": 0}

    async def take(self, dsn: str) -> None:
        """Sample until cancelled."""
        connection = await asyncpg.connect(dsn)
        try:
            while True:
                row = await connection.fetchrow(self.SQL)
                assert row is not None
                self.count += 1
                found = dict(row)
                self.most = {key: max(found[key], most) for key, most in self.most.items()}
                limits = {"runs": RUNS, "tenant": PER_TENANT, "overall": OVERALL}
                self.exceeded += any(found[key] > limit for key, limit in limits.items())
        finally:
            connection.terminate()


async def paces(connection: "asyncpg.Connection[asyncpg.Record]", host: Host) -> dict[str, float]:
    """Compare the throttled starts with GCRA; milliseconds."""
    tat = await connection.fetchval(
        "select extract(epoch from tat)::float8 from stepbase.throttles"
    )
    times = sorted(host.starts.values())
    first = tat - len(times) * EVERY_MS / 1000
    late = [
        (time - first) * 1000 - max(0, place - LIMIT - BURST + 1) * EVERY_MS
        for place, time in enumerate(times)
    ]
    return {
        "starts": len(times),
        "early_ms": round(max(0.0, -min(late)), 1),
        "late_ms": round(statistics.median(late), 1),
        "late_most_ms": round(max(late), 1),
    }


async def measure(dsn: str, options: Options) -> dict[str, object]:
    """Run three engines on a migrated database until enough instants were looked at."""
    host, samples = Host(), Samples()
    runner = await host.start()
    connection = await asyncpg.connect(dsn)
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(processes.engine(dsn, "--lease", str(LEASE_SECONDS)))
            for _ in range(options.engines)
        ]
        urls = [url for url, _ in running]
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{urls[-1]}/fn/register", json=host.registration()) as answer:
                assert answer.status == 200, await answer.text()
            sampling = asyncio.create_task(samples.take(dsn))
            await _send(http, urls, "paced", STARTS)
            rounds = killed = 0
            while samples.count + host.instants < options.instants or rounds < 2:
                rounds += 1
                for name in ("steps", "runs"):
                    await _send(http, urls, name, ROUND)
                if killed < options.kills:
                    await _until(connection, "ended_at is not null", ROUND // 2)
                    running[killed][1].kill()
                    urls.pop(0)
                    killed += 1
                await _until(connection, "ended_at is not null", rounds * 2 * ROUND)
            await _until(connection, "ended_at is null", 0)
            sampling.cancel()
        result = {
            "engines": options.engines,
            "killed": killed,
            "runs": await connection.fetchval("select count(*) from stepbase.runs"),
            "failed": await connection.fetchval(
                "select count(*) from stepbase.runs where status <> 'Completed'"
            ),
            "left": await connection.fetchval("select count(*) from stepbase.queue"),
            "instants": samples.count + host.instants,
            "sql_instants": samples.count,
            "exceeded": samples.exceeded + host.exceeded(),
            "most": {
                "runs": max(most for key, most in host.most.items() if key.startswith("runs")),
                "tenant": max(most for key, most in host.most.items() if key.startswith("steps ")),
                "overall": host.most["steps"],
            },
            "sql_most": samples.most,
            "throttle": await paces(connection, host),
        }
    await connection.close()
    await runner.cleanup()
    return result


async def _send(http: aiohttp.ClientSession, urls: list[str], name: str, count: int) -> None:
    events: list[dict[str, object]] = [
        {"name": f"bench/{name}", "data": {"t": n % TENANTS, "n": n}} for n in range(count)
    ]
    share = len(events) // len(urls) + 1
    for place, url in enumerate(urls):
        await post(http, url, events[place * share : (place + 1) * share])


async def _until(
    connection: "asyncpg.Connection[asyncpg.Record]", condition: str, wanted: int
) -> None:
    """Wait until so many runs are so; for 0: until none is."""
    while True:
        count = await connection.fetchval(f"select count(*) from stepbase.runs where {condition}")
        if count >= wanted > 0 or count == wanted:
            return
        await asyncio.sleep(0.05)


async def prepared(dsn: str, options: Options) -> dict[str, object]:
    """Apply the migrations and measure."""
    await migrate.apply_files(dsn, migrate.read_folder(migrate.migrations_folder()))
    return await measure(dsn, options)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instants", type=int, default=Options.instants)
    parser.add_argument("--engines", type=int, default=Options.engines)
    parser.add_argument("--kills", type=int, default=Options.kills)
    given = parser.parse_args()
    with Cluster(port=0) as cluster:
        result = asyncio.run(prepared(cluster.dsn(), Options(**vars(given))))
    print(json.dumps(result))
    sys.exit(1 if result["exceeded"] or result["failed"] else 0)


if __name__ == "__main__":
    main()
