"""Debounced events and batches: starts their runs when they are due.

All state is in the table `buffers`. Any engine takes what is due, for the time of a lease, and starts the
run in the statement that removes the buffer: so a run starts once, whichever engine dies in between.
"""

import asyncio
import json
import logging

import asyncpg

from stepbase import clock, failpoint
from stepbase.engine import expr
from stepbase.engine.intake import Intake
from stepbase.engine.registry import Registry
from stepbase.engine.starts import Buffered, Event, Start, event_time, plan_buffered
from stepbase.engine.store import Store
from stepbase.errors import StoreError

_log = logging.getLogger("stepbase.engine.buffers")

_AT_ONCE = 8
_PAUSE_SECONDS = 0.5


class Buffers:
    """Takes due buffers and has the intake start their runs."""

    def __init__(self, store: Store, registry: Registry, intake: Intake) -> None:
        self._store = store
        self._registry = registry
        self._intake = intake
        self._due: float | None = None  # by clock.monotonic()
        self._sooner = asyncio.Event()

    def due_in(self, seconds: float) -> None:
        """A buffer may be due in so many seconds: look then, or before."""
        due = clock.monotonic() + seconds
        if self._due is None or due < self._due:
            self._due = due
            self._sooner.set()

    async def run(self) -> None:
        """Start what is due, until cancelled."""
        while True:
            await self._until_due()
            self._due = None
            try:
                await self._look()
            except StoreError as error:
                _log.warning("buffers not looked at", extra={"reason": str(error)[:200]})
                self.due_in(_PAUSE_SECONDS)

    async def _until_due(self) -> None:
        while self._due is None or self._due > clock.monotonic():
            self._sooner.clear()
            left = None if self._due is None else self._due - clock.monotonic()
            try:
                async with asyncio.timeout(left):
                    await self._sooner.wait()
            except TimeoutError:
                return

    async def _look(self) -> None:
        rows = await self._store.take_buffers(_AT_ONCE)
        if rows:
            failpoint.hit("buffers.after_take")
        await asyncio.gather(*(self._start(row) for row in rows))
        seconds = await self._store.next_buffer()
        if seconds is not None:
            self.due_in(max(seconds, 0.0))

    async def _start(self, row: asyncpg.Record) -> None:
        """Start one buffer's run; what fails is taken again when its lease has ended."""
        try:
            if await self._registry.get(row["function_id"]) is None:
                raise StoreError("its function is unknown", sqlstate=None, is_transient=False)
            event = _stored(row["event_ids"][0], row["payloads"][0])
            await self._intake.begin([event], lambda: [self._plan(row, event)])
        except StoreError as error:
            _log.error("buffer put off", extra={"run_id": row["id"], "reason": str(error)[:200]})

    def _plan(self, row: asyncpg.Record, event: Event) -> Start:
        is_batch = row["kind"] == "batch"
        buffer = Buffered(
            id=row["id"],
            gen=row["gen"],
            event_ids=tuple(row["event_ids"]) if is_batch else (),
            payloads=tuple(row["payloads"]) if is_batch else (),
        )
        function = self._registry.functions.by_id[row["function_id"]]
        return plan_buffered(buffer, event, function, expr.holds, clock.utcnow(), expr.value_of)


def _stored(internal_id: str, payload: str) -> Event:
    """Return an event that is in the store already."""
    parsed = json.loads(payload)
    return Event(
        id=internal_id,
        event_id=None,
        name=parsed["name"],
        payload=payload,
        parsed=parsed,
        ts=event_time(parsed["ts"]),
    )
