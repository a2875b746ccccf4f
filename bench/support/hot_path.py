"""Measures the engine: how long runs take, what they cost in Postgres, and where the CPU time goes."""

import asyncio
import contextlib
import json
import os
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
from bench.support import cpu, processes
from bench.support.api import post

from stepbase.local.postgres import Cluster

Figures = dict[str, float]

BATCH = 50
ALONE_SECONDS = 0.025  # from one run alone to the next, as in bench/floor.py
PROCESSES = ("engine", "functions", "postgres")
COUNTED = (
    "statements_alone",
    "write_tx_alone",
    "statements_per_run",
    "write_tx_per_run",
    "db_ms_per_run",
    "wal_bytes_per_run",
)
EVENTS = {"ours": "bench/three", "by_default": "bench/by-default", "official": "bench/official"}
WORKERS = {"ours": 1, "by_default": 1, "official": 2}
"""Processes that serve the functions; the official SDK keeps one core busy, and two were faster."""
MODULES = {
    "ours": "bench.support.functions:asgi_app",
    "by_default": "bench.support.functions:by_default_app",
    "official": "bench.support.official_functions:asgi_app",
}

_STATEMENTS = """
  select coalesce(sum(calls), 0)::float8 as calls, coalesce(sum(total_exec_time), 0)::float8 as ms
    from pg_stat_statements
    where toplevel and query ilike '%stepbase.%' and query not ilike '%is_idle%'
"""
_POSITION = """
  select pg_current_wal_lsn() - '0/0'::pg_lsn as wal,
         pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xid, pg_backend_pid() as pid
"""
_IDLE = """
  select extract(epoch from r.ended_at - e.received_at)::float8 * 1000 as ms
    from stepbase.runs r join stepbase.events e on e.id = r.event_id where e.id = any ($1)
"""


@dataclass(frozen=True)
class Bench:
    """A running engine and its functions, and how many runs to make."""

    cluster: Cluster
    engine_url: str
    engine: int
    functions: dict[str, int]
    runs: int
    idle_runs: int

    def cpu_seconds(self, who: str, mine: int) -> dict[str, float]:
        """Return what each process has used so far, `mine` being a backend that does not count."""
        return {
            "engine": cpu.seconds(self.engine),
            "functions": cpu.family_seconds(self.functions[who]),
            "postgres": cpu.family_seconds(self.cluster.pid, but=mine),
        }


@contextlib.contextmanager
def running(
    cluster: Cluster, runs: int, idle_runs: int, reports: Path | None = None
) -> Iterator[Bench]:
    """Run an engine, and a host for each kind of functions."""
    dsn = cluster.dsn("ours")

    def report(name: str) -> Path | None:
        return None if reports is None else reports / f"{name}.json"

    with contextlib.ExitStack() as stack:
        url, engine = stack.enter_context(processes.engine(dsn, report=report("engine")))
        hosts = {}
        for who, module in MODULES.items():
            serve_url, host = stack.enter_context(
                processes.uvicorn_process(
                    module,
                    url,
                    # The sampler sees the process it starts, not that one's children.
                    workers=1 if reports else WORKERS[who],
                    report=report(who),
                )
            )
            processes.put(serve_url)
            hosts[who] = host.pid
        yield Bench(cluster, url, engine.pid, hosts, runs, idle_runs)


