"""A server in memory: the engine's own decisions, applied to dicts instead of tables. Pure.

It takes events, says which calls can be made, and takes their replies; time passes only when it is told
so. Nothing is decided here: which runs an event starts is `engine.starts`, what a reply means is
`engine.decide`, and this module writes what they say, as `stepbase.settle` does in SQL.

::

    server.accept([EventIn("shop/order.placed", {"id": 7})])
    leased = server.lease(server.ready()[0])      # post leased.body to the function
    server.settle(leased, decode_reply(…))        # a lost reply: lease again; a repeated one: no effect
    server.advance(server.next_due())

Not there: concurrency, throttling and the other flow control, schedules, batches.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from stepbase.engine.decide import decide
from stepbase.engine.effects import Settlement
from stepbase.engine.opening import State
from stepbase.engine.starts import Event, Function, Functions, event_time, plan_starts
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.call import encode_call
from stepbase.protocol.event import EventIn, payload
from stepbase.protocol.ids import ulid
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.op import Op
from stepbase.protocol.reply import Reply
from stepbase.testing.matching import Holds
from stepbase.testing.state import Leased, QueueItem, RunState
from stepbase.testing.store import MAIN, Store

_DEDUPE = timedelta(hours=24)


class Server:
    """Takes events and replies, gives calls.

    Args:
        functions: What can be started.
        now: Where its clock begins.
        holds: Evaluates a CEL expression over named roots.
        check: Raises ProtocolError for an expression that cannot be evaluated.
        chance: Uniform in [0, 1): spreads the pauses between attempts.
        retry_interval: Fixed seconds between attempts, or None for the schedule.
        checkpointing: Let calls report finished steps while they go on (`save`).

    Attributes:
        events: Every event, those of the server's own included, in order.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        now: datetime,
        *,
        holds: Holds,
        check: Callable[[str], object],
        chance: Callable[[], float] = lambda: 0.0,
        retry_interval: float | None = None,
        checkpointing: bool = False,
    ) -> None:
        self._functions = Functions(functions)
        self._store = Store(now, holds)
        self._holds = holds
        self._check = check
        self._chance = chance
        self._retry_interval = retry_interval
        self._checkpointing = checkpointing
        self.events: list[Event] = []
        self._started: dict[tuple[str, str], datetime] = {}
        self._numbers = itertools.count(1)

    @property
    def now(self) -> datetime:
        """What time it is."""
        return self._store.now

    @property
    def runs(self) -> Mapping[str, RunState]:
        """All runs by id, in the order they were started."""
        return self._store.runs

    @property
    def items(self) -> Mapping[tuple[str, str], QueueItem]:
        """Everything runs wait for, by run and job."""
        return self._store.items

    def new_id(self) -> str:
        """Return the next ULID; numbered, so that the same story gives the same ids."""
        return ulid(self._now_ms(), next(self._numbers).to_bytes(10, "big"))

    def _now_ms(self) -> int:
        return round(self.now.timestamp() * 1000)

    def accept(self, events: Sequence[EventIn], ids: Sequence[str] | None = None) -> list[str]:
        """Take events from outside: they end waits, cancel runs and start runs; returns those started."""
        found = ids or [self.new_id() for _ in events]
        started = self._ingest([self._event(*each) for each in zip(events, found, strict=True)])
        self._relay()
        return started

    def start(self, slug: str, event: EventIn, *more: EventIn) -> str:
        """Start one function, whatever its triggers are, with an event or a batch; returns the run's id.

        Raises:
            KeyError: If there is no such function.
        """
        arrived, *others = (self._event(each, self.new_id()) for each in (event, *more))
        one = _One(self._functions.by_slug[slug])
        [planned] = plan_starts([arrived], one, self._holds, self.new_id, self.now)
        self.events += [arrived, *others]
        run_id = self._store.begin(planned, arrived)
        self.runs[run_id].more = tuple(others)
        return run_id

    def _event(self, event: EventIn, internal_id: str) -> Event:
        seen = payload(event, internal_id, self._now_ms())
        ts = event_time(seen["ts"])
        return Event(internal_id, event.id, event.name, dumps(seen), seen, ts)

    def _relay(self) -> None:
        """Take the events of the server's own."""
        outbox = self._store.outbox
        while outbox:
            self._ingest([self._event(outbox.pop(0), self.new_id())])

    def _ingest(self, events: Sequence[Event]) -> list[str]:
        self.events.extend(events)
        for event in events:
            self._store.match(event)
        started = []
        for start in plan_starts(events, self._functions, self._holds, self.new_id, self.now):
            mark = (start.function.config.slug, start.key or start.run_id)
            until = self._started.get(mark)
            if until is None or until <= self.now:
                self._started[mark] = self.now + _DEDUPE
                started.append(self._store.begin(start, events[start.event - 1]))
        return started

    def ready(self) -> list[QueueItem]:
        """Return the items whose calls can be made now, in the order in which they were added."""
        return [
            item
            for item in self.items.values()
            if item.is_call and not item.is_held and item.due is not None and item.due <= self.now
        ]

    def lease(self, item: QueueItem) -> Leased:
        """Take an item to call its function; a call that was leased before counts for nothing now."""
        item.gen += 1
        item.is_held = True
        run = self.runs[item.run_id]
        leased = Leased(
            run_id=run.id,
            job=item.job,
            gen=item.gen,
            slug=run.slug,
            step_id=item.step or names.STEP,
            attempt=item.attempt,
            memos=tuple(run.memos),
            open=frozenset(hashed for hashed, step in run.steps.items() if step.is_open),
            is_together=self._checkpointing and not run.function.config.limits.concurrency,
        )
        has_planned = any(step.status == "planned" for step in run.steps.values())
        is_planning = run.planning > 0 and (item.step is not None or has_planned)
        return replace(leased, body=self.body(leased, leased.memos, is_planning=is_planning))

    def lose(self, leased: Leased) -> None:
        """Let a call's reply be lost: the call can be made again."""
        item = self._store.items.get((leased.run_id, leased.job))
        if item is not None and item.gen == leased.gen:
            item.is_held = False

    def body(self, leased: Leased, memos: Sequence[tuple[str, str]], *, is_planning: bool) -> bytes:
        """Write a call's body, with other memos perhaps; what is too large must be fetched."""
        run = self.runs[leased.run_id]
        write = partial(
            encode_call,
            events=[each.payload for each in run.events],
            memos=memos,
            run_id=run.id,
            # Without it nobody reports steps while a call goes on.
            fn_id=str(run.function.function_id) if self._checkpointing else "",
            step_id=leased.step_id,
            attempt=leased.attempt,
            max_attempts=run.function.config.retries + 1,
            is_planning=is_planning,
            version=run.version,
            generation_id=leased.gen,
            job_id=leased.job,
            request_id="",
        )
        body = write()
        return body if len(body) <= names.MAX_CALL_BYTES else write(use_api=True)

    def settle(self, leased: Leased, reply: Reply | ProtocolError) -> Settlement | None:
        """Apply what a reply asks for; None if the call counts for nothing any more."""
        item = self._store.items.get((leased.run_id, leased.job))
        if item is None or item.gen != leased.gen or not item.is_held:
            return None
        item.is_held = False
        run = self.runs[leased.run_id]
        effects = decide(self._state(run, item, leased), reply)
        self._store.settle(run, item, effects)
        self._relay()
        return effects

    def _state(self, run: RunState, item: QueueItem, leased: Leased) -> State:
        config = run.function.config
        since = item.outage_since
        return State(
            attempt=item.attempt,
            max_attempts=config.retries + 1,
            known=leased.known,
            state_bytes=sum(len(memo) for _, memo in run.memos),
            outage=0.0 if since is None else (self.now - since).total_seconds(),
            now=self.now,
            chance=self._chance(),
            retry_interval=self._retry_interval,
            retry_delay=config.retry_delay,
            look_back=config.look_back,
            open=leased.open,
            target=item.step,
            is_main=item.job == MAIN,
            run_id=run.id,
            function=run.slug,
            event=lambda: run.event.parsed,
            functions=self._functions.by_slug,
            check=self._check,
            holds=self._holds,
        )

    def save(self, run_id: str, job: str, gen: int, ops: Sequence[Op]) -> bool:
        """Store finished steps of a call that goes on; False if the call counts for nothing any more.

        Args:
            gen: The call's; 0 for whichever is under way.
        """
        item = self._store.items.get((run_id, job))
        if item is None or not item.is_held or gen not in (0, item.gen):
            return False
        self._store.save(self.runs[run_id], item, ops)
        return True

    def cancel(self, run_id: str, message: str) -> None:
        """End a run; one that has ended stays as it is."""
        self._store.cancel(self.runs[run_id], message)
        self._relay()

    def signal(self, name: str, data: object) -> str | None:
        """Give a signal to the run that waits for it; returns the run's id, or None if nobody does."""
        return self._store.signal(name, data)

    def next_due(self) -> datetime | None:
        """Return the earliest moment after now at which something is due, or None."""
        due = (item.due for item in self.items.values() if item.due is not None)
        return min((each for each in due if each > self.now), default=None)

    def advance(self, to: datetime) -> None:
        """Let it be that time: sleeps end, waits are given up, runs whose time is over are cancelled.

        Raises:
            ValueError: If that is in the past.
        """
        if to < self.now:
            raise ValueError(f"time does not go back: it is {self.now}, asked for {to}")
        self._store.now = to
        due = [item for item in self.items.values() if item.due is not None and item.due <= to]
        for item in sorted(due, key=lambda each: each.due or to):
            if self.items.get((item.run_id, item.job)) is item and not item.is_call:
                self._store.time_is_over(self.runs[item.run_id], item)
        self._relay()


class _One(Functions):
    """A function that every event starts."""

    def __init__(self, function: Function) -> None:
        super().__init__([])
        self._function = function

    def started_by(self, event: Event, holds: Holds) -> list[Function]:
        """Return the one."""
        return [self._function]
