"""`sweep` and the reads: history goes by age, and never what a live run needs."""

from datetime import timedelta

import pytest
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands, completed, step, went_on

from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.starts import Rerun, Start

DAY = 86_400


async def ended(hands: Hands, *, failed: bool = False) -> Start:
    run = await hands.begin_leased(key=None)
    await hands.settle_one(run, 1, went_on(step("a")))
    end = Settlement(Verdict.END, status="Failed", error="{}", failed=sql.failed_attempt())
    await hands.settle_one(run, 2, end if failed else completed())
    return run


async def sweep(hands: Hands, limit: int = 100) -> tuple[int, int]:
    return await hands.sweep(timedelta(days=30), timedelta(days=90), timedelta(days=7), limit)


async def test_an_old_run_goes_with_its_steps_attempts_and_event(hands: Hands) -> None:
    await ended(hands)

    await hands.at(30 * DAY)
    assert await sweep(hands) == (0, 0)
    await hands.at(30 * DAY + 1)
    assert await sweep(hands) == (1, 1)

    tables = ("runs", "steps", "attempts", "events", "queue", "pauses")
    assert [await hands.count(table) for table in tables] == [0] * 6


async def test_a_failed_run_is_kept_longer(hands: Hands) -> None:
    await ended(hands, failed=True)

    await hands.at(31 * DAY)
    assert await sweep(hands) == (0, 0)
    assert await hands.count("attempts") == 1
    await hands.at(91 * DAY)
    assert await sweep(hands) == (1, 1)
    assert await hands.count("attempts") == 0


@pytest.mark.parametrize("kind", ["ready", "leased", "sleeping"])
async def test_a_live_run_is_never_swept(hands: Hands, kind: str) -> None:
    run = await hands.begin(is_direct=kind != "ready")
    if kind == "sleeping":
        asleep = step("z", status="sleeping")
        await hands.settle_one(
            run,
            1,
            Settlement(Verdict.TIMER, delay=366.0 * DAY, kind="sleep", step="z", steps=(asleep,)),
        )

    await hands.at(400 * DAY)
    assert await sweep(hands) == (0, 0)

    assert (await hands.count("runs"), await hands.count("events")) == (1, 1)
    [row] = await hands.lease(10)
    assert row["run_id"] == run.run_id and row["event"]


async def test_an_event_without_runs_goes_after_its_own_age(hands: Hands) -> None:
    await hands.take_in([sql.event("nobody/cares")])

    await hands.at(7 * DAY)
    assert await sweep(hands) == (0, 0)
    await hands.at(7 * DAY + 1)
    assert await sweep(hands) == (0, 1)


async def test_each_sweep_looks_at_a_stretch_of_the_events_and_then_begins_again(
    hands: Hands,
) -> None:
    await hands.take_in([sql.event(), sql.event()], [sql.start(1), sql.start(2)])
    await hands.take_in([sql.event("nobody/cares") for _ in range(5)])
    await hands.at(8 * DAY)

    # Ten events are a stretch of a sweep of two. The second begins where the first had found enough.
    assert [await sweep(hands, 2) for _ in range(4)] == [(0, 2), (0, 2), (0, 1), (0, 0)]
    await hands.take_in([sql.event("nobody/cares") for _ in range(2)])
    await hands.at(16 * DAY)
    assert await sweep(hands) == (0, 2)
    assert await hands.count("events") == 2


async def test_the_events_of_a_batch_go_with_its_run(hands: Hands) -> None:
    starts = [sql.start(i, rules=(sql.batch(2, 60),)) for i in (1, 2)]
    await hands.take_in([sql.event(), sql.event()], starts)
    await hands.at(61)
    await hands.fire()
    [row] = await hands.lease(10)
    await hands.cancel([row["run_id"]], "{}")

    await hands.at(20 * DAY)
    assert await sweep(hands) == (0, 0)
    await hands.at(40 * DAY)
    assert await sweep(hands) == (1, 2)
    assert await hands.count("not_started") == 0


async def test_an_event_stays_as_long_as_one_of_its_runs(hands: Hands) -> None:
    event = sql.event()
    short, long = sql.start(is_direct=True), sql.start(function=sql.function(2))
    await hands.take_in([event], [short, long])
    await hands.settle_one(short, 1, completed())

    await hands.at(31 * DAY)
    assert await sweep(hands) == (1, 0)

    assert await hands.count("events") == 1


async def test_a_batch_that_was_made_again_keeps_its_events(hands: Hands) -> None:
    starts = [sql.start(i, key=None, rules=(sql.batch(2, 60),)) for i in (1, 2)]
    await hands.take_in([sql.event(), sql.event()], starts)
    [first] = await hands.fire()
    await hands.lease(1)
    await hands.settle_one(first, 1, completed())
    await hands.at(29 * DAY)
    again = Rerun(first.run_id, sql.new_id(), 1, None, (), None, ())
    assert await hands.rerun(again) == "started"

    await hands.at(31 * DAY)
    assert await sweep(hands) == (1, 0)

    [row] = await hands.lease(1)
    assert row["run_id"] == again.run_id
    assert len(row["more_events"]) == 2
    await hands.settle_one(again.run_id, 1, completed())
    await hands.at(62 * DAY)
    assert await sweep(hands) == (1, 2)
    assert await hands.count("not_started") == 0


