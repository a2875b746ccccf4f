"""The demo itself: a throwaway stack, the story told on it, two killed processes, and the verdict."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import stepbase
from stepbase import clock
from stepbase.demo import purchase
from stepbase.demo.books import Connection
from stepbase.demo.fate import DELAYED_MERCHANT, Entry, Fate, decide_fates, merchants
from stepbase.demo.shop import RestShop
from stepbase.demo.story import Story
from stepbase.demo.terminal import Terminal
from stepbase.local import migrate
from stepbase.local.errors import LocalError
from stepbase.local.stack import Plan, Stack

# Shares of all purchases, in the order of the file: when each process is killed, and how many are
# sold while it is gone.
_HOST_DIES, _ENGINE_DIES, _MEANWHILE = 0.35, 0.65, 0.05
_PATIENCE_SECONDS = 45.0
_LOOK_SECONDS = 0.25
_REMEMBERED_LINES = 30
# For a demo: an outage is over within moments, and a killed engine's work is taken up soon.
_ENGINE = ("--retry-interval", "1", "--lease", "3", "--log-level", "WARNING")


@dataclass(frozen=True, slots=True)
class Options:
    """What to play.

    Attributes:
        data: The file of purchases.
        sample: How many of them; None for all.
        seed: Chooses who is refunded.
        delay: Seconds by which one merchant delays its awards.
    """

    data: Path
    sample: int | None = 500
    seed: int = 1
    delay: float = 6.0


class Play:
    """One performance. `run` inside `stage`."""

    def __init__(self, options: Options, terminal: Terminal) -> None:
        purchases = purchase.read(options.data)
        if options.sample is not None:
            purchases = purchase.spread(purchases, options.sample)
        self.entries = decide_fates(purchases, options.seed)
        self._options = options
        self._terminal = terminal
        self._last_words: deque[str] = deque(maxlen=_REMEMBERED_LINES)

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stack]:
        """Run the stack on a database that is thrown away afterwards.

        Raises:
            LocalError: What could not be started and why.
        """
        folder = Path(tempfile.mkdtemp(prefix="stepbase-demo-"))
        try:
            # The demo's own app alone, whatever else the repository's folder holds.
            (folder / "currency").symlink_to(_currency_folder())
            self._terminal.say("starting: Postgres, REST gateway, engine, function host")
            plan = Plan(
                functions=folder,
                # Not those of the project the demo happens to be started in.
                migrations=migrate.read_folder(migrate.migrations_folder()),
                engine_arguments=_ENGINE,
            )
            async with Stack(plan, self._hear) as stack:
                assert stack.cluster is not None
                version = stack.cluster.binaries.major
                self._terminal.say(f"ready: PostgreSQL {version}, app currency is synced")
                yield stack
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def run(self, stack: Stack) -> dict[str, Any]:
        """Tell the story and return the checker's report, with `seconds`."""
        began = clock.monotonic()
        async with Connection(stack.database_url) as owner, httpx.AsyncClient() as http:
            shop = RestShop(stack.gateway_url, stack.keys.secret, http)
            story = Story(shop, owner, self.entries)
            await story.books.open_shops(merchants(self._options.delay))
            await story.books.plan(self.entries)
            self._introduce()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(story.refund()), group.create_task(self._watch(story))]
                await self._sell(stack, story)
                self._terminal.say("the last purchase is sold; waiting for what is under way")
                standing = await story.settle(_PATIENCE_SECONDS)
                for task in tasks:
                    task.cancel()
        self._terminal.finish()
        if not standing.is_quiet:
            self._terminal.say(f"nothing moves any more, but this is left: {standing}")
        self._terminal.say("checking the books: every wallet is recomputed from the file")
        report = await check(stack.database_url, self._options.data)
        return {**report, "seconds": round(clock.monotonic() - began, 1)}

    @property
    def last_words(self) -> list[str]:
        """The last lines the pieces of the stack have printed."""
        return list(self._last_words)

    def _hear(self, name: str, line: str) -> None:
        self._last_words.append(f"{name}: {line}")

    def _introduce(self) -> None:
        fates = Counter(entry.fate for entry in self.entries)
        customers = len({entry.purchase.customer for entry in self.entries})
        refunds = len(self.entries) - fates[Fate.KEPT]
        self._terminal.say(
            f"{len(self.entries):,} purchases of {customers:,} customers at 10 merchants; merchant "
            f"{DELAYED_MERCHANT} gives its awards {self._options.delay:g} s later"
        )
        self._terminal.say(
            f"{refunds:,} will be refunded: {fates[Fate.UNPAID]} before they are paid, "
            f"{fates[Fate.WAITING]} while the award waits, {fates[Fate.RACING]} at the same moment, "
            f"{fates[Fate.LATE]} after it; for {fates[Fate.OVERTAKEN]} the refund's event comes first"
        )

    async def _sell(self, stack: Stack, story: Story) -> None:
        first, second, *rest = (
            int(len(self.entries) * share)
            for share in (
                _HOST_DIES, _HOST_DIES + _MEANWHILE, _ENGINE_DIES, _ENGINE_DIES + _MEANWHILE
            )
        )  # fmt: skip
        third, fourth = rest
        await story.sell(self.entries[:first])
        await self._kill(stack, story, "host", "function host", self.entries[first:second])
        await story.sell(self.entries[second:third])
        await self._kill(stack, story, "engine", "engine", self.entries[third:fourth])
        await story.sell(self.entries[fourth:])

    async def _kill(
        self, stack: Stack, story: Story, name: str, title: str, meanwhile: Sequence[Entry]
    ) -> None:
        """Kill a process, sell on while it is gone, and start it again."""
        piece = stack.pieces[name]
        pid = piece.pid
        began = clock.monotonic()
        await piece.abandon()
        standing = await story.books.standing()
        self._terminal.shout(
            f"kill -9 {pid}: the {title} is dead, {standing.working} runs were under way"
        )
        await story.sell(meanwhile, patiently=False)
        standing = await story.books.standing()
        self._terminal.say(
            f"{len(meanwhile)} more purchases sold meanwhile; "
            f"{standing.outbox} events wait in the outbox"
        )
        await piece.start()
        self._terminal.shout(
            f"the {title} is back as process {piece.pid} after {clock.monotonic() - began:.1f} s"
        )

    async def _watch(self, story: Story) -> None:
        fates = Counter(entry.fate for entry in self.entries)
        awards = len(self.entries) - fates[Fate.UNPAID]
        reversals = len(self.entries) - fates[Fate.KEPT]
        while True:
            self._terminal.progress(await story.books.standing(), awards + reversals)
            await asyncio.sleep(_LOOK_SECONDS)


async def check(database_url: str, data: Path) -> dict[str, Any]:
    """Run the stand-alone checker in a process of its own and return its report.

    Raises:
        LocalError: It could not check; with what it said.
    """
    script = Path(__file__).with_name("checker.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(script), database_url, str(data), "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    try:
        report: dict[str, Any] = json.loads(out)
    except ValueError:
        raise LocalError(f"the checker failed: {errors.decode(errors='replace')[-2000:]}") from None
    return report


def _currency_folder() -> Path:
    """Return functions/currency: the repository's, or the copy in the wheel."""
    package = Path(stepbase.__file__).parent
    repository = package.parents[1] / "functions" / "currency"
    return repository if repository.is_dir() else package / "_functions" / "currency"
