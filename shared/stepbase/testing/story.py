"""What happens in a lab, written once: scripts that yield the calls to be made, and are sent the replies."""

import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from stepbase import clock, standin
from stepbase.engine.starts import Function as Target
from stepbase.errors import ProtocolError
from stepbase.protocol import ids, names
from stepbase.protocol.event import EventIn, decode_event
from stepbase.protocol.jsontext import loads
from stepbase.protocol.reply import Reply, decode_reply
from stepbase.protocol.sync import decode_function
from stepbase.sdk import sender, typed
from stepbase.sdk.app import App
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.event import Event, Sendable, from_payload, to_events
from stepbase.sdk.function import Function
from stepbase.sdk.message import Request, Response
from stepbase.sdk.trigger import EventTrigger
from stepbase.testing import expressions, replays, serverside
from stepbase.testing.fakes import Fakes
from stepbase.testing.run import Run
from stepbase.testing.server import Server
from stepbase.testing.state import Leased, QueueItem, RunState
from stepbase.testing.world import ORIGIN, SETTINGS, Notes, World

T = TypeVar("T")

MOST_CALLS: Final = 10_000
"""Calls without the clock moving, after which a test is told that it goes round in circles."""

_SERVED = f"{ORIGIN}/api/inngest"
_SCHEDULED = "inngest/scheduled.timer"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a function; `is_probe` if it is only to see where the handler goes."""

    leased: Leased
    body: bytes = field(repr=False)
    is_probe: bool = False


Script = Generator[Call, Response, T]


class Story:
    """What `Lab` and `SyncLab` share: everything that makes no call.

    Args:
        apps: The apps whose functions can be started; functions may invoke each other across them.
        now: Where the clock begins: an aware datetime; the real time if not given.
        real_rpc: SQL functions without a fake are called in the database that SUPABASE_URL names.
        always_replay: Call each handler once more after every step, and again after the run's end, to
            see that it goes the same way.
        order: A seed: of calls that could be made at the same time, any is made first. Without one,
            those that became ready first.
        retry_interval: Seconds between attempts; the server's schedule without jitter (15 s, 30 s,
            1 m, …) if not given.
    """

    def __init__(
        self,
        *apps: App,
        now: datetime | None = None,
        real_rpc: bool = False,
        always_replay: bool = False,
        order: int | None = None,
        retry_interval: float | None = None,
    ) -> None:
        self._endpoints = {
            app.id: Endpoint(app, framework="test", settings=SETTINGS) for app in apps
        }
        self._functions: dict[str, Function] = {}
        targets = []
        for app in apps:
            for function in app.functions.values():
                failure = [function.on_failure] if function.on_failure else []
                self._functions.update({each.slug: each for each in (function, *failure)})
                targets += [_target(app, wire) for wire in function.wire(_SERVED)]
        self._began = _real_now()
        start = (now or self._began).astimezone(UTC)
        self._server = Server(
            targets,
            start.replace(microsecond=start.microsecond // 1000 * 1000),
            holds=expressions.holds,
            check=expressions.check,
            retry_interval=retry_interval,
        )
        self._fakes = Fakes()
        self._notes = Notes()
        self._world = World(self._server, self._fakes, self._notes)
        self._is_real_rpc = real_rpc
        self._always_replay = always_replay
        self._random = None if order is None else random.Random(order)

    def __enter__(self) -> Self:
        """Let the block around see the lab's time, and send its events to the lab."""
        standin.current.set(self._world)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the block around its own time back."""
        standin.current.set(None)

    @property
    def now(self) -> datetime:
        """What time it is in the lab."""
        return self._server.now

    @property
    def runs(self) -> Sequence[Run]:
        """All runs, in the order they were started."""
        return [self._look(state) for state in self._server.runs.values()]

    @property
    def events(self) -> Sequence[Event[Any]]:
        """All events, those of the server's own included, in order; their data as dicts."""
        return [from_payload(each.parsed, each.parsed["data"]) for each in self._server.events]

    @property
    def unused_fakes(self) -> Sequence[str]:
        """Step ids, SQL functions and tables that were faked and never asked for: a typing error, perhaps."""
        return self._fakes.unused

    def fake_step(self, step_id: str, result: Any = None) -> None:
        """Let a step give a result without its code being run.

        Args:
            step_id: Its id, for all its uses; ``"charge:1"`` for the second alone.
            result: A value; an exception to raise; or a callable, async or plain, which is given what the
                step's own function would have been. For `fetch` and `ai.infer` what the server would
                have got, for `invoke` what the other function would have returned.
        """
        self._fakes.step(step_id).result = result

    def fail_step(self, step_id: str, error: BaseException, *, times: float = 1) -> None:
        """Let a step raise, so many times in all; after that its fake or its own code runs."""
        fake = self._fakes.step(step_id)
        fake.error, fake.failures = error, times

    def fake_rpc(self, function: str, result: Any = None) -> None:
        """Let an SQL function give a result without a database.

        A key that is used again gives its first result, and with other arguments an error, as the
        ledger would.

        Args:
            function: Its name.
            result: A value; an exception to raise (`NonRetriableError` for one that the SQL function
                raises itself); or a callable, async or plain, which is given its arguments by name.
        """
        self._fakes.rpc(function).result = result

    def fail_rpc(self, function: str, error: BaseException, *, times: float = 1) -> None:
        """Let an SQL function raise, so many times in all; after that its fake answers, or the database."""
        fake = self._fakes.rpc(function)
        fake.error, fake.failures = error, times

    def fake_table(self, table: str, result: Any = None) -> None:
        """Let writes to a table (`step.table`) give rows without a database; keys as for `fake_rpc`.

        Args:
            result: Rows; an exception to raise; or a callable, which is given ``action`` (insert, upsert,
                update or delete) and what belongs to it: ``rows``, ``values``, ``filters``, ….
        """
        self._fakes.table(table).result = result

    def _look(self, state: RunState) -> Run:
        function = self._functions[state.slug]
        return Run(self._server, self._notes, function, state, self._look)

    def _slug(self, function: Function | str) -> str:
        name = function.slug if isinstance(function, Function) else function
        found = [slug for slug in self._functions if name in (slug, slug.partition("-")[2])]
        if len(found) != 1:
            raise AssertionError(
                f"{name!r} names {len(found) or 'no'} functions of {', '.join(self._functions)}"
            )
        return found[0]

    def world_of(self, call: Call) -> World:
        return replace(
            self._world,
            run_id=call.leased.run_id,
            is_async=self._functions[call.leased.slug].is_async,
            is_probe=call.is_probe,
            is_real_rpc=self._is_real_rpc,
        )

    @contextmanager
    def within(self, world: World) -> Iterator[None]:
        token = standin.current.set(world)
        try:
            yield
        finally:
            standin.current.reset(token)

    def endpoint_of(self, call: Call) -> Endpoint:
        function = self._functions[call.leased.slug]
        return next(
            each for each in self._endpoints.values() if each.app.find(function.slug) is function
        )

    def _raise_problem(self) -> None:
        problem, self._notes.problem = self._notes.problem, None
        if problem is not None:
            raise problem

    def _stamped(self, event: Event[Any]) -> Event[Any]:
        """Give an event that took its time from the real clock the lab's."""
        if self._began <= event.ts <= _real_now():
            event.ts = self.now
        return event

    def _send(self, given: Sendable | Sequence[Sendable]) -> Script[list[Run]]:
        before = len(self._server.runs)
        with self.within(self._world):
            sender.send([self._stamped(each) for each in to_events(given)], SETTINGS)
        started = list(self._server.runs.values())[before:]
        direct = [each for each in started if each.parent is None]
        yield from self._settle()
        return [self._look(each) for each in direct]

    def _start(self, function: Function | str, given: Sendable) -> Script[Run]:
        slug = self._slug(function)
        with self.within(self._world):
            event = self._first_event(self._functions[slug], given)
        run_id = self._server.start(slug, event)
        yield from self._settle()
        return self._look(self._server.runs[run_id])

    def _first_event(self, function: Function, given: Sendable) -> EventIn:
        if given is None or (isinstance(given, Mapping) and "name" not in given):
            given = Event(_first_name(function), dict(given or {}))
        [event] = to_events(given)
        event = self._stamped(event)
        raw = {
            "name": event.name,
            "data": loads(typed.encode(event.data, type(event.data), f'event "{event.name}"')),
            "ts": round(event.ts.timestamp() * 1000),
            "user": dict(event.user),
            "id": event.id or None,
            "v": event.v,
        }
        return decode_event(raw, is_internal=True)

    def _advance_to(self, when: datetime) -> Script[None]:
        yield from self._settle()
        while (due := self._server.next_due()) is not None and due <= when:
            self._server.advance(due)
            yield from self._settle()
        self._server.advance(when)
        yield from self._settle()

    def _finish(self, run: Run) -> Script[Run]:
        yield from self._settle()
        while not run.has_ended:
            due = self._server.next_due()
            if due is None:
                raise AssertionError(f"nothing that is due would end {run!r}")
            self._server.advance(due)
            yield from self._settle()
        return run

    def _signal(self, name: str, data: Any) -> Script[Run]:
        run_id = self._server.signal(name, data)
        if run_id is None:
            raise AssertionError(f"no run waits for the signal {name!r}: {self.runs!r}")
        yield from self._settle()
        return self._look(self._server.runs[run_id])

    def _cancel(self, run: Run) -> Script[None]:
        self._server.cancel(run.id, "cancelled by the test")
        yield from self._settle()

    def _settle(self) -> Script[None]:
        """Make calls until none can be made without time passing."""
        for _ in range(MOST_CALLS):
            ready = self._server.ready()
            if not ready:
                return
            item = ready[0] if self._random is None else self._random.choice(ready)
            yield from self._call(item)
        raise AssertionError(f"{MOST_CALLS} calls and no end: {self.runs[-1]!r}")

    def _call(self, item: QueueItem) -> Script[None]:
        run = self._server.runs[item.run_id]
        memos = run.memos
        leased = self._server.lease(item)
        reply = _decoded((yield Call(leased, leased.body)))
        is_watched = self._always_replay and item.step is None
        if is_watched and not isinstance(reply, ProtocolError):
            again = yield from self._probe(leased, item, memos)
            done = [run.steps[hashed].name for hashed, _ in memos]
            replays.check_again(run.slug, done, reply, again)
        reply = serverside.with_fakes(self._fakes, self._world, leased, reply)
        self._server.settle(leased, reply)
        self._raise_problem()
        if is_watched and run.status in ("Completed", "Failed"):
            yield from self._replay_all(leased, item, run)

    def _replay_all(self, leased: Leased, item: QueueItem, run: RunState) -> Script[None]:
        memos, seen = run.memos, set[str]()
        named = [run.steps[hashed].name for hashed, _ in memos]
        for i, (hashed, _) in enumerate(memos):
            reply = yield from self._probe(leased, item, memos[:i])
            replays.check_next(run.slug, named[:i], (hashed, named[i]), seen, reply)

    def _probe(
        self, leased: Leased, item: QueueItem, memos: Sequence[tuple[str, str]]
    ) -> Script[Reply]:
        body = self._server.body(item, memos, is_planning=True)
        reply = _decoded((yield Call(leased, body, is_probe=True)))
        if isinstance(reply, ProtocolError):
            raise reply
        return reply


