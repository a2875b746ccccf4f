"""How many events a second `stepbase relay` delivers, and that none is lost while everything is restarted.

    relay   one relay process, as it comes, to a receiver on this machine
    single  the same, but one event in a request and one request at a time: posting one by one
    pool    one event in a request, four at a time

Each round emits its events first, then starts the relay, and counts from its first request to its last
answer; the settings take turns. `ratio` is relay's events a second over single's, the median of the rounds.
The receiver is a process of its own that answers as an event API does and keeps nothing. The server is
durable.

`--full` also runs the storm (bench/support/relay_storm.py): all purchases of the demo's data file, inserted
in one statement, relayed to an engine with a database of its own, while engine, relay and function host
are killed at random; every wallet transaction is then recomputed from the file. Exit code 1 if one is
missing, doubled or wrong.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
from bench.support import processes, relay_storm

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

_SETTINGS = {
    "relay": (20_000, ()),
    "pool": (500, ("--batch", "1")),
    "single": (300, ("--batch", "1", "--in-flight", "1")),
}
_PATIENCE_SECONDS = 120.0
_EMIT = """
select count(stepbase.emit('shop/paid', jsonb_build_object('order', n, 'note', repeat('x', 150))))
from generate_series(1, $1::int) as n
"""


async def serve(port: int) -> None:
    """Be the receiver: answer, and say at `/seen` how many events came, when the first and the last."""
    from aiohttp import web

    seen, first, last = 0, 0.0, 0.0

    async def post(request: web.Request) -> web.Response:
        nonlocal seen, first, last
        began = time.monotonic()
        count = len(json.loads(await request.read()))
        first, last = first or began, time.monotonic()
        seen += count
        return web.json_response({"ids": [f"i{i}" for i in range(count)], "status": 200})

    async def look(_: web.Request) -> web.Response:
        nonlocal seen, first, last
        found = {"seen": seen, "seconds": last - first}
        seen, first, last = 0, 0.0, 0.0
        return web.json_response(found)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes([web.post("/e/{key}", post), web.get("/seen", look), web.put("/", look)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


@contextlib.contextmanager
def receiver() -> Iterator[str]:
    """Run the receiver; yields its origin."""
    port = processes.free_port()
    with processes.child(sys.executable, "bench/relay.py", "--serve", str(port)):
        processes.wait_for(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"


def seen(origin: str) -> dict[str, float]:
    """Return what the receiver had since it was asked last."""
    import urllib.request

    with urllib.request.urlopen(f"{origin}/seen", timeout=10) as response:
        found: dict[str, float] = json.load(response)
        return found


async def measure(dsn: str, origin: str, count: int, options: tuple[str, ...]) -> float:
    """Emit, relay, and return events a second."""
    db = await asyncpg.connect(dsn)
    await db.execute("truncate stepbase.outbox")
    await db.fetchval(_EMIT, count)
    await db.execute("vacuum analyze stepbase.outbox")
    seen(origin)
    command = (sys.executable, "-P", "-m", "stepbase.cli", "relay", "--log-level", "WARNING")
    env = {
        "DATABASE_URL": dsn,
        "SUPABASE_URL": "https://bench.supabase.co",
        "INNGEST_EVENT_API_BASE_URL": origin,
        "INNGEST_EVENT_KEY": "bench",
        "PYTHONPATH": str(processes.ROOT / "shared"),
    }
    give_up = time.monotonic() + _PATIENCE_SECONDS
    with processes.child(*command, *options, env=env) as process:
        while await db.fetchval("select exists (select from stepbase.outbox)"):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{options}: not everything was delivered")
            await asyncio.sleep(0.02)
    await db.close()
    found = seen(origin)
    if found["seen"] != count:
        raise RuntimeError(f"{count} events were emitted, {found['seen']} came")
    return count / found["seconds"]


def throughput(rounds: int) -> dict[str, float]:
    """Run the rounds; return medians."""
    rates: dict[str, list[float]] = {name: [] for name in _SETTINGS}
    with Cluster(port=0, durable=True) as cluster, receiver() as origin:
        asyncio.run(migrate.apply(cluster.dsn()))
        for _ in range(rounds):
            for name, (count, options) in _SETTINGS.items():
                rates[name].append(asyncio.run(measure(cluster.dsn(), origin, count, options)))
                print(f"{name:7} {rates[name][-1]:8.0f}/s", flush=True)
    return {
        "ratio": round(
            _median(a / b for a, b in zip(rates["relay"], rates["single"], strict=True)), 1
        ),
        **{f"{name}_per_s": round(_median(found)) for name, found in rates.items()},
        "rounds": rounds,
    }


def _median(values: "Iterator[float] | list[float]") -> float:
    return statistics.median(values)


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="also the storm, with the whole file")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return 0
    result: dict[str, object] = dict(throughput(options.rounds))
    problems: list[str] = []
    if options.full:
        storm = asyncio.run(relay_storm.run(relay_storm.part(None), every=4.0))
        problems = storm.problems
        print("\n".join(problems), file=sys.stderr)
        result["storm"] = relay_storm.summary(storm)
    print(json.dumps(result))
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
