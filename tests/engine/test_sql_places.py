"""Limits of whole runs: a run has its place from its first call until it ends, however it ends."""

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_lanes import begin, ids, keep, lane
from tests.support.engine_sql import Hands, completed, step, went_on

from stepbase.engine.effects import NewItem, Settlement, StepRow, Verdict
from stepbase.engine.starts import Start

RETRY = Settlement(Verdict.TIMER, delay=10.0, attempt=1)
SLEEP = Settlement(
    Verdict.TIMER, delay=10.0, kind="sleep", step="z",
    steps=(StepRow("z", "z", "Sleep", "sleeping", "null"),),
)  # fmt: skip
PARALLEL = Settlement(
    Verdict.PARK,
    planning=1,
    steps=tuple(StepRow(h, h, "StepPlanned", "planned", "null") for h in "xy"),
    items=tuple(NewItem(h, "step") for h in "xy"),
)


@pytest.mark.parametrize("goes_on", [RETRY, SLEEP, PARALLEL, went_on(step("s"))])
async def test_a_run_keeps_its_place_whatever_it_waits_for(
    hands: Hands, goes_on: Settlement
) -> None:
    await keep(hands, runs=1)
    first, _ = await begin(hands, 2, lane(run="r"))
    assert ids(await hands.lease(10)) == [first.run_id]

    await hands.settle_one(first, 1, goes_on)

    assert set(ids(await hands.lease(10))) <= {first.run_id}
    await hands.at(60)
    assert set(ids(await hands.lease(10))) <= {first.run_id}


async def ends(hands: Hands, run: Start) -> None:
    await hands.settle_one(run, 1, completed())


async def fails(hands: Hands, run: Start) -> None:
    await hands.settle_one(run, 1, Settlement(Verdict.END, status="Failed", error="{}"))


async def is_cancelled(hands: Hands, run: Start) -> None:
    await hands.cancel([run.run_id], "{}")


async def is_cancelled_asleep(hands: Hands, run: Start) -> None:
    await hands.settle_one(run, 1, SLEEP)
    await hands.cancel([run.run_id], "{}")


async def takes_too_long(hands: Hands, run: Start) -> None:
    await hands.settle_one(run, 1, SLEEP, finish=5.0)
    await hands.at(6)
    [row] = [row for row in await hands.lease(1) if row["kind"] == "deadline"]
    over = Settlement(Verdict.END, status="Cancelled", error="{}", was_called=False)
    await hands.settle_one(run, row["gen"], over, job="deadline:finish")


async def meets_its_cancel_on(hands: Hands, run: Start) -> None:
    await hands.take_in([sql.event("app/stop", {"id": 7})])


async def loses_to_a_newer_one(hands: Hands, run: Start) -> None:
    rule = sql.singleton("s", "cancel")
    newer = sql.start(rules=(rule,), due=sql.NOON.replace(year=2027))
    await hands.take_in([sql.event()], [newer])


@pytest.mark.parametrize(
    "end",
    [
        ends, fails, is_cancelled, is_cancelled_asleep, takes_too_long, meets_its_cancel_on,
        loses_to_a_newer_one,
    ],
)  # fmt: skip
async def test_a_place_is_free_as_soon_as_its_run_has_ended(
    hands: Hands, end: Callable[[Hands, Start], Awaitable[None]]
) -> None:
    await keep(hands, runs=1)
    pause = sql.pause("app/stop", "data.id", 7)
    [first] = await begin(
        hands, 1, lane(run="r"), rules=(sql.singleton("s", "cancel"),), pauses=(pause,)
    )
    second, _ = await begin(hands, 2, lane(run="r"))
    await hands.lease(10)

    await end(hands, first)

    assert await hands.count("runs", f"run_id = '{first.run_id}' and ended_at is null") == 0
    assert ids(await hands.lease(10)) == [second.run_id]


async def test_each_key_has_its_places_and_its_order(hands: Hands) -> None:
    await keep(hands, runs=2)
    a = await begin(hands, 4, lane(run="a"))
    b = await begin(hands, 1, lane(run="b"))
    assert sorted(ids(await hands.lease(10))) == sorted(r.run_id for r in (*a[:2], *b))

    for ended, next_one in zip(a, a[2:], strict=False):
        await hands.settle_one(ended, 1, completed())
        assert ids(await hands.lease(10)) == [next_one.run_id]


async def test_a_run_that_waits_has_no_place_and_its_cancelling_frees_none(hands: Hands) -> None:
    await keep(hands, runs=1)
    _, second, _ = await begin(hands, 3, lane(run="r"))
    await hands.lease(10)

    await hands.cancel([second.run_id], "{}")

    assert await hands.lease(10) == []


