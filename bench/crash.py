"""Nothing is lost and nothing happens twice, whatever is killed: rounds of purchases in a storm.

Each round sells purchases and refunds some of them (the demo's story, in SQL) while a storm rages: the
engine and the function host are killed by SIGKILL, the database is shut down at once and recovers, and
named failpoints kill the engine and the REST gateway at the worst moments:

    engine.before_call   leased, the function not called yet
    engine.after_reply   the function has answered, nothing is written yet
    engine.in_settle     the settle statement is sent, its answer not read
    relay.after_take     outbox rows are leased, not yet ingested
    rpc.after_commit     an RPC is committed and not answered

What dies is started again by the stack's own supervisor. After each round the demo's checker, which
knows nothing of stepbase, recomputes every wallet. Retries stay at 3. The last line is one JSON object;
the exit code is 0 if every round was right. A round that was not leaves its evidence in a folder.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.support.evidence import keep_evidence
from bench.support.storm import Log, Storm

from stepbase.demo import purchase
from stepbase.demo.books import Connection
from stepbase.demo.fate import Entry, decide_fates, merchants
from stepbase.demo.play import check
from stepbase.demo.purchase import Purchase
from stepbase.demo.shop import SqlShop
from stepbase.demo.story import Story
from stepbase.local.errors import LocalError
from stepbase.local.stack import Plan, Stack

ROOT = Path(__file__).resolve().parent.parent
# The chance that one pass through the failpoint is the last.
CHANCES = {
    "engine.before_call": 0.004,
    "engine.after_reply": 0.004,
    "engine.in_settle": 0.008,
    "relay.after_take": 0.06,
    "rpc.after_commit": 0.004,
}
GATEWAY = "rpc.after_commit"
# The gateway's first, second and further lives of a round. Unlike an outage of the engine or of the
# function host, one of Supabase costs each step that meets it an attempt, and there are four: with the
# short retry interval of this benchmark a gateway that dies every two seconds would use them up.
GATEWAY_LIVES = (1.0, 0.25, 0.0)
ENGINE = ("--lease", "2", "--retry-interval", "2", "--log-level", "INFO")
PATIENCE_SECONDS = 45.0
AWARD_DELAY_SECONDS = 3.0


@dataclass(frozen=True)
class Options:
    """How long, how large and how hard.

    Attributes:
        hits: Hits of each failpoint a round that the storm aims for.
        strikes: What is killed from outside in each round, in an order that chance decides.
    """

    rounds: int = 20
    purchases: int = 300
    hits: float = 1.4
    seed: int = 1
    strikes: tuple[str, ...] = ("engine", "engine", "host", "host", "postgres")


class Rounds(Storm):
    """Kills at random places of a round, and arms the failpoints so that each is hit about equally often.

    A strike comes when so many purchases are sold, not after so much time: a fast round would end
    before anything was killed.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        super().__init__(folder)
        self._aim = options.hits
        self._strikes = options.strikes
        self._chance = random.Random(options.seed)
        self._round = 0
        self._before: Counter[str] = Counter()

    async def begin(self, stack: Stack) -> None:
        """Begin a round: arm everything anew while nothing is under way."""
        self.watch(stack)
        self._round += 1
        self._before = self.hits()
        for name in ("engine", "gateway"):
            self.on_death(name)
            await stack.restart(name)

    def on_death(self, name: str) -> None:
        """Arm a piece before its next life."""
        if name in self.pieces and name in ("engine", "gateway"):
            self.arm(name, self._engine_chances() if name == "engine" else self._gateway_chances())

    def _engine_chances(self) -> dict[str, float]:
        """What lags behind becomes likelier, what leads rarer."""
        hits, aim = self.hits(), self._round * self._aim
        return {
            name: chance * min(3.0, max(0.2, aim - hits[name]))
            for name, chance in CHANCES.items()
            if name != GATEWAY
        }

    def _gateway_chances(self) -> dict[str, float]:
        died = self.hits()[GATEWAY] - self._before[GATEWAY]
        return {GATEWAY: CHANCES[GATEWAY] * GATEWAY_LIVES[min(died, len(GATEWAY_LIVES) - 1)]}

    def strikes(self, purchases: int) -> list[tuple[int, str]]:
        """Return what to strike in a round, each after how many purchases: one in each equal part."""
        names = self._chance.sample(self._strikes, len(self._strikes))
        part = purchases / len(names)
        return [(int((i + self._chance.random()) * part), name) for i, name in enumerate(names)]