def request(call: Call) -> Request:
    """Return what a server would post for a call."""
    leased = call.leased
    headers = {
        "content-type": "application/json",
        names.RUN_ID: leased.run_id,
        names.STEP_ID: leased.step_id,
        names.GENERATION_ID: str(leased.gen),
        names.JOB_ID: leased.job,
        names.SERVER_KIND: "dev",
    }
    return Request(
        "POST", _SERVED, f"fnId={leased.slug}&stepId={leased.step_id}", headers, call.body
    )


def _decoded(response: Response) -> Reply | ProtocolError:
    headers = {name.lower(): value for name, value in response.headers.items()}
    try:
        return decode_reply(response.status, headers, response.body)
    except ProtocolError as error:
        return error


def _target(app: App, wire: Mapping[str, Any]) -> Target:
    config = decode_function(wire)
    return Target(ids.function_uuid(config.slug, config.url), app.id, 1, config)


def _real_now() -> datetime:
    token = standin.current.set(None)
    try:
        return clock.utcnow()
    finally:
        standin.current.reset(token)


def _first_name(function: Function) -> str:
    """Return the name an event for a function has when a test gives only its data."""
    events = [each.name for each in function.triggers if isinstance(each, EventTrigger)]
    if events and "*" not in events[0]:
        return events[0]
    return _SCHEDULED if function.triggers and not events else names.EVENT_FUNCTION_INVOKED
