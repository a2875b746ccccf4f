"""The engine's hands: leases items while there are free slots, and wakes when there is work."""

import asyncio
import contextlib
import logging
from dataclasses import replace

import asyncpg

from stepbase import clock, failpoint
from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.executor import Executor
from stepbase.engine.item import Item
from stepbase.engine.lanes import front_of, waiting_for
from stepbase.engine.registry import Registry
from stepbase.engine.settings import Settings
from stepbase.engine.store import Store, Tick
from stepbase.errors import StoreError

_log = logging.getLogger("stepbase.engine.worker")

_LEASE_AT_ONCE = 64
_PATIENCE = 0.025  # seconds that a free slot waits, in a backlog, for others to be filled with it


class Worker:
    """Leases and executes items, at most `settings.max_calls` at once.

    Work arrives in four ways: a run this engine just started (`reserve` and `launch`), a
    notification (`wake`), a timer this engine knows of, and the listener's tick every few seconds
    (`on_tick`), which also finds what the others missed.
    """

    def __init__(self, store: Store, registry: Registry, executor: Executor, settings: Settings):
        self._store = store
        self._registry = registry
        self._executor = executor
        self._settings = settings
        self._free = settings.max_calls
        self._flights: dict[asyncio.Task[None], tuple[Item, float]] = {}
        self._wake = asyncio.Event()
        self._has_work = False
        self._freed: set[str] = set()  # lanes in which calls have ended
        self._next_due: float | None = None  # by clock.monotonic()
        self.is_stopping = False
        self._hands_over = False
        self._has_stopped = asyncio.Event()
        self.has_backlog = False

    @property
    def in_flight(self) -> int:
        """How many items are being worked on."""
        return len(self._flights)

    def wake(self) -> None:
        """There may be ready items: look soon."""
        self._store.turns.restart()
        self._has_work = True
        self._wake.set()

    def on_tick(self, tick: Tick) -> None:
        """Take in what a look at the queue has shown."""
        if tick.has_ready or tick.has_lanes:
            self.wake()
        if tick.seconds is not None:
            self.due_in(tick.seconds)

    def due_in(self, seconds: float) -> None:
        """A timer will fire in so many seconds.

        Only ever moves the next look forward: a tick may have been taken before a timer of our own was
        written, and must not put it off. A look too many costs one statement.
        """
        due = clock.monotonic() + seconds
        if self._next_due is None or due < self._next_due:
            self._next_due = due
            self._wake.set()

    def reserve(self, wanted: int) -> int:
        """Take free slots for runs that are about to start here; none while others wait."""
        if self.has_backlog or self.is_stopping:
            return 0
        count = min(wanted, self._free)
        self._free -= count
        return count

    def release(self, count: int) -> None:
        """Give reserved slots back."""
        self._free += count
        if count and self.has_backlog:
            self.wake()

    def launch(self, item: Item) -> None:
        """Work on an item whose slot is already taken."""
        task = asyncio.create_task(self._execute(item))
        self._flights[task] = (item, clock.monotonic())
        task.add_done_callback(self._landed)

    async def _execute(self, item: Item) -> None:
        try:
            effects = await self._executor.execute(item)
        except StoreError as error:
            if not self.is_stopping:
                _log.error("item left to its lease", extra={"reason": str(error)})
            return
        if effects is not None:
            self._after(item, effects)

    def _after(self, item: Item, effects: Settlement) -> None:
        if effects.verdict is Verdict.END and item.place is not None:
            # Another run may start now.
            front = front_of(item.function.function_id, item.function.config.limits)
            self._freed.add(waiting_for(front, item.lane, item.place))
            self.wake()
        if effects.verdict in (Verdict.READY, Verdict.YIELD):
            self.has_backlog = self._hands_over = True
            self.wake()
        elif effects.verdict is Verdict.TIMER and effects.delay is not None:
            self.due_in(effects.delay)
        elif effects.verdict is Verdict.TIMER and effects.due is not None:
            self.due_in((effects.due - clock.utcnow()).total_seconds())
        for new in effects.items:
            if new.delay is not None:
                self.due_in(new.delay)
            elif new.due is not None:
                self.due_in((new.due - clock.utcnow()).total_seconds())
            else:
                self.wake()
        if any(step.status in ("done", "failed") for step in effects.steps):
            # It may have closed the last open step: the parked call is ready.
            self.wake()

    def _landed(self, task: asyncio.Task[None]) -> None:
        item, _ = self._flights.pop(task)
        self._free += 1
        if item.lane is not None:
            # Another call of its limits may be made now, here or elsewhere.
            self._freed.add(item.lane)
            self._hands_over = True
        if self.has_backlog or (item.lane is not None and self._store.turns.has_lanes):
            self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an item failed inside the engine", exc_info=error)

    async def run(self) -> None:
        """Lease and execute until cancelled."""
        extending = asyncio.create_task(self._extend_leases())
        try:
            while not self.is_stopping:
                await self._wait()
                if self.is_stopping:
                    break
                try:
                    await self._lease()
                except StoreError as error:
                    _log.warning("lease failed", extra={"reason": str(error)[:200]})
                    await asyncio.sleep(0.2)
                    self.wake()
            # Nothing is leased from here on, but leases are kept while calls go on.
            self._has_stopped.set()
            await extending
        finally:
            self._has_stopped.set()
            extending.cancel()

    async def _wait(self) -> None:
        """Sleep until there is work and a slot; in a backlog a moment more, to fill several at once."""
        look_at: float | None = None
        while True:
            await self._sleep(look_at)
            if self.is_stopping:
                return
            now = clock.monotonic()
            if self._next_due is not None and now >= self._next_due:
                self._next_due = None
                self._has_work = True
            if not self._has_work or not self._free:
                # Without a slot nothing can be leased: the next call that lands wakes us.
                self.has_backlog = self.has_backlog or self._has_work
                look_at = None
                continue
            if look_at is None:
                look_at = now + _PATIENCE
            # Calls may be long: were there no end to it, they would keep the slots beside them empty.
            enough = max(1, self._settings.max_calls // 4) if self.has_backlog else 1
            if self._free >= enough or now >= look_at:
                self._has_work = False
                return

    async def _sleep(self, until: float | None) -> None:
        """Sleep until woken, until a timer is due, or until then, by clock.monotonic()."""
        times = [time for time in (until, self._next_due) if time is not None]
        timeout = max(0.0, min(times) - clock.monotonic()) if times else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        self._wake.clear()

    async def _lease(self) -> None:
        wanted = min(self._free, _LEASE_AT_ONCE)
        self._free -= wanted
        rows = []
        freed, self._freed = self._freed, set()
        try:
            rows = await self._store.lease(wanted, freed)
        finally:
            self._free += wanted - len(rows)
        if rows:
            failpoint.hit("engine.after_lease")
        self.has_backlog = len(rows) == wanted
        for row in rows:
            item = await self._item(row)
            if item is None:
                self._free += 1
            else:
                self.launch(item)
        if self.has_backlog:
            self.wake()
            return
        if self._freed and self._store.turns.has_lanes:
            # While we asked: it may have been counted as going on.
            self.wake()
        if self._store.turns.again is not None:
            self.due_in(self._store.turns.again)
        if self._next_due is None:
            tick = await self._store.tick(None)
            # The lanes have just been looked through.
            self.on_tick(replace(tick, has_lanes=False))

    async def _item(self, row: asyncpg.Record) -> Item | None:
        try:
            function = await self._registry.get(row["function_id"])
        except StoreError as error:
            # Raised on, it would cost the slots of all that were leased with it.
            function, reason = None, str(error)[:200]
        else:
            reason = "its configuration cannot be read"
        if function is None:
            # The lease runs out and is tried again later.
            _log.error(
                "function of a run is unknown", extra={"run_id": row["run_id"], "reason": reason}
            )
            return None
        return Item(
            run_id=row["run_id"],
            job=row["job"],
            kind=row["kind"],
            step=row["step"],
            gen=row["gen"],
            attempt=row["attempt"],
            function=function,
            event=row["event"],
            losses=row["losses"],
            hops=row["hops"],
            lane=row["lane"],
            place=row["place"],
            waited=row["waited"],
            outage=row["outage_seconds"] or 0.0,
            version=row["req_version"],
            has_started=row["has_started"],
            is_overdue=row["is_overdue"],
            state_bytes=row["state_bytes"],
            memos=list(zip(row["hashes"] or (), row["memos"] or (), strict=True)),
            open=set(row["open_hashes"] or ()),
            planning=row["planning"],
            has_planned=row["has_planned"],
            other_event=row["other_event"],
            pause_kind=row["pause_kind"],
            residual=row["residual"],
            edits=row["edits"],
            batch=row["more_events"] or [],
        )

    async def _extend_leases(self) -> None:
        third = self._settings.lease.total_seconds() / 3
        while True:
            await asyncio.sleep(third)
            now = clock.monotonic()
            old = [item for item, since in self._flights.values() if now - since > third]
            if not old:
                continue
            try:
                await self._store.extend([(i.run_id, i.job, i.gen) for i in old])
            except StoreError as error:
                _log.warning("leases not extended", extra={"reason": str(error)[:200]})

    async def drain(self, seconds: float) -> None:
        """Lease nothing more and wait for the calls in flight, at most so long.

        Their runs go on elsewhere: other engines are told, and a run that only waits for its next call
        is ready for them.
        """
        self.is_stopping = True
        self._hands_over = False
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_stopped.wait()
                while self._flights:
                    await asyncio.wait(list(self._flights))
        if self._flights:
            _log.warning("calls left to their leases", extra={"calls": len(self._flights)})
        if self._hands_over:
            with contextlib.suppress(StoreError):
                await self._store.wake_engines()
        for task in list(self._flights):
            task.cancel()
