"""Purchases of the data file in one statement, relayed to an engine elsewhere while all is restarted.

Two databases: the project's, with the domain, the outbox and the REST gateway; and the engine's own. Between
them one `stepbase relay`. While events travel and runs go on, the engine (which receives the events), the
function host (which receives the calls) and the relay are killed by SIGKILL at random and come back. Then
every wallet transaction is compared with what the file says; the rules are written down again here.
"""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from stepbase import config
from stepbase.demo import purchase
from stepbase.demo.books import Connection
from stepbase.demo.purchase import Purchase
from stepbase.demo.shop import SqlShop
from stepbase.local import migrate
from stepbase.local.postgres import Cluster
from stepbase.local.process import Piece, Sink
from stepbase.local.stack import Plan, Stack
from stepbase.local.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[2]
RATE_BP = 10_000
"""Merchants give back everything: as many points as cents. (A purchase of 0.00 earns nothing, by the domain's
rule: its run ends without a transaction.)"""
_ENGINE = ("--lease", "2", "--retry-interval", "1", "--log-level", "WARNING")
_RELAY = (
    sys.executable, "-P", "-m", "stepbase.cli", "relay",
    "--lease", "4", "--timeout", "3", "--batch", "200", "--log-level", "WARNING",
)  # fmt: skip
_RELAYS_PORT = "--metrics-port"
_MERCHANTS = """
insert into public.merchants (id, name, rate_bp)
  select distinct id, 'Merchant ' || id, $2::int from unnest($1::text[]) as id
"""
_DONE = """
select (select count(*) from public.wallet_transactions where kind = 'award') as awards,
  (select count(*) from stepbase.outbox where dead_at is null) as outbox
"""
_LIVE = "select count(*) from stepbase.runs where ended_at is null"
_RUNS = """
select status, count(*) as runs, count(distinct e.event_id) as events
  from stepbase.runs as r join stepbase.events as e on e.id = r.event_id
  where e.name = 'currency/award.requested'
  group by status
"""


@dataclass
class Result:
    """What came out.

    Attributes:
        problems: What is wrong, a line each.
        killed: How often what was killed.
    """

    purchases: int
    awards: int = 0
    seconds: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


async def run(
    purchases: list[Purchase], *, every: float = 2.0, seed: int = 1, patience: float = 300.0
) -> Result:
    """Insert the purchases, restart everything at random, and compare.

    Args:
        every: Seconds between two kills, on average.
        patience: Seconds; if nothing moves for a fifth of it, waiting ends.
    """
    result = Result(len(purchases))
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="stepbase-relay-"))
    shutil.copytree(ROOT / "functions" / "currency", folder / "currency")
    with (
        Cluster(durable=False, settings={"max_connections": "100"}) as cluster,
        (folder / "log").open("w", encoding="utf-8") as log,
    ):

        def sink(name: str, line: str) -> None:
            log.write(f"{time.strftime('%H:%M:%S')} {name:>8} {line}\n")
            log.flush()

        engines = await _two_databases(cluster)
        plan = Plan(
            functions=folder,
            database_url=cluster.dsn(),
            engine_arguments=_ENGINE,
            environments={"engine": {"DATABASE_URL": engines}},
            environment={"PYTHONPATH": f"{ROOT / 'shared'}"},
        )
        async with Stack(plan, sink) as stack, Connection(cluster.dsn()) as project:
            watchdog = Watchdog()
            relay = _relay(stack, watchdog, sink)
            await relay.start()
            try:
                await _all(stack, relay, project, engines, purchases, result, every, seed, patience)
            finally:
                await relay.stop()
                watchdog.close()
    result.seconds = round(time.monotonic() - began, 1)
    if not result.problems:
        shutil.rmtree(folder)
    else:
        result.problems.append(f"log: {folder / 'log'}")
    return result


async def _two_databases(cluster: Cluster) -> str:
    """Migrate the project's database, and make the engine's; return its DSN."""
    await migrate.apply(cluster.dsn())
    db = await asyncpg.connect(cluster.dsn())
    await db.execute("create database engine")
    await db.close()
    await migrate.apply(cluster.dsn("engine"))
    return cluster.dsn("engine")


