"""Nothing is lost and nothing happens twice: runs of every shape in a storm that kills everything.

Three engines on one database, two function hosts, a REST gateway and Postgres serve runs of some forty
shapes (`bench/support/chaos_shapes.py`), sent at an even pace over the API and the outbox. Meanwhile
engines, hosts and the gateway are killed by SIGKILL, engines are asked to end or hang for longer than a
lease, Postgres is shut down at once, and named failpoints kill engines and the gateway at the worst moments
(`stepbase/failpoint.py`). What must hold at every commit is asked of the database every second. When the
storm is over and everything has ended, each case is compared with what its shape says, and the
database with what must be left: nothing.

Then one of two engines is killed in the middle of calls, and it is measured when they are made again.

The last line is one JSON object; the exit code is 0 if all was right. What was not leaves its rows and the
log in a folder.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
from bench.support.chaos_books import ALWAYS, FINALLY, Books, Waiting, keep_rows
from bench.support.chaos_functions import SCHEMA
from bench.support.chaos_outside import Outside, Sender
from bench.support.chaos_shapes import Case, Sent, make, problems
from bench.support.chaos_storm import CHANCES, Chaos, Options
from bench.support.fleet import Fleet
from bench.support.storm import HANG, Log

from stepbase import failpoint
from stepbase.demo.books import Connection
from stepbase.local import migrate
from stepbase.local.errors import LocalError
from stepbase.local.process import Piece
from stepbase.local.stack import Plan

ROOT = Path(__file__).resolve().parent.parent
CLOCK_SECONDS = 3.0
TICK_SECONDS = 0.25
QUIET_SECONDS = 45.0
HELD = 20
SHOWN = 30


class Bench:
    """One storm."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._chance = random.Random(options.seed)
        self._cases: dict[int, Case] = {}
        self._nudged: set[tuple[str, str]] = set()
        self._nudging: set[asyncio.Task[None]] = set()
        self.found: list[tuple[str, str, str]] = []  # kind, subject, text

    async def run(self) -> dict[str, Any]:
        """Run the storm and what follows it; return the result."""
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="stepbase-chaos-"))
        storm = Chaos(folder, self._options)
        outside = Outside()
        runner = await outside.start()
        try:
            with (folder / "log").open("w", encoding="utf-8") as file:
                log = Log(file, storm.on_death)
                async with Fleet(
                    _plan(folder, self._options), log, engines=3, folders=[_folder(folder, "saved")]
                ) as fleet:
                    result = await self._all(fleet, storm, outside, folder)
        finally:
            outside.let_go.set()
            await runner.cleanup()
        if not self.found:
            shutil.rmtree(folder)
        return {**result, "seconds": round(time.monotonic() - began, 1)}

    async def _all(
        self, fleet: Fleet, storm: Chaos, outside: Outside, folder: Path
    ) -> dict[str, Any]:
        storm.watch(fleet.stack, fleet.pieces)
        async with (
            Connection(fleet.stack.database_url) as database,
            Connection(fleet.stack.database_url) as other,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http,
        ):
            books = Books(database)
            sender = Sender(fleet, Books(other), http, self._options.seed)
            await self._storm(fleet, storm, books, sender, outside.url)
            standing = await self._settle(books, sender)
            await self._judge(books)
            deaths = [n for name, n in storm.kills.items() if not name.startswith(HANG)]
            kills = sum(deaths) + storm.hits().total()
            takeover = await self._take_over(fleet, sender, outside, books)
        if self.found:
            await self._explain(fleet.stack.database_url, folder, standing)
        counted = Counter(kind for kind, _, _ in self.found)
        return {
            "runs": standing["runs"],
            "kills": kills,
            "killed": dict(storm.kills),
            "failpoints": {name: storm.hits()[name] for name in CHANCES},
            **{kind: counted[kind] for kind in ("lost", "doubled", "stuck", "wrong", "orphans")},
            "takeover_max_s": takeover,
            "lease_s": self._options.lease,
        }

    # -- the storm ---------------------------------------------------------------------------------

    async def _storm(
        self, fleet: Fleet, storm: Chaos, books: Books, sender: Sender, url: str
    ) -> None:
        for name in (*fleet.engines, "gateway"):
            storm.on_death(name)
            await fleet.all[name].stop()
            await fleet.all[name].start()
        began = time.monotonic()
        raging = asyncio.create_task(storm.rage(began))
        looking = asyncio.create_task(self._look(books))
        striking = asyncio.create_task(self._strike_clock(books))
        try:
            await self._feed(storm, books, sender, url, began)
            await raging
        finally:
            for task in (raging, looking, striking):
                task.cancel()
            await asyncio.gather(raging, looking, striking, return_exceptions=True)
        storm.is_over = True
        for name in (*fleet.engines, "gateway"):
            storm.on_death(name)
            await _restart(fleet.all[name])
        print(f"storm over after {time.monotonic() - began:.0f} s: {storm.hits()}", file=sys.stderr)

    async def _feed(
        self, storm: Chaos, books: Books, sender: Sender, url: str, began: float
    ) -> None:
        """Send cases at an even pace until there are enough runs, and every failpoint was hit enough."""
        runs, number = 0, 0
        while True:
            storm.progress = (time.monotonic() - began) / self._options.seconds
            is_full = runs >= self._options.runs
            if is_full and storm.progress >= 1 and not storm.lagging():
                break
            if time.monotonic() - began > self._options.longest:
                break  # what was not hit by now will not be: the result says so
            due = self._options.runs * min(storm.progress, 1) if not is_full else runs + 4
            async with asyncio.TaskGroup() as sending:
                while runs < due:
                    number += 1
                    case = make(number, self._chance, url)
                    self._cases[number] = case
                    runs += case.shape.runs
                    sending.create_task(sender.send(case.events))
            await self._nudge(books, sender)
            await asyncio.sleep(TICK_SECONDS)

    async def _nudge(self, books: Books, sender: Sender) -> None:
        """Give runs that wait for something what they wait for."""
        for waiting in await books.waiting():
            key = (waiting.run_id, waiting.event_name)
            if key not in self._nudged:
                self._nudged.add(key)
                task = asyncio.create_task(_give(waiting, sender))
                self._nudging.add(task)
                task.add_done_callback(self._nudged_one)

    def _nudged_one(self, task: "asyncio.Task[None]") -> None:
        self._nudging.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.found.append(("lost", "sending", str(task.exception())))

    async def _look(self, books: Books) -> None:
        """Ask every second whether what must hold at every commit does."""
        while True:
            await asyncio.sleep(1)
            for rule, subject, text in await books.broken(ALWAYS):
                self._note("wrong", subject, f"{rule}: {text}")

    async def _strike_clock(self, books: Books) -> None:
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            await books.strike_clock()

    def _note(self, kind: str, subject: str, text: str) -> None:
        if (kind, subject, text) not in self.found:
            self.found.append((kind, subject, text))
            if len(self.found) <= SHOWN:
                print(f"  {kind}: {subject}: {text}", file=sys.stderr)

    # -- afterwards --------------------------------------------------------------------------------

    async def _settle(self, books: Books, sender: Sender) -> dict[str, int]:
        """Wait until nothing is under way, or nothing moves any more."""
        before: dict[str, int] = {}
        since = time.monotonic()
        while True:
            await self._nudge(books, sender)
            standing = await books.standing()
            if standing["live"] + standing["outbox"] + standing["buffers"] + standing["queue"] == 0:
                return standing
            if standing != before:
                before, since = standing, time.monotonic()
            if time.monotonic() - since > QUIET_SECONDS:
                return standing
            await asyncio.sleep(TICK_SECONDS)

    async def _judge(self, books: Books) -> None:
        for task in list(self._nudging):
            task.cancel()
        for rule, subject, text in await books.broken({**ALWAYS, **FINALLY}):
            self._note("orphans", subject, f"{rule}: {text}")
        runs, effects = await books.runs(), await books.effects()
        for number, case in self._cases.items():
            title = f"case {number} ({case.app} {case.shape.function})"
            for kind, text in problems(case, runs.get(number, []), effects.get(number, Counter())):
                self._note(kind, title, text)
        struck, fired = set(await books.struck()), effects.get(-1, Counter())
        for name in struck | fired.keys():
            if fired[name] != (name in struck):
                kind = "lost" if fired[name] == 0 else "doubled"
                self._note(kind, "schedule", f"{name} fired {fired[name]} times")

    async def _take_over(
        self, fleet: Fleet, sender: Sender, outside: Outside, books: Books
    ) -> float | None:
        """Kill one of two engines in the middle of calls; return when the last of them was made again."""
        for name in ("engine-2", "engine-3"):
            await fleet.all[name].stop()
        data = {"url": f"{outside.url}/held"}
        events = [
            Sent("chaos/held", f"held-{i}", {**data, "case": 10_000_000 + i}) for i in range(HELD)
        ]
        await sender.send(events, "engine")
        if not await _until(lambda: len(outside.came) >= HELD, 30):
            self._note("lost", "take-over", f"{len(outside.came)} calls were made, not {HELD}")
            return None
        await fleet.all["engine-2"].start()
        # The leases have been prolonged: these calls last longer than one.
        await asyncio.sleep(self._options.lease)
        killed = time.monotonic()
        await fleet.all["engine"].abandon()
        await _until(lambda: len(outside.came) >= 2 * HELD, self._options.lease + 10)
        again = {case: at - killed for at, case in outside.came if at > killed}
        outside.let_go.set()
        if len(again) < HELD:
            self._note("lost", "take-over", f"{len(again)} calls were made again, not {HELD}")
            return None
        latest = max(again.values())
        if latest > self._options.lease + 1:
            self._note(
                "wrong", "take-over", f"{latest:.2f} s, the lease is {self._options.lease:g} s"
            )
        if not await _all_over(books):
            self._note("stuck", "take-over", "its runs did not end")
        return round(latest, 2)

    async def _explain(self, dsn: str, folder: Path, standing: Mapping[str, int]) -> None:
        subjects = [subject for _, subject, _ in self.found]
        cases = [int(s.split()[1]) for s in subjects if s.startswith("case ")][:SHOWN]
        (folder / "problems").write_text(
            "\n".join(map(": ".join, self.found)) + f"\n{dict(standing)}\n", "utf-8"
        )
        await keep_rows(dsn, folder, cases, subjects[:SHOWN])
        print(f"evidence: {folder}", file=sys.stderr)