async def test_a_place_outlives_the_engine_that_made_the_call(hands: Hands) -> None:
    await keep(hands, runs=1)
    [first] = await begin(hands, 1, lane(run="r"))
    await hands.lease(10)
    await hands.at(29)
    [second] = await begin(hands, 1, lane(run="r"))
    await hands.at(30)

    [again] = await hands.of("B").lease(10)
    assert again["run_id"] == first.run_id
    await hands.of("B").settle_one(first, again["gen"], completed())

    assert ids(await hands.lease(10)) == [second.run_id]


async def test_steps_runs_and_starts_are_limited_together(hands: Hands) -> None:
    await keep(hands, limits=[2], runs=3, every=60_000_000, slack=4 * 60_000_000)
    where = lane("k", throttle="t", run="r")
    runs = await begin(hands, 6, where)

    assert ids(await hands.lease(10)) == [run.run_id for run in runs[:2]]
    await hands.settle_one(runs[0], 1, SLEEP)
    assert ids(await hands.lease(10)) == [runs[2].run_id]
    await hands.settle_one(runs[1], 1, completed())
    assert ids(await hands.lease(10)) == [runs[3].run_id]
    await hands.cancel([runs[0].run_id, runs[2].run_id, runs[3].run_id], "{}")

    # Five starts are all that the throttle allows at once.
    assert ids(await hands.lease(10)) == [runs[4].run_id]


async def test_a_changed_limit_of_runs_holds_at_once_and_a_removed_one_not_at_all(
    hands: Hands,
) -> None:
    await keep(hands, runs=1)
    await begin(hands, 6, lane(run="r"))
    assert len(await hands.lease(10)) == 1

    await keep(hands, runs=3)
    assert len(await hands.lease(10)) == 2
    await keep(hands)
    assert len(await hands.lease(10)) == 3
    await keep(hands, runs=6)
    assert await hands.count("queue", "place = 'r'") == 6


async def test_a_paused_and_resumed_run_keeps_its_place(hands: Hands) -> None:
    await keep(hands, runs=1)
    first, _ = await begin(hands, 2, lane(run="r"))
    await hands.lease(10)
    await hands.settle_one(first, 1, Settlement(Verdict.READY))
    await hands.pause_function("app-f1", is_paused=True)
    assert await hands.lease(10) == []

    await hands.pause_function("app-f1", is_paused=False)

    assert ids(await hands.lease(10)) == [first.run_id]


async def test_engines_that_lease_at_once_never_exceed_a_limit_of_runs(connect: Connect) -> None:
    a, b = Hands(await connect(), "A"), Hands(await connect(), "B")
    await keep(a, runs=3)
    await begin(a, 6, lane(run="r"))

    async with a.connection.transaction():
        assert len(await a.lease(2)) == 2
        assert await b.lease(5) == []
        assert b.turns.again == pytest.approx(0.01)

    assert len(await b.lease(5)) == 1


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["start", "lease", "sleep", "go on", "end", "cancel", "die", "wake"]),
        st.integers(0, 4),
    ),
    max_size=30,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(limit=st.integers(1, 3), moves=MOVES)
async def test_runs_that_are_going_on_are_those_of_the_model(
    hands: Hands, limit: int, moves: list[tuple[str, int]]
) -> None:
    """The model: who has begun and not ended, a queue of those that wait, and a limit."""
    await keep(hands, runs=limit)
    await hands.connection.execute("delete from stepbase.queue")
    waiting: list[str] = []
    going: list[str] = []  # in the order in which they began
    held: dict[str, int] = {}
    clock = 0.0
    for move, n in moves:
        if move == "start":
            clock += 0.001
            await hands.at(clock)
            waiting += [run.run_id for run in await begin(hands, n, lane(run="k"))]
        elif move == "lease":
            rows = {row["run_id"]: row["gen"] for row in await hands.lease(50)}
            new = [run for run in rows if run not in going]
            assert sorted(new) == waiting[: max(0, limit - len(going))]
            waiting, going = waiting[len(new) :], going + new
            held |= rows
        elif held and move in ("sleep", "go on", "end"):
            run, gen = held.popitem()
            effects = {"sleep": SLEEP, "go on": Settlement(Verdict.READY), "end": completed()}
            await hands.settle_one(run, gen, effects[move])
            if move == "end":
                going.remove(run)
        elif going and move == "cancel":
            run = going.pop(n % len(going))
            held.pop(run, None)
            await hands.cancel([run], "{}")
        elif move in ("die", "wake"):  # every lease ends, every sleep is over
            clock += 60
            await hands.at(clock)
            held = {}
        assert await hands.count("queue", "place = 'k'") == len(going) <= limit
    await hands.connection.execute("delete from stepbase.queue")
    await hands.at(0)
