"""What the tests of a living system share: real processes that others replace, and time that passes."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from stepbase import config
from stepbase.local.process import Piece
from stepbase.local.watchdog import Watchdog

_COMMAND = (sys.executable, "-P", "-c", "from stepbase.cli.main import main; main()")

StartPiece = Callable[..., Awaitable[Piece]]
"""`await start("engine", {"INNGEST_…": …}, "--option", port=8288)`."""


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    """Ends what the test leaves running."""
    guard = Watchdog()
    yield guard
    guard.close()


@pytest.fixture
async def start(watchdog: Watchdog) -> AsyncIterator[StartPiece]:
    """Start `stepbase <name>` with these variables and no others of ours; all are stopped afterwards."""
    async with AsyncExitStack() as stack:

        async def run(
            name: str, variables: Mapping[str, str], *arguments: str, port: int = 0
        ) -> Piece:
            piece = Piece(
                name,
                lambda port: [*_COMMAND, name, *arguments, "--port", str(port)],
                {**config.environment(), **variables},
                watchdog,
                lambda name, line: print(name, line),
                port=port,
                supervise=False,
            )
            await piece.start()
            stack.push_async_callback(piece.stop)
            return piece

        yield run


def write_app(functions: Path, name: str, source: str) -> None:
    """Write a function folder, or its next version."""
    (functions / name).mkdir(parents=True, exist_ok=True)
    (functions / name / "main.py").write_text(source)


async def pass_time(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make everything due that waits for its time."""
    await connection.execute(
        "update stepbase.queue set due_at = stepbase.now() where due_at > stepbase.now()"
        " and due_at < 'infinity'"
    )
    await connection.execute("select pg_notify('stepbase', 'q')")