async def until_idle(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until nothing is queued: every run has ended."""
    while not await connection.fetchval(
        "select not exists (select from stepbase.queue) as is_idle"
    ):
        await asyncio.sleep(0.01)


class Counters:
    """What a stretch of work costs, in Postgres and in CPU time."""

    def __init__(
        self, bench: Bench, who: str, connection: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        self._bench, self._who, self._connection = bench, who, connection

    async def __aenter__(self) -> "Counters":
        await self._connection.execute("select pg_stat_statements_reset()")
        self._before = await self._connection.fetchrow(_POSITION)
        assert self._before is not None
        self._cpu = self._bench.cpu_seconds(self._who, self._before["pid"])
        return self

    async def __aexit__(self, *_: object) -> None:
        after = await self._connection.fetchrow(_POSITION)
        row = await self._connection.fetchrow(_STATEMENTS)
        assert self._before and after and row
        cpu_after = self._bench.cpu_seconds(self._who, after["pid"])
        self.cpu = {name: cpu_after[name] - before for name, before in self._cpu.items()}
        self.statements: float = row["calls"]
        self.db_ms: float = row["ms"]
        self.wal = float(after["wal"] - self._before["wal"])
        self.xids = float(after["xid"] - self._before["xid"])


async def measure(bench: Bench, who: str) -> Figures:
    """Run `idle_runs` one at a time, then `runs` at once."""
    event: dict[str, object] = {"name": EVENTS[who], "data": {"n": 1}}
    connection = await asyncpg.connect(bench.cluster.dsn("ours"))
    async with aiohttp.ClientSession() as http:
        for _ in range(10):
            await post(http, bench.engine_url, [event])
        await until_idle(connection)
        ids = []
        async with Counters(bench, who, connection) as alone:
            for _ in range(bench.idle_runs):
                ids += await post(http, bench.engine_url, [event])
                await asyncio.sleep(ALONE_SECONDS)
                await until_idle(connection)
        idle = await connection.fetch(_IDLE, ids)

        count = "select count(*) from stepbase.runs where status = 'Completed'"
        before = await connection.fetchval(count)
        async with Counters(bench, who, connection) as loaded:
            began = time.perf_counter()
            batches = [[event] * min(BATCH, bench.runs - i) for i in range(0, bench.runs, BATCH)]
            await asyncio.gather(*(post(http, bench.engine_url, batch) for batch in batches))
            await until_idle(connection)
            seconds = time.perf_counter() - began
        assert await connection.fetchval(count) == before + bench.runs
    await connection.close()
    runs, alone_runs = bench.runs, max(1, bench.idle_runs)
    return {
        "seconds": seconds,
        "idle_p50_ms": statistics.median(row["ms"] for row in idle) if idle else 0.0,
        "statements_alone": alone.statements / alone_runs,
        "write_tx_alone": alone.xids / alone_runs,
        "statements_per_run": loaded.statements / runs,
        "write_tx_per_run": loaded.xids / runs,
        "db_ms_per_run": loaded.db_ms / runs,
        "wal_bytes_per_run": loaded.wal / runs,
        **{f"{name}_us": used * 1e6 / runs / 3 for name, used in loaded.cpu.items()},
        **{f"{name}_alone_us": used * 1e6 / alone_runs for name, used in alone.cpu.items()},
    }


def where_it_goes(cluster: Cluster, runs: int) -> dict[str, dict[str, float]]:
    """Measure once more under a sampler; return CPU microseconds a step by what they are for."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for who in EVENTS:
            with running(cluster, runs, 0, Path(folder)) as bench:
                asyncio.run(measure(bench, who))  # warms up
                for pid in (bench.engine, bench.functions[who]):
                    os.kill(pid, signal.SIGUSR1)
                figures = asyncio.run(measure(bench, who))
                for pid in (bench.engine, bench.functions[who]):
                    os.kill(pid, signal.SIGUSR2)
                found[who] = _split(figures, Path(folder), who)
    return found


def _split(figures: Figures, folder: Path, who: str) -> dict[str, float]:
    """Give each process's time to its parts as the samples say."""
    parts: dict[str, float] = defaultdict(float)
    for name, key in (("engine", "engine_us"), (who, "functions_us")):
        report = folder / f"{name}.json"
        while not report.exists():
            time.sleep(0.01)
        samples: dict[str, int] = json.loads(report.read_text())
        report.unlink()
        for part, count in samples.items():
            parts[part] += figures[key] * count / sum(samples.values())
    parts["postgres"] = figures["postgres_us"]
    return {part: round(us, 1) for part, us in sorted(parts.items(), key=lambda each: -each[1])}
