"""The relay's loop: lease what is due, have it delivered, sleep while there is nothing.

It holds at most `in_flight` batches. While the receiver is away it holds one event. Nothing it knows is
needed by the next relay: what was leased by one that died is due again when the lease ends.
"""

import asyncio
import contextlib
import logging
import secrets
from datetime import timedelta
from typing import Final

import asyncpg

from stepbase import clock
from stepbase.database.readers import alone, read_as
from stepbase.database.session import probe
from stepbase.errors import StoreError
from stepbase.relay.api import EventApi
from stepbase.relay.delivery import Deliverer
from stepbase.relay.metrics import Metrics
from stepbase.relay.outbox import Outbox, explained
from stepbase.relay.pace import Pace
from stepbase.relay.settings import Settings

_log = logging.getLogger("stepbase.relay")

_CHANNEL: Final = "stepbase"
_WAKE: Final = "o"
# A writer that looked at the idle flag just before we raised it does not notify; it commits within
# moments, so we look again a few times before we trust the flag.
_SECOND_LOOKS: Final = (0.02, 0.1, 0.5)
_AWAY_SECONDS: Final = 0.5
_LISTENER: Final = "stepbase relay listener"
_NO_CONNECTION = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Relay:
    """Moves outbox rows to an event API until it is stopped; any number may share an outbox."""

    def __init__(self, settings: Settings, outbox: Outbox, api: EventApi, metrics: Metrics) -> None:
        self._settings = settings
        self._outbox = outbox
        self.pace = Pace(settings.batch_events, settings.batch_bytes)
        self._deliverer = Deliverer(settings, outbox, api, self.pace, metrics)
        self._owner = secrets.token_hex(8)
        self._batches = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.is_stopping = False

    @property
    def in_flight(self) -> int:
        """How many batches are under way."""
        return len(self._under_way)

    def stop(self) -> None:
        """Take nothing more, and end when what is under way has ended."""
        self.is_stopping = True
        self._changed.set()

    def wake(self) -> None:
        """There may be something to take."""
        self._changed.set()

    async def run(self) -> None:
        """Relay until stopped.

        Raises:
            StoreError: If the outbox can no longer be used: another project's, or another schema.
        """
        looks = 0
        try:
            while not self.is_stopping:
                self._changed.clear()
                pause = self._pause()
                if pause is None or pause > 0:
                    await self._sleep(pause)
                    continue
                try:
                    looks = 0 if await self._take() else await self._doze(looks)
                except StoreError as error:
                    if not error.is_transient:
                        raise explained(error) from error
                    _log.warning("relay waits for the database", extra={"reason": str(error)[:200]})
                    await asyncio.sleep(_AWAY_SECONDS)
            await self._drain()
        finally:
            await self._break_off()

    def _pause(self) -> float | None:
        """Return the seconds until the next batch may be taken; None if one must end before."""
        allowed = 1 if self.pace.is_troubled else self._settings.in_flight
        if len(self._under_way) >= allowed:
            return None
        return self.pace.pause(clock.monotonic())

    async def _sleep(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _take(self) -> bool:
        """Lease a batch and begin to deliver it; return whether there was anything."""
        leased_at = clock.monotonic()
        self._batches += 1
        # Each batch has a token of its own: what is said of one that ended too late changes nothing.
        token = f"{self._owner}-{self._batches}"
        rows = await self._outbox.take(
            self.pace.size, self.pace.most_bytes, token, self._settings.lease
        )
        if not rows:
            return False
        task = asyncio.create_task(self._deliverer.deliver(rows, token, leased_at))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return True

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("batch not written down", extra={"reason": str(error)[:400]})

    async def _doze(self, looks: int) -> int:
        """Say that we sleep, and sleep until there is something; return how often we have slept so."""
        due = await self._outbox.doze(timedelta(seconds=self._settings.poll * 1.5))
        longest = _SECOND_LOOKS[looks] if looks < len(_SECOND_LOOKS) else self._settings.poll
        await self._sleep(longest if due is None else min(due, longest))
        return looks + 1

    async def listen(self) -> None:
        """Be woken by the writers' notifications, until cancelled.

        Raises:
            StoreError: If notifications do not arrive here, or the outbox is another project's by now, or an
                engine reads it.
        """
        while True:
            try:
                await self._listen()
            except StoreError as error:
                if not error.is_transient:
                    raise explained(error) from error
            except _NO_CONNECTION as error:
                _log.warning("listener lost its connection", extra={"reason": str(error)[:200]})
            await asyncio.sleep(_AWAY_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._settings.database_url,
            command_timeout=30,
            server_settings={"application_name": _LISTENER},
        )
        try:
            await probe(connection, self._settings.database_url)
            await read_as(connection, "relay")
            await connection.add_listener(_CHANNEL, self._notified)
            while not connection.is_closed():
                # A database restored under us is another project's now; and a dead session shows itself.
                await alone(connection, "relay")
                await self._outbox.claim_again(connection)
                self.wake()
                await asyncio.sleep(self._settings.poll)
        finally:
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == _WAKE:
            self.wake()

    async def _drain(self) -> None:
        """Let requests under way end, for a while."""
        if self._under_way:
            _log.info("draining", extra={"batches": len(self._under_way)})
            await asyncio.wait(self._under_way, timeout=self._settings.drain_seconds)

    async def _break_off(self) -> None:
        """Break off what is still under way; it gives back what it has not sent."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
