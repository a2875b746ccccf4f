"""The console's pages with a million runs and ten million steps stored: server time, and what they read.

`page_ms` is the median time of a page over HTTP, the slowest of all pages; `scanned` are pages that read a
large table from end to end, which none may. `ratio` is the slowest page with the data, to the same page of
an almost empty database.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
import httpx
from bench.support import history

import stepbase
from stepbase.console.site import console
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.local import migrate
from stepbase.local.postgres import Cluster

_LARGE = ("events", "runs", "steps", "attempts", "queue", "pauses", "outbox", "not_started")
_FUNCTIONS = ("three", "sleeper")
_FILES = Path(stepbase.__file__).parents[2] / "supabase" / "migrations"


def registration() -> dict[str, object]:
    """Return what an app with two functions registers; nobody calls them."""
    url = "http://127.0.0.1:1/api/inngest"
    functions = [
        {
            "id": f"bench-{name}",
            "name": name,
            "triggers": [{"event": f"bench/{name}"}],
            "steps": {
                "step": {
                    "id": "step",
                    "name": "step",
                    "runtime": {"type": "http", "url": f"{url}?fnId=bench-{name}&stepId=step"},
                    "retries": {"attempts": 3},
                }
            },
        }
        for name in _FUNCTIONS
    ]
    return {"url": url, "deployType": "ping", "appName": "bench", "sdk": "bench", "v": "0.1",
            "framework": "bench", "functions": functions}  # fmt: skip


def paths(run_id: str, failed: str, event_id: str) -> list[str]:
    """Return every page, and the searches that have most to look through."""
    return [
        "/", "/runs", "/runs?status=Failed", "/runs?status=Cancelled", "/runs?status=live",
        "/runs?function=bench-three", "/runs?event=bench/three&since=1d", "/runs?event=no/such",
        "/runs?text=no-such-text", f"/runs?before={run_id}", f"/runs/{run_id}", f"/runs/{failed}",
        f"/runs/{run_id}/part?of=payload", "/events", "/events?name=bench/three",
        "/events?text=no-such-text", f"/events/{event_id}", "/event-types", "/functions",
        "/functions/bench-three", "/functions/bench-sleeper", "/apps", "/waiting", "/outbox",
        "/send?name=bench/three",
    ]  # fmt: skip


async def measure(
    web: httpx.AsyncClient, dsn: str, rounds: int
) -> dict[str, tuple[float, list[str]]]:
    """Return of each page its median time in ms, and the large tables that it went through."""
    connection = await asyncpg.connect(dsn)
    run_id = await connection.fetchval(
        "select run_id from stepbase.runs where ended_at is not null limit 1"
    )
    failed = await connection.fetchval(
        "select run_id from stepbase.runs where status = 'Failed' limit 1"
    )
    event_id = await connection.fetchval("select id from stepbase.events limit 1")
    figures = {}
    for path in paths(run_id, failed or run_id, event_id):
        before = await _scans(connection)
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            answer = await web.get(path)
            times.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, (path, answer.text[:500])
        after = await _scans(connection)
        figures[path] = (
            statistics.median(times), [name for name in after if after[name] > before[name]]
        )  # fmt: skip
    await connection.close()
    return figures


async def _scans(connection: asyncpg.Connection) -> dict[str, int]:
    await connection.execute("select pg_stat_clear_snapshot()")
    await asyncio.sleep(0.05)  # statistics are sent when a transaction ends
    rows = await connection.fetch(
        "select relname, seq_scan from pg_stat_user_tables"
        " where schemaname = 'stepbase' and relname = any ($1)", list(_LARGE)
    )  # fmt: skip
    return {row["relname"]: row["seq_scan"] for row in rows}


async def run(arguments: argparse.Namespace) -> None:
    """Measure small, fill, measure large."""
    with (
        tempfile.TemporaryDirectory(),
        Cluster(
            durable=False, settings={"max_wal_size": "8GB", "shared_buffers": "512MB"}
        ) as cluster,
    ):
        dsn = cluster.dsn()
        files = {path.name: path.read_text("utf-8") for path in sorted(_FILES.glob("*.sql"))}
        await migrate.apply_files(dsn, files)
        settings = Settings(database_url=dsn, port=0, sweep_seconds=3600)
        async with (
            serving(settings, console) as (_, port, _),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as web,
        ):
            answer = await web.post("/fn/register", json=registration())
            assert answer.status_code == 200, answer.text
            await history.add_ended_runs(dsn, 100, steps=arguments.steps)
            small = await measure(web, dsn, arguments.rounds)
            connection = await asyncpg.connect(dsn)
            await connection.execute("truncate stepbase.events, stepbase.runs, stepbase.steps")
            await connection.close()
            began = time.monotonic()
            await history.add_ended_runs(dsn, arguments.runs, steps=arguments.steps)
            await _add_live(dsn, arguments.sleepers)
            print(f"filled in {time.monotonic() - began:.0f} s", flush=True)
            large = await measure(web, dsn, arguments.rounds)
    for path, (ms, scans) in sorted(large.items(), key=lambda each: -each[1][0]):
        print(f"{ms:8.1f} ms  {small_of(small, path):6.1f} ms when empty  {path} {' '.join(scans)}")
    slowest = max(large, key=lambda path: large[path][0])
    figures = {
        "runs": arguments.runs,
        "steps": arguments.runs * arguments.steps,
        "page_ms": round(large[slowest][0], 1),
        "slowest": slowest.partition("=")[0],
        "scanned": sorted({path for path, (_, scans) in large.items() if scans}),
        "ratio": round(large[slowest][0] / small_of(small, slowest), 1),
    }
    print(json.dumps(figures))


def small_of(small: dict[str, tuple[float, list[str]]], path: str) -> float:
    """Return the time of the same kind of page of the small database."""
    if path in small:
        return small[path][0]
    kind = path.split("/")[1]
    return statistics.median(ms for each, (ms, _) in small.items() if each.split("/")[1] == kind)


async def _add_live(dsn: str, count: int) -> None:
    """Store sleeping runs beside the ended ones, whose ids are the same series."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        """
        with live as (
          insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, created_at)
            select '01ZZ' || lpad(n::text, 22, '0'), f.function_id, 1, '01ZZ' || n, 'Running', now()
              from generate_series(1, $1::int) n, stepbase.functions f where f.name = 'sleeper'
            returning run_id, created_at
        ), steps as (
          insert into stepbase.steps (run_id, hash, pos, name, op, status, memo, started_at)
            select run_id, 'h', 1, 'nap', 'Sleep', 'sleeping', 'null', created_at from live
        )
        insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
          select run_id, 'main', 'sleep', 'h', false, created_at, now() + interval '7 days' from live
        """,
        count,
    )
    await connection.execute("vacuum analyze")
    await connection.close()


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--sleepers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
