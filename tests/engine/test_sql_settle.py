"""`settle`: who may write what a reply asks for, and that it is written once."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import NOON, Hands, completed, settling, step, went_on

from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.store import Settled

APPLIED_2 = Settled("applied", 2)
LOST = Settled("lost", 0)


# --- the fence ---------------------------------------------------------------------------------


async def test_the_holder_of_the_lease_may_settle(hands: Hands) -> None:
    run = await hands.begin_leased()

    assert await hands.settle_one(run, 1, went_on(step("a", 1))) == APPLIED_2
    assert await hands.steps(run) == [("a", "done", '{"data":1}')]
    assert await hands.settle_one(run, 2, completed("x")) == Settled("applied", 3)

    ended = await hands.run(run)
    assert (ended["status"], ended["output"], ended["step_count"]) == ("Completed", '"x"', 1)


@pytest.mark.parametrize("gen", [0, 2, 99, -1])
async def test_a_settle_with_another_gen_changes_nothing(hands: Hands, gen: int) -> None:
    run = await hands.begin_leased()
    before = await _everything(hands)

    assert await hands.settle_one(run, gen, went_on(step("a"))) == LOST
    assert await hands.settle_one(run, gen, completed()) == LOST
    assert await _everything(hands) == before


async def test_another_owners_settle_changes_nothing(hands: Hands) -> None:
    run = await hands.begin_leased()
    before = await _everything(hands)

    assert await hands.of("B").settle_one(run, 1, completed()) == LOST
    assert await _everything(hands) == before


async def test_a_settle_after_a_cancel_changes_nothing(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.cancel([run.run_id], '{"name":"Cancelled"}')
    before = await _everything(hands)

    assert await hands.settle_one(run, 1, completed()) == LOST
    assert await _everything(hands) == before
    assert await hands.status(run) == "Cancelled"


async def test_an_expired_lease_may_be_settled_until_somebody_has_taken_it(hands: Hands) -> None:
    kept, taken = await hands.begin_leased(), await hands.begin_leased()
    await hands.at(31)

    assert await hands.settle_one(kept, 1, went_on(step("a"))) == APPLIED_2
    [row] = await hands.of("B").lease(10)
    assert row["run_id"] == taken.run_id

    assert await hands.settle_one(taken, 1, completed()) == LOST
    assert await hands.of("B").settle_one(taken, 2, completed()) == Settled("applied", 3)


async def test_a_settle_that_meets_a_takeover_in_flight_waits_and_loses(connect: Connect) -> None:
    """Between looking at the fence and writing, another engine may lease the expired item."""
    a, b = Hands(await connect(), "A"), Hands(await connect(), "B")
    await a.at(0)
    run = await a.begin_leased()
    await a.at(31)
    await b.at(31)

    async with b.connection.transaction():
        [row] = await b.lease(1)
        settling_a = asyncio.create_task(a.settle_one(run, 1, went_on(step("mine", "a"))))
        await _is_waiting(b.connection)

    assert await settling_a == LOST
    assert await b.steps(run) == []
    assert await b.settle_one(run, row["gen"], went_on(step("mine", "b"))) == Settled("applied", 3)


# --- once --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "effects",
    [
        went_on(step("a", 1)),
        Settlement(Verdict.READY, steps=(step("a", 1),)),
        Settlement(Verdict.TIMER, delay=5.0, attempt=1, failed=sql.failed_attempt()),
        Settlement(Verdict.TIMER, delay=5.0, kind="sleep", step="z", steps=(step("z", status="sleeping"),)),
        completed({"x": 1}),
        Settlement(Verdict.END, status="Failed", error='{"name":"E"}', failed=sql.failed_attempt()),
    ],
    ids=lambda effects: effects.verdict.name,
)  # fmt: skip
async def test_sending_a_settle_twice_equals_sending_it_once(
    hands: Hands, effects: Settlement
) -> None:
    run = await hands.begin_leased()
    assert (await hands.settle_one(run, 1, effects)).outcome == "applied"
    once = await _everything(hands)

    again = await hands.settle_one(run, 1, effects)

    assert await _everything(hands) == once
    goes_on = effects.verdict is Verdict.CONTINUE
    assert again == (Settled("already", 2) if goes_on else LOST)


async def test_a_settle_is_not_already_done_because_its_own_engine_leased_again(
    hands: Hands,
) -> None:
    """After an outage longer than a lease an engine may lease back what an old call of its own holds."""
    run = await hands.begin_leased()
    await hands.settle_one(run, 1, went_on(step("a")))
    await hands.at(31)
    [row] = await hands.lease(1)
    assert row["gen"] == 3

    assert await hands.settle_one(run, 2, went_on(step("b"))) == LOST
    assert [hashed for hashed, _, _ in await hands.steps(run)] == ["a"]
    assert await hands.settle_one(run, 3, went_on(step("b"))) == Settled("applied", 4)


async def test_a_settle_that_went_on_twice_since_is_lost(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.settle_one(run, 1, went_on(step("a")))
    await hands.settle_one(run, 2, went_on(step("b")))

    assert await hands.settle_one(run, 1, went_on(step("a"))) == LOST


async def test_a_stored_step_keeps_its_first_memo(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.settle_one(run, 1, went_on(step("a", "first")))
    await hands.settle_one(run, 2, went_on(step("a", "second"), step("b", 1)))

    assert await hands.steps(run) == [
        ("a", "done", '{"data":"first"}'),
        ("b", "done", '{"data":1}'),
    ]


# --- several calls in one statement --------------------------------------------------------------


async def test_a_batch_settles_each_call_by_itself(hands: Hands) -> None:
    runs = [await hands.begin_leased() for _ in range(4)]
    await hands.cancel([runs[1].run_id], "{}")

    outcomes = await hands.settle(
        [
            settling(runs[0], 1, went_on(step("a"))),
            settling(runs[1], 1, completed()),
            settling(runs[2], 7, completed()),
            settling(runs[3], 1, completed()),
        ]
    )

    assert outcomes == [APPLIED_2, LOST, LOST, Settled("applied", 2)]
    assert [await hands.status(run) for run in runs] == [
        "Running", "Cancelled", "Scheduled", "Completed",
    ]  # fmt: skip


async def test_the_stack_keeps_its_order_whatever_else_was_in_the_batches(hands: Hands) -> None:
    others = [await hands.begin_leased() for _ in range(5)]
    run = await hands.begin_leased()

    await hands.settle(
        [settling(each, 1, went_on(step("x"), step("y"))) for each in others]
        + [settling(run, 1, went_on(step("d"), step("c")))]
    )
    await hands.settle([settling(run, 2, went_on(step("b")))])
    await hands.settle(
        [settling(others[0], 2, went_on(step("z"))), settling(run, 3, went_on(step("a")))]
    )

    assert [hashed for hashed, _, _ in await hands.steps(run)] == ["d", "c", "b", "a"]
    assert [hashed for hashed, _, _ in await hands.steps(others[0])] == ["x", "y", "z"]


async def test_two_items_of_one_run_in_one_batch_lose_nothing(hands: Hands) -> None:
    run = await hands.begin(
        is_direct=True, pauses=(sql.pause("app/stop", residual="async.data.n > 1"),)
    )
    await hands.take_in([sql.event("app/stop", {"n": 0})])
    [match] = await hands.lease(10)
    assert match["kind"] == "match"

    outcomes = await hands.settle(
        [
            settling(run, match["gen"], Settlement(Verdict.DONE, was_called=False), match["job"], None),
            settling(run, 1, went_on(step("a"), step("b"))),
        ]
    )  # fmt: skip
    await hands.settle_one(run, 2, went_on(step("c")))

    row = await hands.run(run)
    assert [each.outcome for each in outcomes] == ["applied", "applied"]
    assert (row["status"], row["step_count"], row["req_version"]) == ("Running", 3, 2)
    assert [hashed for hashed, _, _ in await hands.steps(run)] == ["a", "b", "c"]


async def test_one_bad_value_refuses_the_batch_and_changes_nothing(hands: Hands) -> None:
    good, bad = await hands.begin_leased(), await hands.begin_leased()
    before = await _everything(hands)

    with pytest.raises(asyncpg.DataError):
        async with hands.connection.transaction():
            await hands.settle(
                [
                    settling(good, 1, went_on(step("a"))),
                    settling(bad, 1, replace(completed(), output="{")),
                ]
            )

    assert await _everything(hands) == before


# --- what becomes of the item ------------------------------------------------------------------


async def test_going_on_keeps_the_lease_and_prolongs_it_in_its_second_half(hands: Hands) -> None:
    run = await hands.begin_leased()

    await hands.at(10)
    await hands.settle_one(run, 1, went_on(step("a")))
    early = await hands.item(run)
    await hands.at(20)
    await hands.settle_one(run, 2, went_on(step("b")))
    late = await hands.item(run)

    assert early is not None and late is not None
    assert (early["owner"], early["ready"], early["due_at"]) == ("A", False, NOON + sql.LEASE)
    assert late["due_at"] == NOON + timedelta(seconds=50)
    assert (early["hops"], late["hops"], late["attempt"]) == (1, 2, 0)


async def test_a_timer_counts_from_the_databases_now(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.at(7)

    await hands.settle_one(run, 1, Settlement(Verdict.TIMER, delay=5.0, attempt=3))

    item = await hands.item(run)
    assert item is not None
    assert (item["ready"], item["owner"], item["attempt"]) == (False, None, 3)
    assert item["due_at"] == NOON + timedelta(seconds=12)


async def test_an_outage_is_remembered_until_the_host_answers(hands: Hands) -> None:
    away = Settlement(Verdict.TIMER, delay=1.0, was_called=False, is_outage=True)
    run = await hands.begin_leased()

    await hands.settle_one(run, 1, away, called=None)
    await hands.at(100)
    [first] = await hands.lease(1)
    await hands.settle_one(run, first["gen"], away, called=None)
    await hands.at(200)
    [second] = await hands.lease(1)
    await hands.settle_one(run, second["gen"], Settlement(Verdict.TIMER, delay=1.0, attempt=1))
    await hands.at(300)
    [third] = await hands.lease(1)

    assert [row["outage_seconds"] for row in (first, second, third)] == [100.0, 200.0, None]


async def test_a_woken_sleep_is_done_with_the_call_it_woke(hands: Hands) -> None:
    asleep = Settlement(
        Verdict.TIMER, delay=60.0, kind="sleep", step="z", steps=(step("z", status="sleeping"),)
    )
    run = await hands.begin_leased()
    await hands.settle_one(run, 1, went_on(step("a", 1)))
    await hands.settle_one(run, 2, asleep)
    assert await hands.steps(run) == [("a", "done", '{"data":1}'), ("z", "sleeping", "null")]

    await hands.at(60)
    [row] = await hands.lease(1)
    assert (row["kind"], row["step"], row["hashes"], row["memos"]) == (
        "sleep", "z", ["a", "z"], ['{"data":1}', "null"],
    )  # fmt: skip
    await hands.settle_one(run, row["gen"], went_on(step("b")), woken="z")

    assert await hands.steps(run) == [
        ("a", "done", '{"data":1}'), ("z", "done", "null"), ("b", "done", '{"data":null}'),
    ]  # fmt: skip
    item = await hands.item(run)
    assert item is not None and (item["kind"], item["step"]) == ("edge", None)


async def test_the_end_of_a_run_takes_its_items_and_pauses_along(hands: Hands) -> None:
    run = await hands.begin_leased(deadline=60.0, pauses=(sql.pause("app/stop", "data.x", 1),))

    await hands.settle_one(run, 1, completed(), finish=60.0)

    assert await hands.count("queue") == await hands.count("pauses") == 0
    row = await hands.run(run)
    assert (row["ended_at"], row["started_at"]) == (NOON, NOON - timedelta(seconds=0.1))


async def test_the_finish_timeout_counts_from_the_first_call(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.at(10)

    await hands.settle_one(run, 1, went_on(step("a")), called=4.0, finish=60.0)
    await hands.settle_one(run, 2, went_on(step("b")), called=1.0, finish=60.0)

    row, deadline = await hands.run(run), await hands.item(run, "deadline:finish")
    assert deadline is not None
    assert row["deadline_at"] == deadline["due_at"] == NOON + timedelta(seconds=66)
    await hands.at(66)
    rows = {row["job"]: row["is_overdue"] for row in await hands.lease(10)}
    assert rows == {"main": True, "deadline:finish": True}


async def test_a_call_that_was_not_answered_does_not_start_the_run(hands: Hands) -> None:
    run = await hands.begin_leased()

    await hands.settle_one(
        run, 1, Settlement(Verdict.TIMER, delay=1.0, was_called=False), called=None, finish=60.0
    )

    row = await hands.run(run)
    assert (row["status"], row["started_at"], row["deadline_at"]) == ("Scheduled", None, None)


async def test_failed_attempts_are_kept(hands: Hands) -> None:
    run = await hands.begin_leased()

    await hands.settle_one(
        run, 1, Settlement(Verdict.TIMER, delay=0.0, attempt=1, failed=sql.failed_attempt(0))
    )

    rows = await hands.connection.fetch("select * from stepbase.attempts")
    assert [(r["run_id"], r["attempt"], r["http_status"], r["error"]) for r in rows] == [
        (run.run_id, 0, 500, '{"name":"E"}')
    ]


async def _everything(hands: Hands) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of the engine's state."""
    tables = ("runs", "steps", "attempts", "queue", "pauses", "events", "dedupe")
    return {
        table: sorted(
            tuple(map(str, row)) for row in await hands.connection.fetch(f"table stepbase.{table}")
        )
        for table in tables
    }


async def _is_waiting(connection: asyncpg.Connection) -> None:
    """Wait until some other connection waits for a lock of this one."""
    async with asyncio.timeout(10):
        while not await connection.fetchval(
            "select count(*) from pg_stat_activity where pg_backend_pid() = any (pg_blocking_pids(pid))"
        ):
            await asyncio.sleep(0.01)
