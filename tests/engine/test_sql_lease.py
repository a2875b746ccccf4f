"""`lease`, `extend` and `tick`: who does what next, and that nobody does it twice."""

import asyncio
from datetime import timedelta

import pytest
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import NOON, Hands, completed, settling, step, went_on

from stepbase.engine.effects import Settlement, Verdict


async def test_a_ready_item_is_leased_with_all_that_its_call_needs(hands: Hands) -> None:
    event = sql.event("app/f", {"n": 1})
    run = sql.start()
    await hands.take_in([event], [run])

    [row] = await hands.lease(10)

    assert (row["run_id"], row["job"], row["kind"], row["gen"]) == (run.run_id, "main", "edge", 1)
    assert (row["function_id"], row["event_id"], row["event"]) == (
        sql.FUNCTION_ID, event.id, event.payload,
    )  # fmt: skip
    assert (row["attempt"], row["losses"], row["req_version"], row["has_started"]) == (
        0,
        0,
        -1,
        False,
    )
    assert (row["hashes"], row["memos"]) == (None, None)
    item = await hands.item(run)
    assert item is not None and (item["owner"], item["due_at"]) == ("A", NOON + sql.LEASE)


async def test_a_leased_item_is_not_leased_again_before_its_lease_ends(hands: Hands) -> None:
    await hands.begin()
    assert len(await hands.lease(10)) == 1

    await hands.at(29.9)

    assert await hands.of("B").lease(10) == [] == await hands.lease(10)


async def test_after_the_lease_another_engine_takes_over_where_the_dead_one_was(
    hands: Hands,
) -> None:
    run = await hands.begin_leased()
    await hands.settle_one(run, 1, went_on(step("a", 1)))
    await hands.settle_one(run, 2, Settlement(Verdict.TIMER, delay=0.0, attempt=2))
    [held] = await hands.lease(10)
    assert (held["gen"], held["attempt"]) == (4, 2)

    await hands.at(30)
    [taken] = await hands.of("B").lease(10)

    assert (taken["gen"], taken["attempt"], taken["losses"]) == (5, 2, 1)
    assert (taken["hashes"], taken["memos"]) == (["a"], ['{"data":1}'])


async def test_losses_count_engines_in_a_row(hands: Hands) -> None:
    run = await hands.begin_leased()
    for second in (30, 60, 90):
        await hands.at(second)
        [row] = await hands.lease(1)
    assert row["losses"] == 3

    await hands.settle_one(run, row["gen"], went_on(step("a")))
    await hands.at(120)
    [row] = await hands.lease(1)

    assert row["losses"] == 1


async def test_losses_never_overflow(hands: Hands) -> None:
    await hands.begin_leased()
    await hands.connection.execute("update stepbase.queue set losses = 1000")
    await hands.at(30)

    [row] = await hands.lease(1)

    assert row["losses"] == 1000


async def test_the_oldest_runs_come_first(hands: Hands) -> None:
    runs = []
    for second in range(3):
        await hands.at(second)
        runs.append(await hands.begin())

    rows = await hands.lease(2) + await hands.lease(2)

    assert [row["run_id"] for row in rows] == [run.run_id for run in runs]


async def test_timers_become_ready_when_they_are_due_and_not_before(hands: Hands) -> None:
    run = await hands.begin(due=NOON + timedelta(seconds=10))

    await hands.at(9.999)
    assert await hands.lease(1) == []
    await hands.at(10)
    [row] = await hands.lease(1)

    assert (row["run_id"], row["losses"]) == (run.run_id, 0)


async def test_a_start_timeout_fires_unless_the_run_has_begun(hands: Hands) -> None:
    waiting = await hands.begin(deadline=5.0, due=NOON + timedelta(hours=1))
    started = await hands.begin_leased(deadline=5.0)
    calling = await hands.begin_leased(deadline=5.0)
    await hands.settle_one(started, 1, Settlement(Verdict.TIMER, delay=3600.0, attempt=1))
    await hands.at(5)

    rows = {row["run_id"]: row for row in await hands.lease(10)}

    assert {row["kind"] for row in rows.values()} == {"deadline"}
    assert {run: row["has_started"] for run, row in rows.items()} == {
        waiting.run_id: False,
        started.run_id: True,
        # Its first call began in time and may end as late as it likes.
        calling.run_id: True,
    }


