"""The storm of the chaos benchmark: what is struck how often, and which failpoints are armed when."""

import asyncio
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.support.storm import DRAIN, HANG, POSTGRES, Storm, rarest

from stepbase.local.errors import LocalError

GATEWAY_POINT = "rpc.after_commit"
# The chance that one pass through a failpoint is the last, while it is armed: about once in some seconds.
CHANCES = {
    "engine.before_ingest": 0.05,
    "engine.in_ingest": 0.05,
    "engine.after_ingest": 0.05,
    "engine.after_lease": 0.03,
    "engine.before_call": 0.01,
    "engine.after_reply": 0.01,
    "engine.before_child_end": 0.3,
    "engine.in_settle": 0.02,
    "engine.after_settle": 0.01,
    "engine.in_checkpoint": 0.05,
    "engine.after_checkpoint": 0.05,
    "engine.in_match": 0.4,
    "engine.at_timeout": 0.3,
    "buffers.after_take": 0.3,
    "crons.before_fire": 0.5,
    "crons.after_fire": 0.5,
    "relay.after_take": 0.1,
    GATEWAY_POINT: 0.02,
}
ARMED_AT_ONCE = 2
STRIKES = {
    "engine": 6,
    "engine-2": 6,
    "engine-3": 6,
    "host": 8,
    "host-2": 8,
    "gateway": 3,
    POSTGRES: 8,
    **{HANG + name: 2 for name in ("engine", "engine-2", "engine-3")},
    DRAIN + "engine": 1,
    DRAIN + "engine-2": 1,
    DRAIN + "engine-3": 1,
}


@dataclass(frozen=True)
class Options:
    """How many runs, how long and how hard.

    Attributes:
        seconds: How long the storm lasts, if by then every failpoint was hit often enough.
        longest: How long it lasts at most.
        hits: Hits of each failpoint that the storm aims for.
        strikes: How often something is killed from outside.
        lease: Of the engines, in seconds.
    """

    runs: int = 10_000
    seconds: float = 600.0
    longest: float = 2400.0
    hits: int = 22
    strikes: int = 110
    lease: float = 2.0
    seed: int = 1


class Chaos(Storm):
    """Arms the failpoints that were hit least often, until each was hit often enough."""

    def __init__(self, folder: Path, options: Options) -> None:
        super().__init__(folder)
        self._options = options
        self._chance = random.Random(options.seed)
        self._striking: set[asyncio.Task[None]] = set()
        self.hang_seconds = 1.5 * options.lease
        self.progress = 0.0
        self.is_over = False

    def on_death(self, name: str) -> None:
        """Arm a piece before its next life."""
        if name.startswith("engine") or name == "gateway":
            self.arm(name, {} if self.is_over else self._chances(name))

    def _chances(self, name: str) -> dict[str, float]:
        hits = self.hits()
        points = [
            point
            for point in CHANCES
            if (point == GATEWAY_POINT) is (name == "gateway") and hits[point] < self._options.hits
        ]
        self._chance.shuffle(points)
        return {point: CHANCES[point] for point in rarest(hits, points, ARMED_AT_ONCE)}

    def lagging(self) -> list[str]:
        """Return the failpoints that were not hit as often as they should be."""
        hits = self.hits()
        return [point for point in CHANCES if hits[point] < self._options.hits]

    async def rage(self, began: float) -> None:
        """Strike at random moments, evenly spread over the storm's time."""
        part = self._options.seconds / max(1, self._options.strikes)
        for number in range(self._options.strikes):
            at = began + (number + self._chance.random()) * part
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            [name] = self._chance.choices(list(STRIKES), weights=list(STRIKES.values()))
            striking = asyncio.create_task(self._strike(name))
            self._striking.add(striking)
            striking.add_done_callback(self._striking.discard)
        while self._striking:
            await asyncio.wait(self._striking)

    async def _strike(self, name: str) -> None:
        try:
            await self.strike(name)
        except (LocalError, ProcessLookupError) as error:
            print(f"  {name} was not struck: {error}", file=sys.stderr)
