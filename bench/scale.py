"""What much costs: a million stored runs, sleepers, an old snapshot, open waits, many steps, a ledger.

Everything on one durable Postgres of stock configuration, each case with a database, an engine and a
function host of its own, so that a loaded case and the plain one are measured in turns, in one sitting.
Costs of a step are of 1,000 runs of three steps sent at once: wall time, and what Postgres spent on
the engine's statements. Ratios are medians over the rounds, loaded to plain.

  history    a million ended runs of three steps are stored
  sleeping   100,000 runs sleep, each with an event that would cancel it
  snapshot   a transaction keeps its snapshot while all of the case's runs pass (4,000 with 4 rounds)
  waits      an event ends a wait among 10,000 others for the same event, told apart by a value that is
             looked up; `residual` (for information): by a condition that is evaluated for each of them
  parallel   a hundred steps at once, to the same one after another
  ledger     ten step.rpc in a run, to ten plain rpc calls in step.run, through gateway and engine
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import asyncpg
from bench.support import history
from bench.support.api import post
from bench.support.world import World, execute, gateway, make_database, serving, until_ended, world

from stepbase.local.postgres import Cluster

MODULE = "bench.support.scale_functions:asgi_app"
THREE: dict[str, object] = {"name": "bench/three", "data": {"n": 1}}

Figures = dict[str, object]


def say(case: str, figures: object) -> None:
    """Print something on the way."""
    print(f"{case}: {json.dumps(figures)}", flush=True)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures fit to be read."""
    return {key: round(value, 3) for key, value in figures.items()}


def ratios(loaded: list[dict[str, float]], plain: list[dict[str, float]]) -> dict[str, float]:
    """Return the medians of both cases' figures, loaded to plain."""
    return {
        key.replace("_ms", "_ratio"): round(
            statistics.median(each[key] for each in loaded)
            / statistics.median(each[key] for each in plain),
            2,
        )
        for key in plain[0]
    }


async def costs(
    plain: World, loaded: World, options: argparse.Namespace, case: str
) -> dict[str, float]:
    """Measure a step's cost in turns; the first round of each warms up."""
    found: dict[str, list[dict[str, float]]] = {"plain": [], "loaded": []}
    events = [THREE] * options.runs
    for each in (plain, loaded):
        await each.cost(events[:200], 3 * 200)
    for i in range(options.rounds):
        order = (("plain", plain), ("loaded", loaded))
        for name, each in order if i % 2 else reversed(order):
            found[name].append(await each.cost(events, 3 * options.runs))
        say(case, {name: rounded(rounds[-1]) for name, rounds in found.items()})
    return ratios(found["loaded"], found["plain"])


@contextlib.asynccontextmanager
async def old_snapshot(dsn: str) -> AsyncIterator[None]:
    """Hold a snapshot for as long as the block."""
    connection = await asyncpg.connect(dsn)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetchval("select count(*) from stepbase.queue")
        yield
    await connection.close()


async def snapshot(plain: World, held: World, options: argparse.Namespace) -> dict[str, float]:
    """Measure a step's cost while a snapshot grows old."""
    async with old_snapshot(held.dsn):
        return await costs(plain, held, options, "snapshot")


async def resumed(world: World, kind: str, name: str, first: int, times: int) -> float:
    """Return the median milliseconds from an event to the end of the run that waited for it."""
    connection = await asyncpg.connect(world.dsn)
    found: list[float] = []
    async with aiohttp.ClientSession() as http:
        for number in range(first, first + times):
            [waiting] = await post(http, world.engine_url, [event(kind, id=number)])
            await until_waiting(connection, name, 1, of=waiting)
            [go] = await post(http, world.engine_url, [{"name": name, "data": {"id": number}}])
            await until_ended(connection, [waiting])
            found.append(await connection.fetchval(_RESUME, waiting, go))
    await connection.close()
    return statistics.median(found)


_RESUME = """
  select extract(epoch from r.ended_at - e.received_at)::float8 * 1000
    from stepbase.runs r, stepbase.events e where r.event_id = $1 and e.id = $2
"""


async def until_waiting(
    connection: "asyncpg.Connection[asyncpg.Record]", name: str, count: int, of: str | None = None
) -> None:
    """Wait until so many waits for an event are open, or that of one run."""
    sql = "/* bench: */ select count(*) from stepbase.pauses where event_name = $1"
    one = " and run_id = (select run_id from stepbase.runs where event_id = $2)"
    while True:
        found = await connection.fetchval(sql + (one if of else ""), name, *([of] if of else []))
        if found >= count:
            return
        await asyncio.sleep(0.002 if of else 0.1)


async def open_waits(world: World, kind: str, name: str, count: int) -> float:
    """Have so many runs wait for an event; return the seconds it took."""
    connection = await asyncpg.connect(world.dsn)
    began = time.perf_counter()
    async with aiohttp.ClientSession() as http:
        for i in range(0, count, 500):
            await post(http, world.engine_url, [event(kind, id=-n - 1) for n in range(i, i + 500)])
        await until_waiting(connection, name, count)
    await connection.execute("vacuum analyze")
    await connection.close()
    return time.perf_counter() - began


