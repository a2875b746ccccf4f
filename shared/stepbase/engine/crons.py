"""The engine's alarm clock: fires schedules when they are due, once across all engines."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from stepbase import clock, failpoint
from stepbase.engine.schedule import Due, move
from stepbase.engine.store import Store
from stepbase.errors import StoreError

_log = logging.getLogger("stepbase.engine.crons")

_AT_ONCE = 256
# What is due still is being fired by another engine: no reason to ask without a pause.
_AGAIN_SECONDS = 0.05


class Crons:
    """Sleeps until a schedule is due; the store decides whose firing counts.

    Every engine keeps the same hours, so one that dies is not missed. It learns of the next instant by the
    listener's tick (`due_in`) and of new schedules by the notification of a sync (`wake`).
    """

    def __init__(self, store: Store, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id
        self._changed = asyncio.Event()
        self._due: float | None = None  # by clock.monotonic()

    def wake(self) -> None:
        """Schedules may have changed: look soon."""
        self.due_in(0.0)

    def due_in(self, seconds: float | None) -> None:
        """The next schedule fires in so many seconds, or none does."""
        due = None if seconds is None else clock.monotonic() + seconds
        if due is not None and (self._due is None or due < self._due):
            self._due = due
            self._changed.set()

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            await self._wait()
            try:
                while await self._fire():
                    pass
                seconds = (await self._store.tick(None)).cron_seconds
                self.due_in(None if seconds is None else max(seconds, _AGAIN_SECONDS))
            except StoreError as error:
                _log.warning("schedules wait for the database", extra={"reason": str(error)[:200]})
                await asyncio.sleep(0.5)
                self.wake()

    async def _wait(self) -> None:
        while True:
            self._changed.clear()
            left = None if self._due is None else self._due - clock.monotonic()
            if left is not None and left <= 0:
                self._due = None
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    async def _fire(self) -> bool:
        """Fire what is due; return whether there may be more."""
        rows = await self._store.due_crons(_AT_ONCE)
        if not rows:
            return False
        moves = [move(Due(**row), self._new_id()) for row in rows]
        failpoint.hit("crons.before_fire")
        moved = await self._store.fire_crons(moves)
        failpoint.hit("crons.after_fire")
        _log.debug("schedules fired", extra={"due": len(rows), "moved": moved})
        return len(rows) == _AT_ONCE and moved > 0