async def test_ended_runs_have_nothing_to_lease(hands: Hands) -> None:
    run = await hands.begin_leased(deadline=5.0)
    await hands.settle_one(run, 1, completed())
    await hands.at(3600)

    assert await hands.lease(10) == []


async def test_extending_keeps_the_lease_and_tells_what_is_lost(hands: Hands) -> None:
    kept, gone = await hands.begin_leased(), await hands.begin_leased()
    await hands.cancel([gone.run_id], "{}")
    await hands.at(20)

    lost = await hands.extend(
        [(kept.run_id, "main", 1), (gone.run_id, "main", 1), (kept.run_id, "main", 9)]
    )

    item = await hands.item(kept)
    assert item is not None and item["due_at"] == NOON + timedelta(seconds=50)
    assert lost == {(gone.run_id, "main")}


async def test_extending_another_owners_lease_does_nothing(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.at(20)

    assert await hands.of("B").extend([(run.run_id, "main", 1)]) == {(run.run_id, "main")}
    item = await hands.item(run)
    assert item is not None and item["due_at"] == NOON + sql.LEASE


async def test_extending_does_not_wait_for_a_settle(connect: Connect) -> None:
    a, b = Hands(await connect()), Hands(await connect())
    run = await a.begin_leased()

    async with a.connection.transaction():
        await a.settle_one(run, 1, went_on(step("a")))
        async with asyncio.timeout(5):
            assert await b.extend([(run.run_id, "main", 1)]) == {(run.run_id, "main")}


@pytest.mark.parametrize("engines", [2, 5])
async def test_engines_that_lease_at_once_never_get_the_same_item(
    connect: Connect, engines: int
) -> None:
    hands = [Hands(await connect(), owner) for owner in "ABCDE"[:engines]]
    await hands[0].take_in(
        [sql.event() for _ in range(200)], [sql.start(i + 1) for i in range(200)]
    )

    async def take(each: Hands) -> list[tuple[str, int]]:
        got = []
        while rows := await each.lease(7):
            got += [(row["run_id"], row["gen"]) for row in rows]
        return got

    taken = await asyncio.gather(*(take(each) for each in hands))

    flat = [item for got in taken for item in got]
    assert len(flat) == len(set(flat)) == 200
    assert {gen for _, gen in flat} == {1}
    for each, got in zip(hands, taken, strict=True):
        assert await each.count("queue", f"owner = '{each.owner}'") == len(got)


async def test_leasing_waits_for_nobody(connect: Connect) -> None:
    a, b = Hands(await connect(), "A"), Hands(await connect(), "B")
    busy = await a.begin_leased()
    free = await a.begin()

    async with a.connection.transaction():
        await a.settle([settling(busy, 1, went_on(step("a")))])
        await a.cancel([free.run_id], "{}")
        async with asyncio.timeout(5):
            assert await b.lease(10) == []


async def test_a_tick_says_what_there_is_to_do(hands: Hands) -> None:
    async def look() -> tuple[float | None, bool, bool]:
        tick = await hands.tick(None)
        return tick.seconds, tick.has_ready, tick.has_outbox

    assert await look() == (None, False, False)
    await hands.begin(due=NOON + timedelta(seconds=90))
    await hands.begin_leased()
    assert await look() == (30.0, False, False)
    await hands.begin()
    await hands.connection.execute("select stepbase.emit('a', '{}')")
    assert await look() == (30.0, True, True)
    await hands.at(40)
    assert await look() == (-10.0, True, True)


async def test_a_run_that_makes_room_comes_after_all_that_wait_but_keeps_its_priority(
    hands: Hands,
) -> None:
    long = await hands.begin_leased(priority=5.0)
    await hands.at(10)
    waiting = await hands.begin()
    await hands.at(20)

    await hands.settle_one(long, 1, Settlement(Verdict.YIELD, steps=(step("s"),)))
    await hands.at(21)
    later = await hands.begin(priority=1.0)
    last = await hands.begin()

    order = [(await hands.lease(1))[0]["run_id"] for _ in range(4)]
    assert order == [run.run_id for run in (waiting, long, later, last)]
    await hands.settle_one(long, 3, Settlement(Verdict.YIELD))
    item = await hands.item(long)
    assert item is not None and item["score"] == NOON + timedelta(seconds=16)