async def waits(plain: World, loaded: World, options: argparse.Namespace) -> Figures:
    """Measure how soon a wait resumes, alone and among others."""
    result: Figures = {}
    cases = (("keyed", "bench/go", 20), ("residual", "bench/go-residual", options.residual))
    for kind, name, times in cases:
        if not times:
            continue
        await resumed(plain, kind, name, 1, 5)
        result[f"{kind}_open_s"] = round(await open_waits(loaded, kind, name, options.waits), 1)
        alone, among = [], []
        for i in range(options.rounds):
            first = 1_000 * (i + 1)
            alone.append(await resumed(plain, kind, name, first, times))
            among.append(await resumed(loaded, kind, name, first, times))
            say(f"waits {kind}", {"alone_ms": alone[-1], "among_ms": among[-1]})
        result[f"{kind}_alone_ms"] = round(statistics.median(alone), 2)
        result[f"{kind}_ratio"] = round(statistics.median(among) / statistics.median(alone), 2)
    return result


def event(kind: str, **data: object) -> dict[str, object]:
    """Return the event that starts a function."""
    return {"name": f"bench/{kind}", "data": data}


async def parallel(off: World, on: World, options: argparse.Namespace) -> Figures:
    """Compare a hundred steps at once with a hundred in a row."""
    result: Figures = {}
    for seconds in (0.005, 0):
        work = "5ms" if seconds else "noop"
        times: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, where in (("", off), ("_checkpointing", on)):
                for kind in ("sequential", "parallel"):
                    took = await where.latency(event(kind, seconds=seconds), 3)
                    times.setdefault(kind + name, []).append(took)
            say(f"parallel {work}", {kind: round(rounds[-1], 1) for kind, rounds in times.items()})
        median = {kind: statistics.median(rounds) for kind, rounds in times.items()}
        for name in ("", "_checkpointing"):
            result[f"{work}{name}_sequential_ms"] = round(median[f"sequential{name}"], 1)
            ratio = median[f"parallel{name}"] / median[f"sequential{name}"]
            result[f"{work}{name}_ratio"] = round(ratio, 2)
    return result


ADD = """
create table public.bench_sums (id bigint generated always as identity primary key, cents int);
alter table public.bench_sums enable row level security;
create function public.bench_add(p_cents int) returns int language plpgsql set search_path = '' as $$
begin
  insert into public.bench_sums (cents) values (p_cents);
  return p_cents;
end $$;
grant insert, select on public.bench_sums to service_role;
grant execute on function public.bench_add(int) to service_role;
"""


async def ledger(where: World, options: argparse.Namespace) -> Figures:
    """Compare ten calls through the ledger with ten that might happen twice."""
    kinds = ("without-ledger", "with-ledger")
    rounds = []
    for _ in range(options.rounds):
        rounds.append(await where.latencies([event(kind) for kind in kinds], 30))
        say("ledger", dict(zip(kinds, (round(each, 2) for each in rounds[-1]), strict=True)))
    without, with_ = (statistics.median(each) for each in zip(*rounds, strict=True))
    return {"step_ms": round(without / 10, 2), "ratio": round(with_ / without, 3)}


@contextlib.contextmanager
def ledger_world(cluster: Cluster) -> Iterator[World]:
    """A world whose functions reach its database through a gateway."""
    dsn = make_database(cluster, "ledger")
    asyncio.run(execute(dsn, ADD))
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(dsn, Path(folder)) as env,
        serving(dsn, MODULE, env) as made,
    ):
        yield made


def measure(cluster: Cluster, options: argparse.Namespace) -> dict[str, Figures]:
    """Run the cases that were asked for."""
    result: dict[str, Figures] = {}

    def case(name: str, of: Callable[[World, World], Figures], **env: str) -> None:
        if name in options.only:
            with world(cluster, f"loaded-{name}", MODULE, env) as loaded:
                result[name] = of(plain, loaded)
                say(name, result[name])

    def with_history(plain: World, loaded: World) -> Figures:
        asyncio.run(history.add_ended_runs(loaded.dsn, options.stored))
        return {**asyncio.run(costs(plain, loaded, options, "history"))}

    def with_sleepers(plain: World, loaded: World) -> Figures:
        asyncio.run(history.add_sleeping_runs(loaded.dsn, options.sleepers))
        return {**asyncio.run(costs(plain, loaded, options, "sleeping"))}

    with world(cluster, "plain", MODULE) as plain:
        case("history", with_history)
        case("sleeping", with_sleepers)
        case("snapshot", lambda a, b: {**asyncio.run(snapshot(a, b, options))})
        case("waits", lambda a, b: asyncio.run(waits(a, b, options)))
        case("parallel", lambda a, b: asyncio.run(parallel(a, b, options)), BENCH_CHECKPOINTING="1")
    if "ledger" in options.only:
        with ledger_world(cluster) as made:
            result["ledger"] = asyncio.run(ledger(made, options))
            say("ledger", result["ledger"])
    return result


CASES = ("history", "sleeping", "snapshot", "waits", "parallel", "ledger")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--sleepers", type=int, default=100_000)
    parser.add_argument("--waits", type=int, default=10_000)
    parser.add_argument("--residual", type=int, default=1, help="events a round; 0: leave it out")
    options = parser.parse_args()
    options.only = options.only or CASES
    with Cluster(port=0, preload=["pg_stat_statements"]) as cluster:
        print(json.dumps({**measure(cluster, options), "rounds": options.rounds}))


if __name__ == "__main__":
    main()
