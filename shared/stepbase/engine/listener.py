"""The engine's ear: one connection that listens, and looks at the queue every few seconds.

The tick runs on the listening connection on purpose: a listener that died without a word shows
itself there, and an idle engine needs no other statement. After every reconnect it listens again and
everything is woken, so a lost notification costs at most one tick.
"""

import asyncio
import logging
from collections.abc import Callable

import asyncpg

from stepbase.database.dberrors import NO_SESSION, POOLER_ERRORS
from stepbase.database.readers import alone, read_as
from stepbase.database.session import probe
from stepbase.engine.relay import IDLE
from stepbase.engine.store import Tick
from stepbase.errors import StoreError

_log = logging.getLogger("stepbase.engine.listener")

CHANNEL = "stepbase"


class Listener:
    """Listens on `stepbase`: payload q = ready items, c = functions changed, o = outbox rows, b = batches.

    Args:
        on_notify: Called with each payload, and with every one of them after a reconnect.
        on_tick: Called with the tick's result every `interval` seconds.
        is_idle: Whether the relay sleeps and outbox writers must notify.
    """

    def __init__(
        self,
        dsn: str,
        *,
        interval: float,
        on_notify: Callable[[str], None],
        on_tick: Callable[[Tick], None],
        is_idle: Callable[[], bool],
    ) -> None:
        self._dsn = dsn
        self._interval = interval
        self._on_notify = on_notify
        self._on_tick = on_tick
        self._is_idle = is_idle

    async def run(self, ready: asyncio.Event) -> None:
        """Listen until cancelled; sets `ready` when the first connection listens.

        Raises:
            StoreError: If notifications do not arrive: a transaction pooler sits in between. Or, at the
                start, if a relay reads the outbox (SB015).
        """
        delay = 0.1
        while True:
            try:
                await self._listen(ready)
            except POOLER_ERRORS as error:
                raise StoreError(
                    f"prepared statements {NO_SESSION}", sqlstate=error.sqlstate, is_transient=False
                ) from error
            except (
                OSError,
                TimeoutError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ) as error:
                _log.warning("listener lost its connection", extra={"reason": str(error)[:200]})
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            else:
                delay = 0.1

    async def _listen(self, ready: asyncio.Event) -> None:
        connection = await asyncpg.connect(
            self._dsn,
            command_timeout=30,
            server_settings={"application_name": "stepbase engine listener"},
        )
        try:
            await probe(connection, self._dsn)
            await self._read_outbox(connection, is_first=not ready.is_set())
            await connection.add_listener(CHANNEL, self._received)
            ready.set()
            for payload in ("c", "q", "o", "b"):
                self._on_notify(payload)
            while not connection.is_closed():
                row = await connection.fetchrow(
                    "select * from stepbase.tick($1)", IDLE if self._is_idle() else None
                )
                assert row is not None  # the function returns one row
                self._on_tick(Tick.of(row))
                await asyncio.sleep(self._interval)
        finally:
            connection.terminate()

    async def _read_outbox(
        self, connection: "asyncpg.Connection[asyncpg.Record]", *, is_first: bool
    ) -> None:
        """Say that this engine reads the outbox; one that has begun goes on, though somebody came between."""
        await read_as(connection, "engine")
        try:
            await alone(connection, "engine")
        except StoreError as error:
            if is_first or error.is_transient:
                raise
            _log.error("the outbox has another reader", extra={"reason": str(error)})

    def _received(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._on_notify(str(payload))
