"""Engines, events, cancellations and time in any order, against a simple model of the queue.

The model knows, for each live run, its one item: ready, a timer, or leased by whom until when under
which gen. It predicts who gets what and which settle applies; invariants are read from the tables.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.support import engine_sql as sql
from tests.support.engine_sql import LEASE, Hands, completed, settling, step, went_on

from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.store import Settling

T = TypeVar("T")
OWNERS = st.sampled_from(["A", "B", "C"])
VALUES = st.integers(0, 2)
PLACES = st.integers(0, 20)
KEYS = st.none() | st.sampled_from(["k1", "k2"])

# Everything that must hold between any two statements; each query counts what breaks its rule.
RULES = {
    "an ended run leaves nothing to do": """
        select count(*) from stepbase.queue q left join stepbase.runs r using (run_id)
          where r.run_id is null or r.ended_at is not null""",
    "an ended run waits for nothing": """
        select count(*) from stepbase.pauses p left join stepbase.runs r using (run_id)
          where r.run_id is null or r.ended_at is not null""",
    "a live run has exactly one item of its own": """
        select count(*) from stepbase.runs r
          where r.ended_at is null and 1 <> (select count(*) from stepbase.queue q
            where q.run_id = r.run_id and q.job = 'main')""",
    "an open step is what its run's item waits for": """
        select count(*) from stepbase.steps s join stepbase.runs r using (run_id)
          where s.status = 'sleeping' and r.ended_at is null
            and not exists (select from stepbase.queue q
              where q.run_id = s.run_id and q.kind = 'sleep' and q.step = s.hash)""",
    "closed steps are counted": """
        select count(*) from stepbase.runs r
          where r.step_count <> (select count(*) from stepbase.steps s
            where s.run_id = r.run_id and s.status in ('done', 'failed'))""",
    "closed steps are numbered without gaps": """
        select count(*) from (select s.pos - row_number()
            over (partition by s.run_id order by s.pos) as gap from stepbase.steps s
            where s.status in ('done', 'failed')) g
          where g.gap <> 0""",
    "a run has its event": """
        select count(*) from stepbase.runs r left join stepbase.events e on e.id = r.event_id
          where e.id is null""",
}


@dataclass
class Run:
    """What the model knows of a live run's item."""

    value: int
    created: float
    gen: int = 0
    owner: str | None = None
    due: float | None = None
    is_ready: bool = True
    asleep: str | None = None
    steps: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Token:
    """What an engine believes it holds."""

    owner: str
    run_id: str
    gen: int
    woken: str | None


