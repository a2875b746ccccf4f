"""A stack with more than one engine and more than one function host."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from stepbase import config
from stepbase.local.host import SERVE_PATH
from stepbase.local.process import Piece, Sink
from stepbase.local.stack import Plan, Stack
from stepbase.local.watchdog import Watchdog

_COMMAND = (sys.executable, "-P", "-c", "from stepbase.cli.main import main; main()")
_REPLACED = ("INNGEST_", "SUPABASE_", "DATABASE_URL", "STEPBASE_LISTEN_FD")


class Fleet:
    """A stack, further engines on its database, and a host of its own for each further folder.

    Use as an async context manager. Further pieces are called engine-2, engine-3, … and host-2, ….
    """

    def __init__(
        self, plan: Plan, sink: Sink, *, engines: int, folders: Sequence[Path] = ()
    ) -> None:
        self.stack = Stack(plan, sink)
        self.pieces: dict[str, Piece] = {}
        self._sink = sink
        self._engines = engines
        self._folders = folders
        self._watchdog = Watchdog()

    async def __aenter__(self) -> Self:
        """Start everything and sync every app."""
        await self.stack.start()
        try:
            await self._start_further()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        await self._stop()

    @property
    def engines(self) -> list[str]:
        """The names of the engines."""
        return [name for name in self.all if name.startswith("engine")]

    @property
    def all(self) -> dict[str, Piece]:
        """Every piece by name."""
        return {**self.stack.pieces, **self.pieces}

    def url(self, name: str) -> str:
        """Return the address of a piece."""
        return f"http://127.0.0.1:{self.all[name].port}"

    async def _start_further(self) -> None:
        stack = self.stack
        database = {"DATABASE_URL": stack.database_url}
        for number in range(2, self._engines + 1):
            name = f"engine-{number}"
            self.pieces[name] = self._piece("engine", name, stack.plan.engine_arguments, database)
            await self.pieces[name].start()
        for number, folder in enumerate(self._folders, 2):
            # It is called by every engine, and saves and sends by another than the first host does.
            engine = self.url(
                f"engine-{min(number, self._engines)}" if self._engines > 1 else "engine"
            )
            told = {
                **stack.client_environment(),
                "INNGEST_DEV": engine,
                "INNGEST_BASE_URL": engine,
            }
            name = f"host-{number}"
            self.pieces[name] = self._piece("host", name, [str(folder)], told)
            await self.pieces[name].start()
            async with httpx.AsyncClient(timeout=20) as client:
                for app in sorted(path.name for path in folder.iterdir()):
                    answer = await client.put(f"{self.url(name)}/{app}{SERVE_PATH}")
                    answer.raise_for_status()

    def _piece(
        self, command: str, name: str, arguments: Sequence[str], variables: Mapping[str, str]
    ) -> Piece:
        inherited = config.environment().items()
        environment = {
            **{key: value for key, value in inherited if not key.startswith(_REPLACED)},
            **variables,
            **self.stack.plan.environment,
        }
        return Piece(
            command,  # as which it says that it is ready
            lambda port: [*_COMMAND, command, *arguments, "--port", str(port)],
            environment,
            self._watchdog,
            lambda _, line: self._sink(name, line),
        )

    async def _stop(self) -> None:
        await asyncio.gather(*(piece.stop() for piece in self.pieces.values()))
        await self.stack.stop()
        self._watchdog.close()
