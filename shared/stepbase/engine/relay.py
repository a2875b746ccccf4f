"""The outbox of the engine's own database: rows become events, in one transaction with their deletion."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from stepbase import failpoint
from stepbase.engine.intake import Intake, Sent
from stepbase.engine.store import Store
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol.event import decode_event
from stepbase.protocol.jsontext import loads

_log = logging.getLogger("stepbase.engine.relay")

_TAKE = 256
IDLE = timedelta(seconds=15)
# A writer that looked at the idle flag just before we raised it does not notify; it commits within
# moments, so we look again a few times before we trust the flag.
_SECOND_LOOKS = (0.02, 0.1, 0.5)


class Relay:
    """Moves outbox rows to events; sleeps while there are none, woken by the writers' notification."""

    def __init__(self, store: Store, intake: Intake, token: str) -> None:
        self._store = store
        self._intake = intake
        self._token = token
        self._wake = asyncio.Event()
        self.is_idle = False

    def wake(self) -> None:
        """There may be outbox rows: look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Relay until cancelled."""
        while True:
            try:
                await self._drain()
                await self._sleep()
            except StoreError as error:
                _log.warning("relay waits for the database", extra={"reason": str(error)[:200]})
                await asyncio.sleep(0.5)

    async def _drain(self) -> None:
        while await self._move_some():
            pass

    async def _sleep(self) -> None:
        """Declare ourselves idle, look again for who missed that, and wait."""
        self._wake.clear()
        await self._store.tick(IDLE)
        self.is_idle = True
        for pause in _SECOND_LOOKS:
            if await self._move_some():
                self.is_idle = False
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            if self._wake.is_set():
                break
        await self._wake.wait()
        self.is_idle = False

    async def _move_some(self) -> bool:
        """Move up to one batch; return whether there was anything."""
        rows = await self._store.outbox_take(_TAKE, self._token, self._store.lease_time)
        if not rows:
            return False
        failpoint.hit("relay.after_take")
        await self._intake_or_give_back(rows)
        return True

    async def _intake_or_give_back(self, rows: Sequence[asyncpg.Record]) -> None:
        sent = []
        for row in rows:
            try:
                event = decode_event(loads(row["payload"]), is_internal=True)
            except (ProtocolError, ValueError, RecursionError) as error:
                _log.error("outbox row is no event", extra={"id": row["id"], "reason": str(error)})
                await self._store.outbox_fail(row["id"], str(error), None, self._token)
                continue
            sent.append(Sent(event, row["id"]))
        try:
            await self._intake.accept(sent)
        except StoreError as error:
            if error.is_transient:
                raise
            await self._one_by_one(sent)

    async def _one_by_one(self, sent: Sequence[Sent]) -> None:
        """A batch was refused: find the event that is at fault and make it a dead letter."""
        for each in sent:
            try:
                await self._intake.accept([each])
            except StoreError as error:
                if error.is_transient:
                    raise
                assert each.outbox_id is not None  # the relay sends nothing else
                _log.error(
                    "event refused", extra={"id": each.outbox_id, "reason": str(error)[:200]}
                )
                await self._store.outbox_fail(each.outbox_id, str(error), None, self._token)
