"""Lanes: limits of calls in flight, throttles, priorities and pauses, as `lease` keeps them."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_lanes import begin, ids, keep, lane
from tests.support.engine_sql import Hands, completed, settling, step, went_on

from stepbase.engine.effects import NewItem, Settlement, StepRow, Verdict
from stepbase.protocol.lane_options import Throttle

MINUTE = timedelta(minutes=1)


async def test_no_more_calls_of_a_key_are_leased_than_its_limit(hands: Hands) -> None:
    await keep(hands, limits=[2])
    a = await begin(hands, 3, lane("a"))
    b = await begin(hands, 3, lane("b"))

    rows = await hands.lease(10)
    assert sorted(ids(rows)) == sorted(r.run_id for r in (*a[:2], *b[:2]))
    assert {row["lane"] for row in rows} == {"1 a", "1 b"}
    assert await hands.of("B").lease(10) == []

    await hands.settle_one(a[0], 1, completed())
    assert ids(await hands.of("B").lease(10)) == [a[2].run_id]


async def test_runs_of_one_batch_take_their_turns_in_the_order_of_their_events(
    hands: Hands,
) -> None:
    # They were in the order in which their rows were stored, which is another one now and then.
    await keep(hands, limits=[1])
    runs = await begin(hands, 4, lane("a"))
    for run in reversed(runs):  # stores their rows again, the last one first
        for name in ("elsewhere", "1 a"):
            await hands.connection.execute(
                "update stepbase.queue set lane = $1 where run_id = $2", name, run.run_id
            )

    order = []
    for _ in runs:
        [row] = await hands.lease(10)
        order.append(row["run_id"])
        await hands.settle_one(row["run_id"], row["gen"], completed())

    assert order == [run.run_id for run in runs]


async def test_calls_with_a_lane_are_never_leased_at_the_start(hands: Hands) -> None:
    await keep(hands, limits=[1])

    [run] = await begin(hands, 1, lane("a"), is_direct=True)

    item = await hands.item(run)
    assert item is not None and item["ready"] and item["owner"] is None


async def test_sleeping_and_retrying_runs_hold_no_slot_and_wait_for_one_again(hands: Hands) -> None:
    await keep(hands, limits=[1])
    first, second = await begin(hands, 2, lane("a"))
    assert ids(await hands.lease(10)) == [first.run_id]

    await hands.settle_one(first, 1, Settlement(Verdict.TIMER, delay=10.0, attempt=1))
    assert ids(await hands.lease(10)) == [second.run_id]
    await hands.at(10)
    assert await hands.lease(10) == []
    await hands.settle_one(second, 1, completed())

    assert ids(await hands.lease(10)) == [first.run_id]


async def test_a_run_that_goes_on_keeps_its_slot(hands: Hands) -> None:
    await keep(hands, limits=[1])
    first, _ = await begin(hands, 2, lane("a"))
    await hands.lease(10)

    await hands.settle_one(first, 1, went_on(step("s")))

    assert await hands.lease(10) == []


async def test_planned_steps_count_each(hands: Hands) -> None:
    await keep(hands, limits=[2])
    [run] = await begin(hands, 1, lane("a"))
    await hands.lease(10)
    opened = Settlement(
        Verdict.PARK,
        planning=1,
        steps=tuple(StepRow(h, h, "StepPlanned", "planned", "null") for h in "xyz"),
        items=tuple(NewItem(h, "step") for h in "xyz"),
    )
    await hands.settle_one(run, 1, opened)

    rows = await hands.lease(10)
    assert [row["kind"] for row in rows] == ["step", "step"]
    closed = Settlement(Verdict.DONE, steps=(step(rows[0]["step"]),))
    await hands.settle_one(run, rows[0]["gen"], closed, job=rows[0]["job"])

    assert len(await hands.lease(10)) == 1


async def test_both_limits_hold_and_a_key_may_be_shared_between_functions(hands: Hands) -> None:
    await keep(hands, limits=[3, 2])
    await keep(hands, 2, limits=[2])
    await begin(hands, 4, lane("f", "shared"))
    await begin(hands, 4, lane("f", "own"))
    await begin(hands, 4, lane("shared", function=2), function=sql.function(2))

    taken = await hands.lease(20)
    counts = {
        key: await hands.count("queue", f"owner is not null and '{key}' in (key_1, key_2)")
        for key in ("f", "shared", "own")
    }

    assert counts["f"] == 3 and counts["shared"] == 2 and counts["own"] <= 2
    assert len(taken) == await hands.count("queue", "owner is not null")


async def test_a_changed_limit_holds_at_once_and_a_removed_one_not_at_all(hands: Hands) -> None:
    await keep(hands, limits=[1])
    await begin(hands, 5, lane("a"))
    assert len(await hands.lease(10)) == 1

    await keep(hands, limits=[3])
    assert len(await hands.lease(10)) == 2
    await keep(hands)
    assert len(await hands.lease(10)) == 2


async def test_slots_of_a_dead_engine_are_free_when_its_leases_end(hands: Hands) -> None:
    await keep(hands, limits=[1])
    [first] = await begin(hands, 1, lane("a"))
    await hands.lease(1)
    await hands.at(29)
    await begin(hands, 1, lane("a"))
    assert await hands.of("B").lease(10) == []

    await hands.at(30)

    assert ids(await hands.of("B").lease(10)) == [first.run_id]


async def test_cancelling_frees_the_slot(hands: Hands) -> None:
    await keep(hands, limits=[1])
    first, second = await begin(hands, 2, lane("a"))
    await hands.lease(1)

    await hands.cancel([first.run_id], "{}")

    assert ids(await hands.lease(1)) == [second.run_id]


async def test_many_small_tenants_are_not_starved_by_a_large_one(hands: Hands) -> None:
    await keep(hands, limits=[3])
    large = await begin(hands, 2000, lane("large"))
    small = {f"t{n:02}": await begin(hands, 4, lane(f"t{n:02}")) for n in range(59)}
    free = await hands.begin()
    of_small = {run.run_id for runs in small.values() for run in runs}
    served: set[str] = set()

    rounds = 0
    while not of_small <= served:
        rounds += 1
        rows = await hands.lease(30)
        served.update(ids(rows))
        await hands.settle([settling(row["run_id"], row["gen"], completed()) for row in rows])

    # 236 calls of theirs, 3 a round of the large one, which has most of its work before it.
    assert rounds <= 12
    assert free.run_id in served
    assert len(served & {run.run_id for run in large}) < 60


async def test_a_lane_gets_what_the_others_leave(hands: Hands) -> None:
    await keep(hands, limits=[50])
    await begin(hands, 1, lane("a"))
    await begin(hands, 40, lane("b"))

    assert len(await hands.lease(30)) == 30


async def test_limited_and_other_calls_share_an_engine(hands: Hands) -> None:
    await keep(hands, limits=[100])
    await begin(hands, 20, lane("a"))
    for _ in range(20):
        await hands.begin()

    lanes = [row["lane"] for row in await hands.lease(10)]

    assert (lanes.count("1 a"), lanes.count(None)) == (5, 5)
    assert len(await hands.lease(100)) == 30


async def test_more_lanes_than_one_lease_visits_are_all_served_in_turn(hands: Hands) -> None:
    await keep(hands, limits=[1])
    await begin_each(hands, 150, 2)

    sizes = [len(await hands.lease(100)) for _ in range(3)]

    assert sizes == [64, 64, 22]
    assert hands.turns.again == pytest.approx(0.1)


async def test_full_lanes_are_looked_through_once_and_again_when_something_happens(
    hands: Hands,
) -> None:
    await keep(hands, limits=[1])
    await begin_each(hands, 150, 2)

    looks = 0
    while await hands.lease(100) or hands.turns.again is not None:
        looks += 1
    assert looks < 15

    hands.turns.restart()
    assert await hands.lease(100) == []
    assert hands.turns.again == pytest.approx(0.1)


async def begin_each(hands: Hands, lanes: int, count: int) -> None:
    runs = [
        sql.start(n * count + i + 1, lane=lane(f"k{n:03}"))
        for n in range(lanes)
        for i in range(count)
    ]
    await hands.take_in([sql.event() for _ in runs], runs)


async def test_a_freed_lane_is_looked_at_first(hands: Hands) -> None:
    await keep(hands, limits=[1])
    await begin_each(hands, 150, 2)
    while await hands.lease(100):
        pass
    [held] = await hands.connection.fetch(
        "select run_id, gen from stepbase.queue where lane = '1 k140' and owner is not null"
    )
    await hands.settle_one(held["run_id"], held["gen"], completed())

    [row] = await hands.lease(1, ["1 k140"])

    assert row["lane"] == "1 k140"


async def test_a_key_that_another_engine_counts_is_passed_over(connect: Connect) -> None:
    a, b = Hands(await connect(), "A"), Hands(await connect(), "B")
    await keep(a, limits=[5])
    await begin(a, 5, lane("a"))

    async with a.connection.transaction():
        assert len(await a.lease(2)) == 2
        other = await b.begin()
        assert ids(await b.lease(5)) == [other.run_id]
        assert b.turns.again == pytest.approx(0.01)

    assert len(await b.lease(5)) == 3


async def test_what_has_priority_goes_first_with_all_its_calls(hands: Hands) -> None:
    plain = await hands.begin()
    await hands.at(10)
    first, late = await hands.begin(priority=20.0), await hands.begin(priority=5.0)
    lower = await hands.begin(priority=-5.0)

    rows = await hands.lease(10)
    assert ids(await hands.lease(10)) == []
    await hands.settle(
        [settling(row["run_id"], row["gen"], Settlement(Verdict.READY)) for row in rows]
    )

    order = [(await hands.lease(1))[0]["run_id"] for _ in rows]
    assert order == [run.run_id for run in (first, plain, late, lower)]


async def test_a_throttle_lets_limit_and_burst_start_and_then_one_in_its_time(hands: Hands) -> None:
    # 5 in 10 s, burst 1: Inngest starts 6 at once and then one every 2 s (recorded, protocol 3.8).
    throttle = Throttle(5, 10.0)
    await keep(hands, every=throttle.every, slack=throttle.slack)
    runs = await begin(hands, 9, lane(throttle="t"))

    assert ids(await hands.lease(20)) == [run.run_id for run in runs[:6]]
    assert hands.turns.again == pytest.approx(2.0)
    await hands.at(1.999999)
    assert await hands.lease(20) == []
    assert hands.turns.again == pytest.approx(0.000001)
    await hands.at(2)
    assert ids(await hands.lease(20)) == [runs[6].run_id]
    await hands.at(6)
    assert len(await hands.lease(20)) == 2
    assert hands.turns.again is None or hands.turns.again > 0


async def test_only_the_start_is_throttled(hands: Hands) -> None:
    await keep(hands, limits=[5], every=60_000_000, slack=0)
    first, _ = await begin(hands, 2, lane("a", throttle="t"))
    [row] = await hands.lease(5)
    assert (row["run_id"], row["lane"]) == (first.run_id, "1 a")

    await hands.settle_one(first, 1, Settlement(Verdict.READY))

    assert ids(await hands.lease(5)) == [first.run_id]


async def test_a_cancelled_run_takes_no_permit(hands: Hands) -> None:
    await keep(hands, every=60_000_000, slack=60_000_000)
    _, second, third, _ = await begin(hands, 4, lane(throttle="t"))
    await hands.cancel([second.run_id], "{}")

    assert third.run_id in ids(await hands.lease(5))


async def test_throttles_that_are_over_are_swept(hands: Hands) -> None:
    await keep(hands, every=1_000_000, slack=0)
    await begin(hands, 1, lane(throttle="t"))
    await hands.lease(1)
    await hands.sweep(MINUTE, MINUTE, MINUTE, 10)
    assert await hands.count("throttles") == 1

    await hands.at(2)
    await hands.sweep(MINUTE, MINUTE, MINUTE, 10)

    assert await hands.count("throttles") == 0


class Gcra:
    """The model: one start at a time, in whole microseconds."""

    def __init__(self, throttle: Throttle) -> None:
        self.throttle = throttle
        self.tat = 0

    def admit(self, now: int) -> bool:
        """Let one start through, or not."""
        ahead = max(self.tat - now, 0)
        if ahead > self.throttle.slack:
            return False
        self.tat = now + ahead + self.throttle.every
        return True


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    throttle=st.builds(
        Throttle,
        limit=st.integers(1, 7),
        period=st.sampled_from([1.0, 3.0, 10.0, 0.7]),
        burst=st.integers(0, 3),
    ),
    moves=st.lists(
        st.tuples(st.integers(0, 4_000_000), st.integers(0, 4), st.integers(1, 6)), max_size=12
    ),
)
async def test_throttled_starts_are_those_of_the_model(
    hands: Hands, throttle: Throttle, moves: list[tuple[int, int, int]]
) -> None:
    key = sql.new_id()
    await keep(hands, every=throttle.every, slack=throttle.slack)
    model, micros, waiting = Gcra(throttle), 0, 0
    for passed, arriving, slots in moves:
        micros += passed
        await hands.at(micros / 1_000_000)
        await begin(hands, arriving, lane(throttle=key))
        waiting += arriving

        got = len(await hands.lease(slots))

        expected = 0
        while expected < min(slots, waiting) and model.admit(micros):
            expected += 1
        assert got == expected
        waiting -= got
        if waiting and got < slots:
            assert hands.turns.again == pytest.approx((model.tat - throttle.slack - micros) / 1e6)
    await hands.connection.execute("delete from stepbase.queue")
    await hands.at(0)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    limit=st.integers(1, 4),
    moves=st.lists(
        st.tuples(
            st.sampled_from(["start", "lease", "end", "wait", "cancel", "die"]), st.integers(0, 3)
        ),
        max_size=25,
    ),
)
async def test_calls_in_flight_are_those_of_the_model(
    hands: Hands, limit: int, moves: list[tuple[str, int]]
) -> None:
    await keep(hands, limits=[limit])
    await hands.connection.execute("delete from stepbase.queue")
    held: dict[str, int] = {}
    ready, seconds = 0, 0.0
    for move, n in moves:
        if move == "start":
            ready += len(await begin(hands, n, lane("k")))
        elif move == "lease":
            rows = await hands.lease(n + 1)
            assert len(rows) == min(n + 1, ready, limit - len(held))
            held.update((row["run_id"], row["gen"]) for row in rows)
            ready -= len(rows)
        elif held and move in ("end", "wait"):
            run, gen = held.popitem()
            effects = completed() if move == "end" else Settlement(Verdict.READY)
            ready += move == "wait"
            await hands.settle_one(run, gen, effects)
        elif held and move == "cancel":
            await hands.cancel([held.popitem()[0]], "{}")
        elif move == "die":
            seconds += 31
            await hands.at(seconds)
            ready += len(held)
            held.clear()
        assert await hands.count("queue", "key_1 = 'k' and owner is not null") <= limit
    await hands.at(0)


async def test_paused_functions_make_no_calls_and_others_go_on(hands: Hands) -> None:
    await keep(hands)
    await keep(hands, 2)
    runs = [await hands.begin() for _ in range(3)]
    asleep = await hands.begin(due=sql.NOON + MINUTE)
    others = [await hands.begin(function=sql.function(2)) for _ in range(3)]

    assert await hands.pause_function("app-f1", is_paused=True)
    assert ids(await hands.lease(10)) == [run.run_id for run in others]
    await hands.settle([settling(run, 1, completed()) for run in others])
    await hands.at(60)
    assert await hands.lease(10) == []
    tick = await hands.tick(None)
    assert (tick.has_ready, tick.has_lanes) == (False, True)

    assert await hands.pause_function("app-f1", is_paused=False)
    rows = await hands.lease(10)
    assert sorted(ids(rows)) == sorted(run.run_id for run in (*runs, asleep))
    assert {row["lane"] for row in rows} == {None}


async def test_timeouts_go_on_while_a_function_is_paused(hands: Hands) -> None:
    await keep(hands)
    await hands.begin(deadline=5.0)
    await hands.pause_function("app-f1", is_paused=True)
    await hands.at(5)

    assert [row["kind"] for row in await hands.lease(10)] == ["deadline"]


async def test_pausing_tells_engines_and_knows_its_functions(hands: Hands) -> None:
    await keep(hands)
    epoch = await hands.epoch()

    assert not await hands.pause_function("app-none", is_paused=True)
    assert await hands.pause_function("app-f1", is_paused=True)
    assert await hands.pause_function("app-f1", is_paused=True)

    assert await hands.epoch() == epoch + 1
    assert [row["is_paused"] for row in await hands.load_functions()] == [True]