class Bench:
    """All rounds on one stack, whose database fills up."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._data = purchase.sample_file()
        self._purchases = purchase.read(self._data)
        self._known: set[tuple[str, str]] = set()
        self.found: Counter[str] = Counter()

    async def run(self) -> dict[str, Any]:
        """Run every round; return the result."""
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="stepbase-crash-"))
        storm = Rounds(folder, self._options)
        # The app under test alone: runs of others that wait for days are no news.
        functions = folder / "functions"
        functions.mkdir()
        (functions / "currency").symlink_to(ROOT / "functions" / "currency")
        plan = Plan(
            functions=functions,
            project=ROOT,
            engine_arguments=ENGINE,
        )
        with (folder / "log").open("w", encoding="utf-8") as file:
            async with Stack(plan, Log(file, storm.on_death)) as stack:
                for number in range(self._options.rounds):
                    await storm.begin(stack)
                    await self._round(number, stack, storm, folder)
        hits = {name: storm.hits()[name] for name in CHANCES}
        if not self.found.total():
            shutil.rmtree(folder)
        return {
            "rounds": self._options.rounds,
            "purchases": self._options.purchases,
            "kills": storm.kills.total() + sum(hits.values()),
            "killed": dict(storm.kills),
            "failpoints": hits,
            **{kind: self.found[kind] for kind in ("lost", "doubled", "stuck", "wrong")},
            "seconds": round(time.monotonic() - began, 1),
        }

    def _take(self, number: int) -> list[Purchase]:
        """Return the purchases of a round; when the file is at its end it begins anew."""
        size, total = self._options.purchases, len(self._purchases)
        places = range(number * size, (number + 1) * size)
        return [replace(self._purchases[i % total], lap=i // total) for i in places]

    async def _round(self, number: int, stack: Stack, storm: Rounds, folder: Path) -> None:
        began = time.monotonic()
        before = storm.kills.total() + storm.hits().total()
        entries = decide_fates(self._take(number), self._options.seed + number)
        async with (
            Connection(stack.database_url) as owner,
            Connection(stack.database_url, role="service_role") as service,
        ):
            story = Story(SqlShop(service), owner, entries)
            await story.books.open_shops(merchants(AWARD_DELAY_SECONDS))
            await story.books.plan(entries)
            async with asyncio.TaskGroup() as group:
                refunding = group.create_task(story.refund())
                await _sell(story, entries, storm)
                sold = time.monotonic() - began
                standing = await story.settle(PATIENCE_SECONDS)
                refunding.cancel()
        report = await check(stack.database_url, self._data)
        # What an earlier round has left wrong is not counted again.
        new = [each for each in report["problems"] if _key(each) not in self._known]
        self._known.update(_key(each) for each in new)
        self.found.update(problem["kind"] for problem in new)
        kills = storm.kills.total() + storm.hits().total() - before
        print(
            f"round {number + 1}: {time.monotonic() - began:.1f} s (sold after {sold:.1f}), {kills} kills, "
            f"{report['totals']['runs_completed']} runs completed so far, {len(new)} problems",
            file=sys.stderr,
        )
        if new:
            kept = folder / f"round-{number + 1}"
            await keep_evidence(stack.database_url, kept, new, str(standing))
            print(f"  evidence: {kept} (log: {folder / 'log'})", file=sys.stderr)


async def _sell(story: Story, entries: Sequence[Entry], storm: Rounds) -> None:
    """Sell everything, and let the storm strike between two sales; selling does not wait for it."""
    start = 0
    async with asyncio.TaskGroup() as striking:
        for place, name in storm.strikes(len(entries)):
            await story.sell(entries[start:place])
            striking.create_task(storm.strike(name))
            start = place
        await story.sell(entries[start:])


def _key(problem: dict[str, str]) -> tuple[str, str]:
    return problem["subject"], problem["text"]


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=Options.rounds)
    parser.add_argument("--purchases", type=int, default=Options.purchases)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument(
        "--hits", type=float, default=Options.hits, help="of each failpoint, a round"
    )
    bench = Bench(Options(**vars(parser.parse_args())))
    try:
        result = asyncio.run(bench.run())
    except LocalError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 1 if bench.found.total() else 0


if __name__ == "__main__":
    sys.exit(main())
