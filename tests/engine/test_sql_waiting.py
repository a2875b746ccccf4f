"""Debounce and batch in SQL: which events gather in which run, and that each starts once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import NOON, Hands, batch, debounce

from stepbase.engine.rules import Rule
from stepbase.engine.starts import Event


async def send(hands: Hands, *rules: Rule, ts: float = 0) -> list[str]:
    """Ingest one batch of events, each with one rule; return their ids."""
    events = [_at(sql.event(), ts) for _ in rules]
    starts = [sql.start(i, rules=(rule,)) for i, rule in enumerate(rules, 1)]
    assert await hands.take_in(events, starts) == []
    return [event.id for event in events]


def _at(event: Event, seconds: float) -> Event:
    when = NOON + timedelta(seconds=seconds)
    return Event(event.id, None, event.name, event.payload, event.parsed, when)


async def fired(hands: Hands) -> list[list[str]]:
    """Start what is due; return the events of each run."""
    runs = []
    for begun in await hands.fire():
        run = await hands.run(begun)
        runs.append(run["event_ids"] or [run["event_id"]])
    return runs


# --- debounce ------------------------------------------------------------------------------------


async def test_the_last_event_starts_a_run_after_the_quiet(hands: Hands) -> None:
    await send(hands, debounce(10))
    await hands.at(9)
    [second] = await send(hands, debounce(10), ts=9)
    await hands.at(18.999999)
    assert await fired(hands) == []
    await hands.at(19)

    assert await fired(hands) == [[second]]
    assert await hands.count("buffers") == 0
    assert await hands.count("not_started", "reason = 'debounced'") == 1


async def test_a_debounce_ends_at_its_timeout_though_events_go_on(hands: Hands) -> None:
    for second in range(0, 25, 5):
        await hands.at(second)
        await send(hands, debounce(10, 22), ts=second)
    await hands.at(21)
    [last] = await send(hands, debounce(10, 22), ts=21)
    await hands.at(22)

    assert await fired(hands) == [[last]]


async def test_an_older_event_neither_takes_the_place_nor_puts_off_the_start(hands: Hands) -> None:
    [first] = await send(hands, debounce(10), ts=5)
    await hands.at(9)
    [older] = await send(hands, debounce(10), ts=4)
    await hands.at(10)

    assert await fired(hands) == [[first]]
    assert await hands.count("not_started", f"event_id = '{older}'") == 1


async def test_of_one_batch_the_latest_is_kept_for_each_key(hands: Hands) -> None:
    ids = await send(hands, debounce(10), debounce(10, key="b"), debounce(10))
    await hands.at(10)

    assert sorted(await fired(hands)) == sorted([[ids[2]], [ids[1]]])


async def test_an_event_that_comes_while_an_engine_starts_the_run_puts_it_off(hands: Hands) -> None:
    await send(hands, debounce(10))
    await hands.at(10)
    taken = await hands.take_buffers(8)
    [later] = await send(hands, debounce(10), ts=10)

    await hands.start_taken(taken)

    assert await hands.count("runs") == 0
    await hands.at(20)
    assert await fired(hands) == [[later]]


# --- batch ---------------------------------------------------------------------------------------


async def test_a_full_batch_starts_at_once_and_the_rest_after_the_timeout(hands: Hands) -> None:
    ids = await send(hands, *[batch(3, 60)] * 7)

    assert sorted(await fired(hands)) == [ids[:3], ids[3:6]]
    await hands.at(59.9)
    [more] = await send(hands, batch(3, 60))
    assert await fired(hands) == []
    await hands.at(60)
    assert await fired(hands) == [[ids[6], more]]
    assert await hands.count("not_started", "reason = 'batched' and run_id is not null") == 5


async def test_a_batch_is_full_at_ten_mebibytes(hands: Hands) -> None:
    large = sql.event("app/f", {"a": "x" * 3 * 1024 * 1024})
    for _ in range(3):
        event = sql.event()
        event = Event(event.id, None, event.name, large.payload, large.parsed, NOON)
        await hands.take_in([event], [sql.start(rules=(batch(100, 60),))])
    assert await fired(hands) == []
    event = sql.event()
    event = Event(event.id, None, event.name, large.payload, large.parsed, NOON)
    await hands.take_in([event], [sql.start(rules=(batch(100, 60),))])

    [events] = await fired(hands)

    assert len(events) == 4


async def test_a_lease_carries_all_events_of_a_batch_in_order(hands: Hands) -> None:
    ids = await send(hands, batch(2, 60), batch(2, 60))
    await fired(hands)

    [row] = await hands.lease(10)

    payloads = [(await hands.get_event(each))["payload"] for each in ids]  # type: ignore[index]
    assert (row["event"], row["more_events"]) == (payloads[0], payloads)
    state = await hands.get_state(row["run_id"])
    assert state is not None and state["more_events"] == payloads


async def test_an_event_that_comes_while_a_batch_is_taken_is_in_the_next(hands: Hands) -> None:
    first = await send(hands, batch(3, 60))
    await hands.at(60)
    taken = await hands.take_buffers(8)
    later = await send(hands, batch(3, 60))

    [begun] = await hands.start_taken(taken)

    assert (await hands.run(begun))["event_ids"] == first
    await hands.at(120)
    assert await fired(hands) == [later]


# --- both ----------------------------------------------------------------------------------------


async def test_what_a_dead_engine_took_is_started_by_another_once(hands: Hands) -> None:
    ids = await send(hands, batch(2, 60), batch(2, 60), debounce(5))
    await hands.at(5)
    taken = await hands.take_buffers(8)
    assert len(taken) == 2 and await hands.take_buffers(8) == []
    await hands.at(5 + sql.LEASE.total_seconds())

    assert sorted(await fired(hands)) == sorted([ids[:2], ids[2:]])
    await hands.start_taken(taken)
    assert await hands.count("runs") == 2


async def test_a_batch_sent_again_adds_nothing(hands: Hands) -> None:
    events = [sql.event() for _ in range(3)]
    starts = [sql.start(i, rules=(batch(2, 60),)) for i in (1, 2, 3)]
    await hands.take_in(events, starts)
    await hands.take_in(events, starts)
    assert len(await fired(hands)) == 1

    await hands.take_in(events, starts)

    await hands.at(60)
    assert await fired(hands) == [[events[2].id]]


async def test_events_that_wait_are_not_swept_nor_those_of_a_batch_that_is_kept(
    hands: Hands,
) -> None:
    ids = await send(hands, batch(2, 60), batch(2, 60), batch(2, 60))
    await fired(hands)
    await hands.at(1000)
    year, now = timedelta(days=365), timedelta(0)

    await hands.sweep(year, year, now, 10)
    assert await hands.count("events") == 3
    await hands.fire()
    for row in await hands.lease(10):
        await hands.cancel([row["run_id"]], "{}")
    await hands.at(1001)
    await hands.sweep(now, now, now, 10)
    await hands.sweep(now, now, now, 10)

    assert len(ids) == 3
    assert [await hands.count(t) for t in ("events", "runs", "not_started")] == [0, 0, 0]


# --- against a model -----------------------------------------------------------------------------

ARRIVALS = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(-3, 3)), max_size=14
)


@dataclass
class Model:
    """Debounce and batch as one would write them down; seconds, one key."""

    rule: Rule
    events: list[tuple[int, str]] = field(default_factory=list)
    first: int = 0
    due: int | None = None

    def fire(self, now: int) -> list[str] | None:
        if self.due is None or self.due > now:
            return None
        events, self.events, self.due = [each for _, each in self.events], [], None
        return events

    def add(self, now: int, ts: int, event: str) -> list[str] | None:
        period = self.rule.period // 1_000_000
        if self.due is None:
            self.first = now
        if self.rule.name == "batch":
            self.due = self.first + period
            self.events.append((ts, event))
            return self.fire(self.due) if len(self.events) == self.rule.limit else None
        if self.events and ts < self.events[0][0]:
            return None
        self.events = [(ts, event)]
        ends = self.first + (self.rule.ends or 10**12) // 1_000_000
        self.due = min(now + period, ends)
        return None


@settings(max_examples=60, deadline=None)
@given(
    rule=st.one_of(
        st.builds(debounce, st.integers(1, 5), st.one_of(st.none(), st.integers(1, 9))),
        st.builds(batch, st.integers(1, 4), st.integers(1, 5)),
    ),
    arrivals=ARRIVALS,
)
def test_runs_are_those_of_the_model(
    shared_database: str, rule: Rule, arrivals: list[tuple[int, str, int]]
) -> None:
    asyncio.run(_play(shared_database, rule, sorted(arrivals, key=lambda each: each[0])))


async def _play(dsn: str, rule: Rule, arrivals: Sequence[tuple[int, str, int]]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        hands = Hands(connection)
        models = {key: Model(rule) for key in "ab"}
        for now in range(30):
            await hands.at(now)
            expected = [events for each in models.values() if (events := each.fire(now))]
            assert sorted(await fired(hands)) == sorted(expected)
            arriving = [each for each in arrivals if each[0] == now]
            for _, key, offset in arriving:
                keyed = Rule(rule.name, key, rule.limit, rule.period, rule.ends)
                [event] = await send(hands, keyed, ts=now + offset)
                full = models[key].add(now, now + offset, event)
                assert await fired(hands) == ([full] if full else [])
        assert await hands.count("buffers") == 0
        await transaction.rollback()
    finally:
        await connection.close()


# --- at once -------------------------------------------------------------------------------------


async def test_engines_gather_and_start_at_once_and_each_event_is_in_one_run(
    connect: Connect,
) -> None:
    engines = [Hands(await connect(), owner) for owner in "ABC"]

    async def works(hands: Hands, keys: str) -> None:
        for _ in range(12):
            await send(hands, *(batch(4, 0.02, key) for key in keys))
            await hands.fire()

    async with asyncio.timeout(30):
        await asyncio.gather(
            *(works(e, keys) for e, keys in zip(engines, ("abc", "cba", "bca"), strict=True))
        )
        while await engines[0].count("buffers"):
            await engines[0].fire()
            await asyncio.sleep(0.02)

    rows = await engines[0].connection.fetch("select event_ids from stepbase.runs")
    gathered = [each for row in rows for each in row["event_ids"]]
    assert len(gathered) == len(set(gathered)) == 3 * 12 * 3
    assert all(len(row["event_ids"]) <= 4 for row in rows)


async def test_one_of_several_engines_starts_a_debounced_run(connect: Connect) -> None:
    engines = [Hands(await connect(), owner) for owner in "ABC"]
    for each in engines:
        await each.at(0)
    await send(engines[0], *(debounce(1, key=f"{n}") for n in range(30)))
    for each in engines:
        await each.at(1)

    await asyncio.gather(*(each.fire(3) for each in engines for _ in range(1)))
    while await engines[0].count("buffers"):
        await asyncio.gather(*(each.fire(3) for each in engines))

    assert await engines[0].count("runs") == 30
