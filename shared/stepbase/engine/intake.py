"""Events in: ids, matching functions, one batched statement, and the runs it starts at once."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepbase import clock, failpoint
from stepbase.engine import expr, schedule
from stepbase.engine.batcher import Batcher
from stepbase.engine.item import Item
from stepbase.engine.registry import Registry
from stepbase.engine.starts import Event, Ingest, Start, event_time, plan_starts
from stepbase.engine.store import STALE, Store
from stepbase.engine.worker import Worker
from stepbase.errors import StoreError
from stepbase.protocol.event import EventIn, payload
from stepbase.protocol.ids import seeded_event_ids
from stepbase.protocol.jsontext import dumps

_log = logging.getLogger("stepbase.engine.intake")

_GROUP = 256
_WAITING_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sent:
    """An event with what the sender does not say: where it came from."""

    event: EventIn
    outbox_id: str | None = None


class Intake:
    """Takes events from the API and the relay.

    Args:
        patience: Seconds for which events wait for the database.
        on_waiting: Told in how many seconds a buffer may be due.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        worker: Worker,
        new_id: Callable[[], str],
        *,
        patience: float,
        on_waiting: Callable[[float], None],
    ) -> None:
        self._store = store
        self._registry = registry
        self._worker = worker
        self._new_id = new_id
        self._patience = patience
        self._on_waiting = on_waiting
        self._batcher: Batcher[list[Event], None] = Batcher(self._flush)

    async def accept(self, sent: Sequence[Sent], *, seed: str | None = None) -> list[str]:
        """Store events and start their runs; return the internal ids, in order, once committed.

        Raises:
            StoreError: If the database stays away for `patience`, or too much is waiting for it
                (`is_transient`): the sender keeps the events and sends them again. Otherwise one of
                them cannot be stored.
        """
        if self._batcher.waiting_bytes > _WAITING_BYTES:
            raise StoreError(
                "more than 64 MiB of events wait for the database: send again later",
                sqlstate=None,
                is_transient=True,
            )
        ids = seeded_event_ids(seed, len(sent)) if seed else None
        ids = ids or [self._new_id() for _ in sent]
        now_ms = clock.now_ms()
        try:
            events = [_event(each, id_, now_ms) for each, id_ in zip(sent, ids, strict=True)]
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"an event cannot be written as JSON: {error}", sqlstate=None, is_transient=False
            ) from error
        groups = [events[i : i + _GROUP] for i in range(0, len(events), _GROUP)]
        sizes = [sum(len(each.payload) for each in group) for group in groups]
        await asyncio.gather(*(self._batcher.add(g, n) for g, n in zip(groups, sizes, strict=True)))
        return ids

    async def _flush(self, groups: Sequence[list[Event]]) -> list[None]:
        events = [event for group in groups for event in group]

        def plan() -> list[Start]:
            return plan_starts(
                events,
                self._registry.functions,
                expr.holds,
                self._new_id,
                clock.utcnow(),
                expr.value_of,
            )

        await self.begin(events, plan)
        return [None] * len(groups)

    async def begin(self, events: Sequence[Event], plan: Callable[[], list[Start]]) -> None:
        """Store events and start runs; the plan is made again when the functions have changed.

        Raises:
            StoreError: As `accept` does.
        """
        deadline = clock.monotonic() + self._patience
        delay = 0.05
        epoch, starts = 0, None
        while True:
            if starts is None:
                epoch = self._registry.epoch
                starts = plan()
            try:
                await self._write(epoch, Ingest(events, starts))
                return
            except StoreError as error:
                if error.sqlstate == STALE:
                    await self._registry.reload(unless_epoch=epoch)
                    starts = None
                elif error.is_transient and clock.monotonic() < deadline:
                    # Perhaps it was written and only the answer was lost: the same ids again.
                    _log.warning("database away, events wait", extra={"reason": str(error)[:200]})
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 1.0)
                else:
                    raise

    async def _write(self, epoch: int, batch: Ingest) -> None:
        now = [start for start in batch.starts if start.due is None and start.waits is None]
        ready = [start for start in now if start.lane.name is None]
        reserved = self._worker.reserve(len(ready))
        for place, start in enumerate(ready):
            start.is_direct = place < reserved
        launched = 0
        try:
            failpoint.hit("engine.before_ingest")
            rows = await failpoint.during("engine.in_ingest", self._store.ingest(epoch, batch))
            failpoint.hit("engine.after_ingest")
            for row in rows:
                start = batch.starts[row["start"] - 1]
                if row["is_leased"] and launched < reserved:
                    self._worker.launch(_item(start, batch.events[start.event - 1], row["gen"]))
                    launched += 1
        finally:
            self._worker.release(reserved - launched)
        if len(ready) > reserved:
            self._worker.has_backlog = True
            self._worker.wake()
        if len(now) > len(ready):
            self._worker.wake()
        for start in batch.starts:
            if start.waits is not None:
                self._on_waiting(start.waits.period / 1_000_000)
                continue
            if start.due is not None:
                self._worker.due_in((start.due - clock.utcnow()).total_seconds())
            if start.deadline is not None:
                self._worker.due_in(start.deadline)


def _event(sent: Sent, internal_id: str, now_ms: int) -> Event:
    target, event = schedule.addressed(sent.event)
    seen = payload(event, internal_id, now_ms)
    return Event(
        id=internal_id,
        event_id=sent.event.id,
        name=sent.event.name,
        payload=dumps(seen),
        parsed=seen,
        ts=event_time(seen["ts"]),
        source="api" if sent.outbox_id is None else "outbox",
        outbox_id=sent.outbox_id,
        target=target,
    )


def _item(start: Start, event: Event, gen: int) -> Item:
    return Item(
        run_id=start.run_id,
        job="main",
        kind="edge",
        step=None,
        gen=gen,
        attempt=0,
        function=start.function,
        event=event.payload,
        batch=list(start.buffer.payloads) if start.buffer is not None else [],
    )