def _relay(stack: Stack, watchdog: Watchdog, sink: Sink) -> Piece:
    environment = {
        **config.environment(),
        **stack.client_environment(),
        "PYTHONPATH": str(ROOT / "shared"),
    }
    return Piece(
        "relay",
        lambda port: [*_RELAY, _RELAYS_PORT, str(port)],
        environment,
        watchdog,
        sink,
    )


async def _all(
    stack: Stack,
    relay: Piece,
    project: Connection,
    engines: str,
    purchases: list[Purchase],
    result: Result,
    every: float,
    seed: int,
    patience: float,
) -> None:
    await project.run((_MERCHANTS, [each.merchant_id for each in purchases], RATE_BP))
    pieces = {**{name: stack.pieces[name] for name in ("engine", "host")}, "relay": relay}
    chance = random.Random(seed)
    striking = asyncio.create_task(_strike(pieces, every, chance, result.killed))
    paying = sum(1 for each in purchases if each.cents)
    try:
        await SqlShop(project).record(purchases, "paid")  # one statement
        await _until_awarded(project, paying, patience)
    finally:
        striking.cancel()
        await asyncio.gather(striking, return_exceptions=True)
    for piece in pieces.values():
        await piece.wait_ready()
    engine = await asyncpg.connect(engines)
    deadline = time.monotonic() + patience
    while await engine.fetchval(_LIVE) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    runs = await engine.fetch(_RUNS)
    await engine.close()
    for row in runs:
        if row["status"] != "Completed" or row["runs"] != row["events"]:
            result.problems.append(f"{row['runs']} runs of {row['events']} events {row['status']}")
    if sum(row["runs"] for row in runs) != len(purchases):
        result.problems.append(f"{sum(row['runs'] for row in runs)} runs, not {len(purchases)}")
    await _compare(project, purchases, result)


async def _strike(
    pieces: dict[str, Piece], every: float, chance: random.Random, killed: Counter[str]
) -> None:
    """Kill one after the other, each when all are back."""
    while True:
        for name in chance.sample(sorted(pieces), len(pieces)):
            await asyncio.sleep(every * (0.5 + chance.random()))
            if pieces[name].is_ready:
                await pieces[name].kill()
                killed[name] += 1
            for piece in pieces.values():
                await piece.wait_ready()


async def _until_awarded(project: Connection, awards: int, patience: float) -> None:
    """Wait until there are so many awards and nothing is on its way, or nothing moves any more."""
    before, since = None, time.monotonic()
    while True:
        [row] = await project.run((_DONE,))
        if row["awards"] >= awards and not row["outbox"]:
            return
        if row != before:
            before, since = row, time.monotonic()
        if time.monotonic() - since > patience / 5:
            return  # the comparison says what is missing
        await asyncio.sleep(0.1)


async def _compare(project: Connection, purchases: list[Purchase], result: Result) -> None:
    """Recompute every wallet transaction from the file."""
    wanted = {each.purchase_id: (str(each.user_id), each.cents) for each in purchases if each.cents}
    rows = await project.run(
        (
            "select kind, source_id, user_id::text as user_id, amount from public.wallet_transactions",
        )
    )
    result.awards = len(rows)
    count = Counter(row["source_id"] for row in rows)
    result.problems += [f"{each} has no award" for each in wanted if not count[each]][:20]
    result.problems += [f"{each} has {n} transactions" for each, n in count.items() if n > 1][:20]
    for row in rows:
        if row["kind"] != "award" or (row["user_id"], row["amount"]) != wanted.get(
            row["source_id"]
        ):
            result.problems.append(f"not asked for: {dict(row)}")
    wallets = await project.run(("select user_id::text as user_id, balance from public.wallets",))
    balances = {row["user_id"]: row["balance"] for row in wallets}
    sums: Counter[str] = Counter()
    for user, cents in wanted.values():
        sums[user] += cents
    if balances != sums:
        result.problems.append("a wallet's balance is not the sum of its awards")


def summary(result: Result) -> dict[str, Any]:
    """Return what a benchmark prints."""
    return {
        "purchases": result.purchases,
        "awards": result.awards,
        "killed": dict(sorted(result.killed.items())),
        "problems": len(result.problems),
        "seconds": result.seconds,
    }


def part(count: int | None) -> list[Purchase]:
    """Return purchases of the data file: `count` spread over it, or all."""
    found = purchase.read(purchase.sample_file())
    return found if count is None else purchase.spread(found, count)