class EngineMachine(RuleBasedStateMachine):
    """The SQL functions under several owners."""

    connection: asyncpg.Connection
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands(self.connection)
        self.now = 0.0
        self.live: dict[str, Run] = {}
        self.ended: dict[str, str] = {}
        self.tokens: list[Token] = []
        self.given: set[tuple[str, int]] = set()
        self.keys: dict[str, float] = {}
        self.last: tuple[str, list[Settling]] | None = None

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def begin(self) -> None:
        self.transaction = self.connection.transaction()
        self.wait(self.transaction.start())
        self.wait(self.hands.at(0))

    def teardown(self) -> None:
        self.wait(self.transaction.rollback())

    # -- rules

    @rule(
        owner=OWNERS,
        starts=st.lists(st.tuples(VALUES, KEYS, st.booleans()), min_size=1, max_size=3),
        is_repeated=st.booleans(),
    )
    def ingest(
        self, owner: str, starts: list[tuple[int, str | None, bool]], is_repeated: bool
    ) -> None:
        events = [sql.event(event_id=key) for _, key, _ in starts]
        wanted = [
            sql.start(
                i + 1, key=key, is_direct=direct, pauses=(sql.pause("stop", "data.v", value),)
            )
            for i, (value, key, direct) in enumerate(starts)
        ]

        rows = self.wait(self.hands.of(owner).take_in(events, wanted))

        expected = []
        for begun in wanted:
            if begun.key is None or self.keys.get(begun.key, -1.0) <= self.now:
                expected.append(begun.run_id)
                if begun.key is not None:
                    self.keys[begun.key] = self.now + 86_400
        assert [row["run_id"] for row in rows] == expected
        for row, begun in ((row, wanted[row["start"] - 1]) for row in rows):
            run = Run(starts[begun.event - 1][0], self.now)
            self.live[begun.run_id] = run
            assert row["is_leased"] == begun.is_direct
            if begun.is_direct:
                self._lease(owner, begun.run_id, row["gen"])
        if is_repeated:
            again = self.wait(self.hands.of(owner).take_in(events, wanted))
            assert [tuple(row) for row in again] == [tuple(row) for row in rows]

    @rule(owner=OWNERS, count=st.integers(1, 4))
    def lease(self, owner: str, count: int) -> None:
        for run in self.live.values():
            if not run.is_ready and run.due is not None and run.due <= self.now:
                run.is_ready, run.owner, run.due = True, None, None
        ready = {run_id: run.created for run_id, run in self.live.items() if run.is_ready}

        rows = self.wait(self.hands.of(owner).lease(count))

        assert len(rows) == min(count, len(ready))
        assert {row["run_id"] for row in rows} <= ready.keys()
        if rows:
            taken = max(ready.pop(row["run_id"]) for row in rows)
            assert all(created >= taken for created in ready.values()), "the oldest come first"
        for row in rows:
            run = self.live[row["run_id"]]
            assert (row["kind"], row["step"]) == ("sleep" if run.asleep else "edge", run.asleep)
            known = dict(zip(row["hashes"] or (), row["memos"] or (), strict=True))
            assert known == run.steps and list(known) == list(run.steps)
            self._lease(owner, row["run_id"], row["gen"])

    @precondition(lambda self: self.tokens)
    @rule(
        first=PLACES,
        calls=st.lists(
            st.tuples(PLACES, st.sampled_from(["go on", "sleep", "retry", "ready", "end"])),
            max_size=3,
        ),
    )
    def settle(self, first: int, calls: list[tuple[int, str]]) -> None:
        owner = self.tokens[first % len(self.tokens)].owner
        mine = [token for token in self.tokens if token.owner == owner]
        chosen = {mine[place % len(mine)]: verdict for place, verdict in calls}
        batch = [
            settling(t.run_id, t.gen, self._effects(verdict), woken=t.woken)
            for t, verdict in chosen.items()
        ]

        outcomes = self.wait(self.hands.of(owner).settle(batch))

        self.last = (owner, batch)
        for (token, verdict), call, outcome in zip(chosen.items(), batch, outcomes, strict=True):
            self.tokens.remove(token)
            run = self.live.get(token.run_id)
            holds = run is not None and (run.owner, run.gen) == (token.owner, token.gen)
            assert outcome.outcome == ("applied" if holds else "lost")
            if run is not None and holds:
                self._apply(token, run, verdict, call)

    @precondition(lambda self: self.last is not None)
    @rule()
    def settle_again(self) -> None:
        assert self.last is not None
        owner, batch = self.last
        before = self.wait(self._tables())

        outcomes = self.wait(self.hands.of(owner).settle(batch))

        assert all(outcome.outcome in ("already", "lost") for outcome in outcomes)
        assert self.wait(self._tables()) == before

    @precondition(lambda self: self.live)
    @rule(place=PLACES)
    def cancel(self, place: int) -> None:
        known = sorted({**self.live, **self.ended})
        run_id = known[place % len(known)]

        ids = self.wait(self.hands.cancel([run_id], "{}"))

        assert ids == ([run_id] if run_id in self.live else [])
        if self.live.pop(run_id, None) is not None:
            self.ended[run_id] = "Cancelled"

    @rule(value=VALUES)
    def refund(self, value: int) -> None:
        self.wait(self.hands.take_in([sql.event("stop", {"v": value})]))

        for run_id, run in list(self.live.items()):
            if run.value == value:
                del self.live[run_id]
                self.ended[run_id] = "Cancelled"

    @rule(seconds=st.sampled_from([1.0, 14.0, 31.0, 3600.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.wait(self.hands.at(self.now))

    @rule()
    def sweep(self) -> None:
        self.wait(self.hands.sweep(LEASE, LEASE, LEASE, 100))
        rows = self.wait(self.connection.fetch("select run_id from stepbase.runs"))
        kept = {row["run_id"] for row in rows}

        assert self.live.keys() <= kept
        self.ended = {run_id: status for run_id, status in self.ended.items() if run_id in kept}

    # -- what holds between rules

    @invariant()
    def rules_hold(self) -> None:
        counts = self.wait(
            self.connection.fetchrow(
                "select " + ", ".join(f'({query}) as "{name}"' for name, query in RULES.items())
            )
        )
        assert counts is not None
        assert {name: count for name, count in counts.items() if count} == {}

    @invariant()
    def runs_are_as_the_model_says(self) -> None:
        rows = self.wait(
            self.connection.fetch(
                "select run_id, ended_at is null as live, status from stepbase.runs"
            )
        )
        assert {row["run_id"] for row in rows if row["live"]} == self.live.keys()
        assert {row["run_id"]: row["status"] for row in rows if not row["live"]} == self.ended

    # -- helpers

    def _lease(self, owner: str, run_id: str, gen: int) -> None:
        run = self.live[run_id]
        assert gen == run.gen + 1
        assert (run_id, gen) not in self.given, "no item is given twice under one gen"
        self.given.add((run_id, gen))
        run.gen, run.owner, run.is_ready = gen, owner, False
        run.due = self.now + LEASE.total_seconds()
        self.tokens.append(Token(owner, run_id, gen, run.asleep))

    def _effects(self, verdict: str) -> Settlement:
        hashed = sql.new_id()
        return {
            "go on": went_on(step(hashed, hashed)),
            "sleep": Settlement(
                Verdict.TIMER,
                delay=100.0,
                kind="sleep",
                step=hashed,
                steps=(step(hashed, status="sleeping"),),
            ),
            "retry": Settlement(Verdict.TIMER, delay=5.0, attempt=1, failed=sql.failed_attempt()),
            "ready": Settlement(Verdict.READY, steps=(step(hashed, 1), step(hashed + "b", 2))),
            "end": completed(),
        }[verdict]

    def _apply(self, token: Token, run: Run, verdict: str, call: Settling) -> None:
        effects = call.effects
        if verdict == "end":
            del self.live[token.run_id]
            self.ended[token.run_id] = "Completed"
            return
        run.steps |= {each.hash: each.memo for each in effects.steps}
        run.gen += 1
        run.asleep = effects.step
        run.is_ready = verdict == "ready"
        if verdict == "go on":
            self.given.add((token.run_id, run.gen))
            self.tokens.append(Token(token.owner, token.run_id, run.gen, None))
            half = LEASE.total_seconds() / 2
            if run.due is not None and run.due < self.now + half:
                run.due = self.now + LEASE.total_seconds()
        else:
            run.owner = None
            run.due = self.now + effects.delay if effects.delay is not None else None

    async def _tables(self) -> list[list[str]]:
        return [
            sorted(
                str(tuple(row)) for row in await self.connection.fetch(f"table stepbase.{table}")
            )
            for table in ("runs", "steps", "queue", "attempts", "pauses")
        ]


def test_the_queue_is_what_its_model_says_in_any_order(shared_database: str) -> None:
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(shared_database))
    machine = type("Machine", (EngineMachine,), {"connection": connection, "loop": loop})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                # A failure is shown as it was found: to shrink it would take minutes of SQL.
                phases=[Phase.reuse, Phase.generate],
            ),
        )
    finally:
        loop.run_until_complete(connection.close())
        loop.close()
