"""What the console reads, over one connection of its own that may only read.

Opened when a page is asked for, closed when nobody has looked for a minute: an engine that nobody
watches has no connection more. Every statement is bounded: by a key that it walks, by a number of rows,
and by `_TIMEOUT_MS`. Keys and tokens are taken out of whatever is read, here and nowhere else, so that no
page can forget it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from stepbase.errors import StoreError
from stepbase.protocol.redact import redact, redact_text

_log = logging.getLogger("stepbase.console")

_TIMEOUT_MS = 5_000
_IDLE_SECONDS = 60.0

Row = dict[str, Any]


class Reads:
    """The connection, and how it is asked.

    Args:
        secrets: What never leaves, besides what looks like a key: the engine's own.
    """

    def __init__(self, dsn: str, secrets: Iterable[str] = ()) -> None:
        self._dsn = dsn
        self._secrets = tuple(secrets)
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._closing: asyncio.TimerHandle | None = None

    async def all(self, sql: str, *args: object) -> Sequence[Row]:
        """Return the rows of a statement, without keys and tokens.

        Raises:
            StoreError: If the database is away, or takes longer than five seconds.
        """
        async with self._turn:
            try:
                connection = await self._open()
                rows = await connection.fetch(sql, *args)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                await self._close()
                raise _explained(error) from error
            self._closing = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._let_go)
        return [redact(dict(row), self._secrets) for row in rows]

    async def one(self, sql: str, *args: object) -> Row | None:
        """Return the first row of a statement, or None. Raises as `all` does."""
        rows = await self.all(sql, *args)
        return rows[0] if rows else None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        async with self._turn:
            await self._close()

    async def _open(self) -> asyncpg.Connection:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._connection is None or self._connection.is_closed():
            connection = await asyncpg.connect(self._dsn, timeout=10)
            # Not as parameters of the connection: a pooler may refuse those it does not know.
            await connection.execute(
                "set default_transaction_read_only = on; set jit = off;"
                # Look-ups by key, whatever the statistics of a queue say at the moment.
                " set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;"
                f" set statement_timeout = {_TIMEOUT_MS}; set timezone = 'UTC';"
                " set application_name = 'stepbase console'"
            )
            self._connection = connection
        return self._connection

    def _let_go(self) -> None:
        self._closing = None
        self._last = asyncio.ensure_future(self.close())

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=2)


def _explained(error: Exception) -> StoreError:
    if isinstance(error, asyncpg.QueryCanceledError):
        return StoreError(
            f"the database took longer than {_TIMEOUT_MS // 1000} s: narrow the search",
            sqlstate=error.sqlstate,
            is_transient=True,
        )
    _log.warning("the console cannot read", extra={"reason": str(error)[:200]})
    return StoreError(
        f"the database does not answer ({type(error).__name__}): {redact_text(str(error))}",
        sqlstate=getattr(error, "sqlstate", None),
        is_transient=True,
    )
