"""A few connections to the database, the one used last first.

Why not the driver's pool: it gives each connection back in a task of its own, before it hands out what
was fetched. That cost more than the statement (100 against 45 µs of CPU, and two turns of the loop), five
times a run, with everybody in the next batch waiting.
"""

import asyncio
import contextlib

import asyncpg

from stepbase import clock

IDLE_SECONDS = 300.0
"""Sessions unused for longer are not trusted: something in between may have dropped them."""

_SESSION_IS_OVER = ("08", "57")  # sqlstate classes: connection trouble, shutdown


class Connections:
    """Runs statements, each on a session of its own; safe for concurrent use.

    Args:
        size: Connections at most; who comes when all are in use waits.
        idle: Seconds unused after which a session is ended, when there is other work or at its next use.
        name: What the sessions are called in pg_stat_activity.
    """

    def __init__(
        self, dsn: str, *, size: int, idle: float = IDLE_SECONDS, name: str = "stepbase"
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._size = size
        self._idle_seconds = idle
        self._places = asyncio.Semaphore(size)
        self._open: set[asyncpg.Connection[asyncpg.Record]] = set()
        self._idle: list[tuple[asyncpg.Connection[asyncpg.Record], float]] = []
        self._is_closing = False
        self._is_closed = False

    async def fetch(self, sql: str, *args: object) -> "list[asyncpg.Record]":
        """Run a statement and return its rows; raises what the driver raises."""
        async with self._places:
            if self._is_closing:
                raise asyncpg.InterfaceError("the store is closed")
            connection = self._take() or await self._connect()
            try:
                rows = await connection.fetch(sql, *args)
            except asyncpg.PostgresError as error:
                if (error.sqlstate or "").startswith(_SESSION_IS_OVER):
                    self._drop(connection)
                else:
                    self._put(connection)
                raise
            except BaseException:
                # Cancelled, timed out or cut off: its answer may still be on the way.
                self._drop(connection)
                raise
            self._put(connection)
            return rows

    def _take(self) -> "asyncpg.Connection[asyncpg.Record] | None":
        oldest = clock.monotonic() - self._idle_seconds
        while self._idle:
            connection, since = self._idle.pop()
            if since >= oldest and not connection.is_closed():
                return connection
            self._drop(connection)
        return None

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await asyncpg.connect(
            self._dsn,
            command_timeout=60,
            server_settings={"application_name": self._name},
        )
        if self._is_closed:
            connection.terminate()  # it took longer than `close` waits
            raise asyncpg.InterfaceError("the store is closed")
        self._open.add(connection)
        return connection

    def _put(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        now = clock.monotonic()
        self._idle.append((connection, now))
        if self._idle[0][1] < now - self._idle_seconds:
            self._drop(self._idle.pop(0)[0])

    def _drop(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._open.discard(connection)
        connection.terminate()

    async def close(self, seconds: float) -> None:
        """Let statements under way finish for so long, then close every connection."""
        self._is_closing = True
        taken = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while taken < self._size:
                    await self._places.acquire()
                    taken += 1
                while self._idle:
                    await self._idle.pop()[0].close()
        self._is_closed = True
        for connection in list(self._open):
            self._drop(connection)
        for _ in range(taken):
            self._places.release()  # who comes now is told