async def _give(waiting: Waiting, sender: Sender) -> None:
    """Send what a run waits for; where an amount is asked for, one that is too small before."""
    if waiting.kind == "signal":
        await sender.signal(waiting.event_name)
        return
    if not waiting.event_name.endswith(("/go", "/stop")):
        return
    for amount in (5, 20):
        id_ = f"{waiting.event_name} {waiting.run_id} {amount}"
        data = {"case": waiting.case, "amount": amount}
        await sender.send([Sent(waiting.event_name, id_, data)])


async def _restart(piece: Piece) -> None:
    await piece.stop()
    await piece.start()


async def _until(is_so: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def _all_over(books: Books) -> bool:
    deadline = time.monotonic() + QUIET_SECONDS
    while (await books.standing())["queue"]:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(TICK_SECONDS)
    return True


def _folder(folder: Path, name: str) -> Path:
    """Write the function folder of an app; return the folder it is in."""
    other = {"chaos": "saved", "saved": "chaos"}[name]
    place = folder / f"functions-{name}" / name
    place.mkdir(parents=True)
    (place / "main.py").write_text(
        "from bench.support.chaos_functions import define\n\n"
        "from stepbase import serve\n\n"
        f"app = define({name!r}, {other!r}, checkpointing={name == 'saved'})\n"
        "main = serve(app)\n",
        "utf-8",
    )
    return place.parent


def _plan(folder: Path, options: Options) -> Plan:
    files = migrate.read_folder(migrate.migrations_folder())
    return Plan(
        functions=_folder(folder, "chaos"),
        migrations={**files, "20991231000000_chaos.sql": SCHEMA},
        engine_arguments=(
            "--lease", str(options.lease), "--retry-interval", "0.5", "--log-level", "INFO",
        ),
        environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}"},
    )  # fmt: skip


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind in (
        ("runs", int), ("seconds", float), ("longest", float), ("hits", int), ("strikes", int),
        ("lease", float), ("seed", int),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=getattr(Options, name))
    assert set(CHANCES) == failpoint.NAMES
    bench = Bench(Options(**vars(parser.parse_args())))
    try:
        result = asyncio.run(bench.run())
    except LocalError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 1 if bench.found else 0


if __name__ == "__main__":
    sys.exit(main())
