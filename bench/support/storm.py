"""What the crash benchmarks share: pieces that are killed, failpoints that are armed, a log of it all."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TextIO

from stepbase.local.process import Piece
from stepbase.local.stack import Stack

POSTGRES = "postgres"
DRAIN = "drain:"
HANG = "hang:"


class Storm:
    """Kills pieces from outside, and has failpoints kill them from inside."""

    hang_seconds = 3.0

    def __init__(self, folder: Path) -> None:
        self.hits_file = folder / "failpoints"
        self.hits_file.touch()
        self.kills: Counter[str] = Counter()
        self.pieces: dict[str, Piece] = {}
        self._stack: Stack | None = None
        self._turn = asyncio.Lock()

    def watch(self, stack: Stack, further: Mapping[str, Piece] | None = None) -> None:
        """Take the pieces of a stack, and others, as what may be killed."""
        self._stack = stack
        self.pieces = {**stack.pieces, **(further or {})}

    def hits(self) -> Counter[str]:
        """Return how often each failpoint was hit."""
        return Counter(self.hits_file.read_text().split())

    def arm(self, name: str, chances: Mapping[str, float]) -> None:
        """Set the failpoints of a piece's next life."""
        self.pieces[name].set_environment(
            STEPBASE_FAILPOINTS=",".join(f"{point}={p:.6f}" for point, p in chances.items()),
            STEPBASE_FAILPOINT_LOG=str(self.hits_file),
        )

    def on_death(self, name: str) -> None:
        """A piece has died: its next life may be armed otherwise."""

    async def strike(self, name: str) -> None:
        """Kill a piece; one that is down just now is killed when it is back.

        `drain:<piece>` asks it to end; `hang:<piece>` stops it for longer than a lease, and lets it go on.

        Raises:
            ChildError: it does not come back.
        """
        assert self._stack is not None
        if name == POSTGRES:
            async with self._turn:
                await self._stack.restart_postgres(immediate=True)
        else:
            piece = self.pieces[name.rpartition(":")[2]]
            while not piece.is_ready:
                # Dead, and its keeper does not know yet: it needs a turn of the loop to see that.
                await asyncio.sleep(0.02)
                await piece.wait_ready()
            if name.startswith(DRAIN):
                os.kill(piece.pid, signal.SIGTERM)
            elif name.startswith(HANG):
                await self._hang(piece.pid)
            else:
                await piece.kill()
        self.kills[name] += 1

    async def _hang(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self.hang_seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class Log:
    """What the pieces print, with the time; written to a file."""

    def __init__(self, file: TextIO, on_death: Callable[[str], None]) -> None:
        self._file = file
        self._on_death = on_death

    def __call__(self, name: str, line: str) -> None:
        """Write a line; a death is also news for the storm."""
        if line.startswith("died"):
            self._on_death(name)
        self._file.write(f"{time.strftime('%H:%M:%S')} {name:>8} {line}\n")
        self._file.flush()


def rarest(hits: Counter[str], points: Iterable[str], count: int) -> list[str]:
    """Return the failpoints that were hit least often."""
    return sorted(points, key=lambda point: hits[point])[:count]
