"""Load: 100,000 events as fast as they are accepted, with the functions there, and with them away.

`up`: eight posters send events, most in batches and some one by one, while the function host works.
`down`: the host is stopped first, so that all their runs wait; it comes back when the last event was
accepted. A poster that is told to wait (503) waits as long as it is told and sends the same again.

Every event has an id of its own and starts one run of one step. `lost` are events without a completed
run, `doubled` runs too many. The engine's memory is sampled five times a second, its queue drained in
the end; `accepted_per_s` counts until the last event was accepted, `drained_s` from there on.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import asyncpg
from bench.support import processes

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

MODULE = "bench.support.load_functions:asgi_app"
POSTERS = 8
BATCH = 100
SINGLES = 20
"""After each batch, this many events are sent one by one."""


@dataclass
class Memory:
    """The engine's resident memory."""

    pid: int
    most_mb: float = 0.0
    first_mb: float = field(init=False)

    def __post_init__(self) -> None:
        """Take the first sample."""
        self.first_mb = self._now()

    def _now(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        [rss] = [line for line in lines if line.startswith("VmRSS:")]
        return int(rss.split()[1]) / 1024

    async def sample(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.most_mb = max(self.most_mb, self._now())
            await asyncio.sleep(0.2)


@dataclass
class Sender:
    """Posts events until all are accepted."""

    url: str
    http: aiohttp.ClientSession
    answers: Counter[int] = field(default_factory=Counter)

    async def send(self, events: list[dict[str, object]]) -> None:
        """Send one request's events, again and again if need be."""
        while True:
            async with self.http.post(f"{self.url}/e/load", json=events) as response:
                self.answers[response.status] += 1
                if response.status == 200:
                    return
                assert response.status == 503, (response.status, await response.text())
                await asyncio.sleep(float(response.headers["retry-after"]))

    async def send_all(self, name: str, count: int) -> None:
        """Send so many events, from several posters at once."""
        requests = iter(_requests(name, count))

        async def poster() -> None:
            for events in requests:
                await self.send(events)

        await asyncio.gather(*(poster() for _ in range(POSTERS)))


def _requests(name: str, count: int) -> Iterator[list[dict[str, object]]]:
    n = 0
    while n < count:
        for size in (BATCH, *[1] * SINGLES):
            numbers = range(n, min(n + size, count))
            n += len(numbers)
            if numbers:
                yield [_event(name, number) for number in numbers]


def _event(name: str, n: int) -> dict[str, object]:
    return {"name": "load/event", "id": f"{name}-{n}", "data": {"n": n, "note": "x" * 100}}


_OUTCOME = """
select count(distinct e.event_id) filter (where r.status = 'Completed') as completed,
       count(*) as runs
  from stepbase.events e join stepbase.runs r on r.event_id = e.id where e.event_id like $1
"""


async def phase(
    name: str, count: int, dsn: str, url: str, pid: int, host: "Host", *, is_up: bool
) -> dict[str, float]:
    """Send the events with the host there or not, and wait until nothing is left to do."""
    connection = await asyncpg.connect(dsn)
    async with sampled(pid) as memory, aiohttp.ClientSession() as http:
        sender = Sender(url, http)
        if not is_up:
            host.stop()
        began = time.perf_counter()
        await sender.send_all(name, count)
        accepted = time.perf_counter() - began
        waiting = await connection.fetchval("select count(*) from stepbase.queue")
        if not is_up:
            host.start()
        began = time.perf_counter()
        while await connection.fetchval("select exists (select from stepbase.queue)"):
            await asyncio.sleep(0.1)
        drained = time.perf_counter() - began
    outcome = await connection.fetchrow(_OUTCOME, f"{name}-%")
    await connection.close()
    assert outcome is not None
    return {
        "events": count,
        "lost": count - outcome["completed"],
        "doubled": outcome["runs"] - count,
        "accepted_per_s": round(count / accepted),
        "told_to_wait": sender.answers[503],
        "waiting": waiting,
        "drained_s": round(drained, 1),
        "runs_per_s": round(count / (drained if not is_up else accepted + drained)),
        "rss_before_mb": round(memory.first_mb, 1),
        "rss_most_mb": round(memory.most_mb, 1),
    }


@contextlib.asynccontextmanager
async def sampled(pid: int) -> AsyncIterator[Memory]:
    """Sample a process's memory for the length of the block."""
    memory = Memory(pid)
    sampling = asyncio.create_task(memory.sample())
    try:
        yield memory
    finally:
        sampling.cancel()


class Host:
    """The function host, which can be stopped and comes back on the same port."""

    def __init__(self, engine_url: str) -> None:
        self._engine_url = engine_url
        self._port = processes.free_port()
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        """Start; returns when it answers."""
        command = (sys.executable, "-m", "uvicorn", MODULE, "--port", str(self._port))
        paths = f"{processes.ROOT}{os.pathsep}{processes.ROOT / 'shared'}"
        env = {"INNGEST_DEV": self._engine_url, "PYTHONPATH": paths}
        quiet = ("--log-level", "warning", "--no-access-log")
        self._running.enter_context(processes.child(*command, *quiet, env=env))
        processes.wait_for(self.url)

    def stop(self) -> None:
        """Stop; does nothing twice."""
        self._running.close()

    @property
    def url(self) -> str:
        """Its serve URL."""
        return f"http://127.0.0.1:{self._port}/api/inngest"


def run(events: int, *, durable: bool = True) -> dict[str, dict[str, float]]:
    """Run both phases on a new database; return their figures."""
    result = {}
    with Cluster(port=0, durable=durable) as cluster:
        dsn = cluster.dsn()
        asyncio.run(migrate.apply(dsn))
        with processes.engine(dsn, "--log-level", "ERROR") as (url, process):
            host = Host(url)
            try:
                host.start()
                processes.put(host.url)
                for name in ("up", "down"):
                    case = phase(name, events, dsn, url, process.pid, host, is_up=name == "up")
                    result[name] = asyncio.run(case)
                    print(f"{name}: {json.dumps(result[name])}", flush=True)
            finally:
                host.stop()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    options = parser.parse_args()
    print(json.dumps(run(options.events)))


if __name__ == "__main__":
    main()
