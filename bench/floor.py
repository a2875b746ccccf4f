"""The floor: a push engine written by hand for one function of three steps, and nothing else.

The same HTTP calls and the same commits as an engine needs (one per event, one per reply), straight
on asyncpg and aiohttp: no batching, no framework, no options, no leases that could be lost. What is
slower than this is the price of being general; what is faster is what batching gains.
Used by bench/engine.py.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import Any

import aiohttp
import asyncpg
import uvloop
from aiohttp import web

SCHEMA = """
drop schema if exists floor cascade;
create schema floor;
create table floor.runs (id bigint generated always as identity primary key, event json not null,
  status text not null default 'Running', output json,
  received_at timestamptz not null default clock_timestamp(), ended_at timestamptz);
create table floor.steps (run_id bigint not null, hash text not null, memo json not null,
  primary key (run_id, hash));
create function floor.start(p_event text) returns bigint language sql as $$
  insert into floor.runs (event) values (p_event::json) returning id $$;
create function floor.step(p_run bigint, p_hash text, p_memo text) returns void language sql as $$
  insert into floor.steps values (p_run, p_hash, p_memo::json) on conflict do nothing $$;
create function floor.finish(p_run bigint, p_output text) returns void language sql as $$
  update floor.runs set status = 'Completed', output = p_output::json, ended_at = clock_timestamp()
    where id = p_run $$;
"""
# From one clock, and between the same two statements, as bench/engine.py measures an engine.
IDLE = """
select extract(epoch from ended_at - received_at)::float8 * 1000 as ms from floor.runs
"""
ALONE_SECONDS = (
    0.025  # from one run alone to the next: time for either to end without being watched
)


class Floor:
    """Starts runs and drives each to its end."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        http: aiohttp.ClientSession,
        url: str,
        calls: int,
    ):
        self._pool, self._http, self._url = pool, http, url
        self._slots = asyncio.Semaphore(calls)

    async def run(self, event: dict[str, Any]) -> None:
        """Start a run for an event and return when it has completed."""
        text = json.dumps(event)
        run_id = await self._pool.fetchval("select floor.start($1)", text)
        memos: dict[str, Any] = {}
        async with self._slots:
            while True:
                body = json.dumps(
                    {
                        "event": event,
                        "events": [event],
                        "steps": memos,
                        "ctx": {
                            "run_id": str(run_id),
                            "attempt": 0,
                            "stack": {"stack": list(memos)},
                        },
                    }
                )
                async with self._http.post(self._url, data=body) as response:
                    answer = json.loads(await response.read())
                if response.status == 200:
                    await self._pool.execute(
                        "select floor.finish($1, $2)", run_id, json.dumps(answer)
                    )
                    return
                for op in answer:
                    memo = {"data": op["data"]}
                    await self._pool.execute(
                        "select floor.step($1, $2, $3)", run_id, op["id"], json.dumps(memo)
                    )
                    memos[op["id"]] = memo


async def bare_host(port: int) -> web.AppRunner:
    """Serve a function of three steps without any SDK."""

    async def serve(request: web.Request) -> web.Response:
        call = json.loads(await request.read())
        done = len(call["steps"])
        headers = {
            "x-inngest-sdk": "bare:v1",
            "x-inngest-req-version": "2",
            "content-type": "application/json",
        }
        if done == 3:
            return web.Response(text='{"done":true}', headers=headers)
        op = {
            "op": "StepRun",
            "id": f"step-{done}",
            "displayName": f"step-{done}",
            "data": {"n": done},
        }
        return web.Response(status=206, text=json.dumps([op]), headers=headers)

    app = web.Application()
    app.router.add_post("/{tail:.*}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


async def measure(dsn: str, url: str, runs: int, idle_runs: int) -> dict[str, float]:
    """Run `idle_runs` one at a time, then `runs` at once; return milliseconds and seconds."""
    pool = await asyncpg.create_pool(dsn, min_size=6, max_size=6)
    async with pool, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as http:
        floor = Floor(pool, http, url, 64)
        event = {"name": "bench/three", "data": {"n": 1}, "id": "x", "ts": 1, "user": {}}
        for _ in range(10):
            await floor.run(event)
        await pool.execute("truncate floor.runs, floor.steps")
        for _ in range(idle_runs):
            began = time.perf_counter()
            await floor.run(event)
            await asyncio.sleep(max(0.0, ALONE_SECONDS - (time.perf_counter() - began)))
        idle = [row["ms"] for row in await pool.fetch(IDLE)]
        began = time.perf_counter()
        await asyncio.gather(*(floor.run(event) for _ in range(runs)))
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "idle_p50_ms": statistics.median(idle) if idle else 0.0}


async def main() -> None:
    """`floor.py host PORT` serves; `floor.py run DSN URL RUNS IDLE_RUNS` measures and prints JSON."""
    if len(sys.argv) > 2 and sys.argv[1] == "host":
        await bare_host(int(sys.argv[2]))
        await asyncio.Event().wait()
    elif len(sys.argv) > 5 and sys.argv[1] == "run":
        dsn, url, runs, idle_runs = sys.argv[2:6]
        connection = await asyncpg.connect(dsn)
        await connection.execute(SCHEMA)
        await connection.close()
        print(json.dumps(await measure(dsn, url, int(runs), int(idle_runs))))
    else:
        print("the floor is measured by scripts/bench engine", file=sys.stderr)
        print(json.dumps({"see": "scripts/bench engine"}))


if __name__ == "__main__":
    uvloop.run(main())
