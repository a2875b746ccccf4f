"""What happens in a lab, written once: scripts that yield the calls to be made, and are sent the replies."""

import random
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from stepbase import standin
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.reply import Reply
from stepbase.sdk import sender
from stepbase.sdk.app import App
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.event import Event, Sendable, from_payload, to_events
from stepbase.sdk.function import Function
from stepbase.sdk.message import Response
from stepbase.testing import expressions, replays, serverside
from stepbase.testing.directory import Directory, decoded
from stepbase.testing.fakes import Fakes
from stepbase.testing.given import Given, events_for, real_now, received, stamped
from stepbase.testing.opened import Opener
from stepbase.testing.run import Run
from stepbase.testing.server import Server
from stepbase.testing.state import Leased, RunState
from stepbase.testing.world import SETTINGS, Notes, World

T = TypeVar("T")
R = TypeVar("R")

MOST_CALLS: Final = 10_000
"""Calls without the clock moving, after which a test is told that it goes round in circles."""


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
        order: A seed: calls that could be made at the same time overlap, and end in any order. Without
            one they are made one after another, as they became possible.
        checkpointing: Let handlers go on in one call while results are saved on the way, as their
            functions' option says; each call ends with its step if not given, and in `always_replay`.
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
        checkpointing: bool = False,
        retry_interval: float | None = None,
    ) -> None:
        self._directory = Directory(apps)
        self._began = real_now()
        start = (now or self._began).astimezone(UTC)
        self._server = Server(
            self._directory.targets,
            start.replace(microsecond=start.microsecond // 1000 * 1000),
            holds=expressions.holds,
            check=expressions.check,
            retry_interval=retry_interval,
            checkpointing=checkpointing and not always_replay,
        )
        self._fakes = Fakes()
        self._notes = Notes()
        self._world = World(self._server, self._fakes, self._notes)
        self._outside: standin.StandIn | None = None
        self._is_real_rpc = real_rpc
        self._always_replay = always_replay
        self._random = None if order is None else random.Random(order)

    def __enter__(self) -> Self:
        """Let the block around see the lab's time, and send its events to the lab."""
        self._outside = standin.current.get()
        standin.current.set(self._world)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the block around its own time back."""
        standin.current.set(self._outside)

    @property
    def now(self) -> datetime:
        """What time it is in the lab."""
        return self._server.now

    @property
    def runs(self) -> Sequence[Run[Any]]:
        """All runs, in the order they were started."""
        return [self._look(state) for state in self._server.runs.values()]

    def runs_of(self, function: Function[R]) -> "Sequence[Run[R]]":
        """Return a function's runs, in the order they were started."""
        return [run for run in self.runs if run.function == function.slug]

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

    def _look(self, state: RunState) -> Run[Any]:
        function = self._directory[state.slug]
        return Run(self._server, self._notes, function, state, self._look)

    def world_of(self, call: Call) -> World:
        """Return the world in which a call is answered."""
        return replace(
            self._world,
            run_id=call.leased.run_id,
            is_async=self._directory[call.leased.slug].is_async,
            is_probe=call.is_probe,
            is_real_rpc=self._is_real_rpc,
        )

    @contextmanager
    def within(self, world: World) -> Iterator[None]:
        """Let the block around be in that world."""
        token = standin.current.set(world)
        try:
            yield
        finally:
            standin.current.reset(token)

    def endpoint_of(self, call: Call) -> Endpoint:
        """Return what answers a call."""
        return self._directory.endpoint(call.leased.slug)

    def _raise_problem(self) -> None:
        problem, self._notes.problem = self._notes.problem, None
        if problem is not None:
            raise problem

    def _send(self, given: Sendable | Sequence[Sendable]) -> Script[list[Run[Any]]]:
        with self.within(self._world):
            events = [stamped(each, self._began, self.now) for each in to_events(given)]
            ids = sender.send(events, SETTINGS)
        started = [each for each in self._server.runs.values() if each.event.id in ids]
        yield from self._settle()
        return [self._look(each) for each in started]

    def _start(self, function: Function[Any] | str, given: Given) -> Script[Run[Any]]:
        slug = self._directory.slug_of(function)
        with self.within(self._world):
            events = events_for(self._directory[slug], given)
            arrived = [received(stamped(each, self._began, self.now)) for each in events]
        run_id = self._server.start(slug, *arrived)
        yield from self._settle()
        return self._look(self._server.runs[run_id])

    def _advance_to(self, when: datetime) -> Script[None]:
        yield from self._settle()
        while (due := self._server.next_due()) is not None and due <= when:
            self._server.advance(due)
            yield from self._settle()
        self._server.advance(when)
        yield from self._settle()

    def _finish(self, run: Run[R]) -> Script[Run[R]]:
        yield from self._settle()
        while not run.has_ended:
            due = self._server.next_due()
            if due is None:
                raise AssertionError(f"nothing that is due would end {run!r}")
            self._server.advance(due)
            yield from self._settle()
        return run

    def _signal(self, name: str, data: Any) -> Script[Run[Any]]:
        run_id = self._server.signal(name, data)
        if run_id is None:
            raise AssertionError(f"no run waits for the signal {name!r}: {self.runs!r}")
        yield from self._settle()
        return self._look(self._server.runs[run_id])

    def _cancel(self, run: Run[Any]) -> Script[None]:
        self._server.cancel(run.id, "cancelled by the test")
        yield from self._settle()

    def _settle(self) -> Script[None]:
        """Make calls until none can be made without time passing."""
        for _ in range(MOST_CALLS):
            ready = self._server.ready()
            if not ready:
                return
            chosen = ready[:1]
            if self._random is not None:
                chosen = self._random.sample(ready, self._random.randint(1, len(ready)))
            for leased in [self._server.lease(item) for item in chosen]:
                yield from self._call(leased)
        raise AssertionError(f"{MOST_CALLS} calls and no end: {self.runs[-1]!r}")

    def _call(self, leased: Leased) -> Script[None]:
        run = self._server.runs[leased.run_id]
        reply = decoded((yield Call(leased, leased.body)))
        is_watched = self._always_replay and leased.step_id == names.STEP
        if is_watched and not isinstance(reply, ProtocolError):
            again = yield from self._probe(leased, leased.memos)
            done = [run.steps[hashed].name for hashed, _ in leased.memos]
            see = Opener(self._directory[run.slug]).reply
            replays.check_again(run.slug, done, see(reply), see(again))
        reply = serverside.with_fakes(self._fakes, self._world, leased, reply)
        self._server.settle(leased, reply)
        self._raise_problem()
        if is_watched and run.status in ("Completed", "Failed"):
            yield from self._replay_all(leased, run)

    def _replay_all(self, leased: Leased, run: RunState) -> Script[None]:
        memos, seen = run.memos, set[str]()
        named = [run.steps[hashed].name for hashed, _ in memos]
        for i, (hashed, _) in enumerate(memos):
            reply = yield from self._probe(leased, memos[:i])
            replays.check_next(run.slug, named[:i], (hashed, named[i]), seen, reply)

    def _probe(self, leased: Leased, memos: Sequence[tuple[str, str]]) -> Script[Reply]:
        body = self._server.body(leased, memos, is_planning=True)
        reply = decoded((yield Call(leased, body, is_probe=True)))
        if isinstance(reply, ProtocolError):
            raise reply
        return reply