async def test_a_sweep_takes_a_bounded_number_at_a_time(hands: Hands) -> None:
    for _ in range(5):
        await ended(hands)
    await hands.at(31 * DAY)

    assert [await sweep(hands, 2) for _ in range(4)] == [(2, 2), (2, 2), (1, 1), (0, 0)]


async def test_remembered_ids_go_when_their_time_is_over(hands: Hands) -> None:
    await hands.take_in([sql.event(event_id="x")], [sql.start(key="x")])

    await hands.at(DAY)
    await sweep(hands)
    assert await hands.count("dedupe") == 1
    await hands.at(DAY + 1)
    await sweep(hands)
    assert await hands.count("dedupe") == 0


async def test_runs_and_events_can_be_read_while_they_live_and_after(hands: Hands) -> None:
    event = sql.event("app/f", {"n": 1}, event_id="mine")
    run = sql.start(is_direct=True, key="mine")
    await hands.take_in([event], [run])
    await hands.settle_one(run, 1, went_on(step("b", 1), step("a", 2)))

    state = await hands.get_state(run.run_id)
    assert state is not None
    assert (state["event"], state["hashes"]) == (event.payload, ["b", "a"])
    [job] = await hands.get_jobs(run.run_id)
    assert (job["job"], job["kind"], job["is_leased"]) == ("main", "edge", True)

    await hands.settle_one(run, 2, completed({"x": 1}))
    assert await hands.get_state(run.run_id) is None
    assert await hands.get_jobs(run.run_id) == []
    by_event = await hands.get_runs(event_id=event.id)
    assert by_event == await hands.get_runs(run_id=run.run_id)
    assert (by_event[0]["status"], by_event[0]["output"]) == ("Completed", '{"x":1}')
    assert await hands.get_runs(run_id="unknown") == []


async def test_events_are_listed_newest_first_and_page_by_page(hands: Hands) -> None:
    events = [sql.event("a" if i % 2 else "b") for i in range(6)]
    for i, event in enumerate(events):
        await hands.at(i)
        await hands.take_in([event])

    def ids(rows: object) -> list[int]:
        return [[e.id for e in events].index(row["id"]) for row in rows]  # type: ignore[attr-defined]

    after, until = (sql.NOON + timedelta(seconds=s) for s in (1, 4))
    assert ids(await hands.list_events(4, None, None, None, None)) == [5, 4, 3, 2]
    assert ids(await hands.list_events(4, events[2].id, None, None, None)) == [1, 0]
    assert ids(await hands.list_events(9, None, "a", None, None)) == [5, 3, 1]
    assert ids(await hands.list_events(9, None, None, after, until)) == [4, 3, 2, 1]
    found = await hands.get_event(events[0].id)
    assert found is not None and found["payload"] == events[0].payload


async def test_two_sweeps_at_once_need_no_leader(connect: Connect) -> None:
    a, b = Hands(await connect(), "A"), Hands(await connect(), "B")
    for hands in (a, b):
        await hands.at(0)
    for _ in range(10):
        await a.cancel([(await a.begin()).run_id], "{}")
    for hands in (a, b):
        await hands.at(60)
    second = timedelta(seconds=1)

    async with a.connection.transaction():
        assert await a.sweep(second, second, second, 6) == (6, 6)
        runs, events = await b.sweep(second, second, second, 6)

    assert (runs, events) == (4, 4), "it takes what the first has not, and waits for nothing"
    assert await a.count("runs") == await a.count("events") == 0


async def test_a_rerun_of_a_batch_keeps_its_events_when_the_first_run_goes(hands: Hands) -> None:
    starts = [sql.start(n, rules=(sql.batch(3, 60),)) for n in (1, 2, 3)]
    await hands.take_in([sql.event() for _ in starts], starts)
    await hands.fire()
    [first] = await hands.lease(8)
    await hands.settle_one(first["run_id"], 1, completed())
    await hands.at(29 * DAY)
    again = Rerun(first["run_id"], sql.new_id(), 1, None, [], None, ())
    assert await hands.rerun(again) == "started"

    await hands.at(31 * DAY)
    assert await sweep(hands) == (1, 0)

    [row] = await hands.lease(8)
    assert (row["run_id"], row["more_events"]) == (again.run_id, first["more_events"])
    assert len(row["more_events"]) == 3
    await hands.settle_one(again.run_id, row["gen"], completed())
    await hands.at(62 * DAY)
    assert await sweep(hands) == (1, 3)
