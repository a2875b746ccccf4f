"""Connections to the database, and running one statement as a role.

A request costs two round trips. The first sets role, claims and timeouts for the session (every
setting every time, so nothing of the previous request is left); the second is the statement, whose
implicit transaction commits before its result is complete. PostgREST does the same inside an
explicit transaction, four round trips (measured: 250 µs here, 430 µs there, for a small RPC over
a unix socket). Only a request that must look at the result before it may commit takes that form.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from stepbase import clock
from stepbase.local.gateway import errors
from stepbase.local.gateway.catalogue import Catalogue, load
from stepbase.local.gateway.errors import ApiError
from stepbase.local.gateway.table import Statement

_log = logging.getLogger("stepbase.local.gateway")

_SETTINGS = (
    "select set_config(name, value, false) from unnest($1::text[], $2::text[]) as s(name, value)"
)
_CHANNEL = "pgrst"
_FIRST_RETRY = 0.1
_LAST_RETRY = 2.0
_GONE = (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.CannotConnectNowError)
_BROKEN = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, *_GONE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave; see `table`."""

    body: str
    rows: int
    total: int | None
    headers: str | None
    status: str | None


class Database:
    """A pool of connections that comes back by itself, and the catalogue."""

    def __init__(
        self, dsn: str, schemas: Sequence[str], *, size: int = 10, patience: float = 10.0
    ) -> None:
        self._dsn = dsn
        self._schemas = schemas
        self._idle: list[asyncpg.Connection] = []
        self._slots = asyncio.Semaphore(size)
        self._patience = patience
        self._catalogue: Catalogue | None = None
        self._changes = 0
        self._loading = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to watch for schema changes; needs no database yet."""
        self._listener = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Close every connection."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        while self._idle:
            await _close(self._idle.pop())

    async def catalogue(self, *, newer_than: Catalogue | None = None) -> Catalogue:
        """Return the catalogue; loaded again if it is still the one in `newer_than`.

        Raises:
            ApiError: 503 while it cannot be loaded.
        """
        while self._catalogue is None or self._catalogue is newer_than:
            async with self._loading:
                if self._catalogue is None or self._catalogue is newer_than:
                    changes = self._changes
                    found = await self._load()
                    # A change while it was being read may be only half in it.
                    self._catalogue = found if changes == self._changes else None
        return self._catalogue

    async def run(
        self,
        settings: Mapping[str, str],
        statement: Statement,
        *,
        read_only: bool,
        rows: int | None = None,
        rollback: bool = False,
    ) -> Answer:
        """Run `statement` under `settings` (the role among them) in a transaction of its own.

        Args:
            settings: Session settings by name.
            statement: What to run.
            read_only: Whether the transaction may not write.
            rows: If given, commit only if the result has so many rows.
            rollback: Whether to undo everything in the end.

        Raises:
            ApiError: 503 if the database cannot be reached or goes away, 504 if no connection
                becomes free.
            asyncpg.PostgresError: what the statement raised.
        """
        settings = {**settings, "default_transaction_read_only": "on" if read_only else "off"}
        statement = _for_role(statement, settings["role"])
        async with self._connection(settings) as connection:
            if rows is None and not rollback:
                record = await connection.fetchrow(statement.sql, *statement.values)
            else:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    record = await connection.fetchrow(statement.sql, *statement.values)
                    keep = not rollback and (rows is None or (record and record["rows"] == rows))
                except BaseException:
                    await transaction.rollback()
                    raise
                await (transaction.commit() if keep else transaction.rollback())
        assert record is not None, "every statement aggregates to one row"
        return Answer(
            record["body"] or "null",
            record["rows"],
            record["total"],
            record["headers"],
            record["status"],
        )

    @contextlib.asynccontextmanager
    async def _connection(self, settings: Mapping[str, str]) -> AsyncIterator[asyncpg.Connection]:
        try:
            async with asyncio.timeout(self._patience):
                await self._slots.acquire()
        except TimeoutError as error:
            raise errors.saturated() from error
        connection: asyncpg.Connection | None = None
        try:
            connection = await self._take(settings)
            yield connection
        except _BROKEN as error:
            if _is_raised_by_sql(error, connection):
                raise
            if connection is not None:
                connection.terminate()
            raise errors.lost(str(error)) from error
        except BaseException as error:
            if connection is not None and not isinstance(error, asyncpg.PostgresError):
                connection.terminate()
            raise
        finally:
            if connection is not None and not connection.is_closed():
                self._idle.append(connection)
            self._slots.release()

    async def _take(self, settings: Mapping[str, str]) -> asyncpg.Connection:
        """Return a connection with `settings`; one that died while idle is replaced unseen."""
        names, values = list(settings), list(settings.values())
        while True:
            is_new = not self._idle
            connection = await self._connect() if is_new else self._idle.pop()
            if connection.is_closed():
                continue
            try:
                await connection.fetch(_SETTINGS, names, values)
            except _BROKEN:
                connection.terminate()
                if is_new:
                    raise
            except asyncpg.PostgresError:
                self._idle.append(connection)
                raise
            else:
                return connection

    async def _connect(self) -> asyncpg.Connection:
        """Connect, and become `authenticator`: the role that may do nothing but switch.

        Where the login is no superuser (a hosted project) it keeps its own name.
        """
        try:
            connection = await asyncpg.connect(
                self._dsn,
                timeout=10,
                statement_cache_size=1000,
                server_settings={"application_name": "stepbase-gateway"},
            )
            if await connection.fetchval("select current_setting('is_superuser') = 'on'"):
                await connection.execute("set session authorization authenticator")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise errors.unreachable(str(error)) from error
        return connection

    async def _load(self) -> Catalogue:
        begin = clock.monotonic()
        try:
            connection = await asyncpg.connect(self._dsn, timeout=10)
            try:
                found = await load(connection, self._schemas)
            finally:
                await _close(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise errors.no_catalogue(str(error)) from error
        milliseconds = round((clock.monotonic() - begin) * 1000)
        _log.info("schema cache loaded", extra={"tables": len(found.tables), "ms": milliseconds})
        return found

    async def _listen(self) -> None:
        """Forget the catalogue whenever somebody notifies `pgrst`, and after every reconnect."""
        delay = _FIRST_RETRY
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=10)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_RETRY)
                continue
            delay = _FIRST_RETRY
            over = asyncio.Event()
            connection.add_termination_listener(lambda _, over=over: over.set())
            try:
                await connection.add_listener(_CHANNEL, self._forget)
                self._forget()
                with contextlib.suppress(ApiError):
                    await self.catalogue()
                await over.wait()
            except _BROKEN:
                pass
            finally:
                await _close(connection)

    def _forget(self, *_: object) -> None:
        self._changes += 1
        self._catalogue = None


def _for_role(statement: Statement, role: str) -> Statement:
    """Return `statement` with a text that only this role sends.

    A prepared statement's plan may hold a function's body, or its result, in place of the call;
    whether the role may execute it was checked when the plan was made. One plan must not serve two
    roles.
    """
    return Statement(f"{statement.sql} /* {role.encode().hex()} */", statement.values)


def _is_raised_by_sql(error: BaseException, connection: asyncpg.Connection | None) -> bool:
    """Say whether a connection error is only what an SQL function raised, e.g. about dblink."""
    return (
        isinstance(error, asyncpg.PostgresError)
        and not isinstance(error, _GONE)
        and connection is not None
        and not connection.is_closed()
    )


async def _close(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(Exception):
        await connection.close(timeout=2)
