"""Waits that look back: which earlier event ends one, and that none is missed or seen twice."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import combinations
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import NOON, Hands

from stepbase.engine import looking
from stepbase.engine.effects import NewItem, NewPause, Settlement, StepRow, Verdict
from stepbase.engine.match import ALWAYS, Wait
from stepbase.engine.starts import Event, Start

BY_ID = Wait("data.id", '"p1"', None)
ODD = Wait("data.id", '"p1"', "async.data.n > event.data.least")


def event(seconds: float, data: dict[str, object] | None = None, name: str = "app/go") -> Event:
    """An event whose id was made so many seconds after noon."""
    given = {"id": "p1"} if data is None else data
    return sql.event(name, given, internal_id=sql.id_at(seconds))


def waits(wait: Wait = BY_ID, look_back: float | None = 60.0, hashed: str = "w") -> Settlement:
    """A reply that waits for an event and looks back."""
    return Settlement(
        Verdict.PARK,
        steps=(StepRow(hashed, hashed, "WaitForEvent", "waiting", "null"),),
        items=(NewItem(hashed, "wait" if look_back is None else "look", delay=None),),
        pauses=(NewPause(hashed, "event", "app/go", wait, 600.0, look_back),),
    )


async def look(hands: Hands, run: Start, hashed: str = "w", least: int = 0) -> str:
    """Lease the item of a wait, look, and settle what came of it; returns the settlement's outcome."""
    rows = await hands.lease(8)
    [row] = [r for r in rows if (r["run_id"], r["job"]) == (run.run_id, hashed)]
    assert row["kind"] == "look"
    own = json.dumps({"data": {"least": least}})
    effects = await looking.look(hashed, own, hands.look_back(run.run_id, hashed))
    settled = await hands.settle_one(run, row["gen"], effects, job=hashed, called=None)
    return settled.outcome


async def memo(hands: Hands, run: Start, hashed: str = "w") -> str | None:
    """What a step gave, or None while it waits."""
    return {h: text for h, status, text in await hands.steps(run) if status == "done"}.get(hashed)


async def test_the_oldest_event_in_the_window_ends_the_wait(hands: Hands) -> None:
    run = await hands.begin_leased()
    for at in (-61.0, -59.0, -1.0):
        await hands.at(at)
        found = event(at)
        await hands.take_in([event(at, name="app/other"), event(at, {"id": "p2"}), found])
        if at == -59.0:
            expected = found
    await hands.at(0)
    await hands.settle_one(run, 1, waits())

    await look(hands, run)

    assert await memo(hands, run) == expected.payload
    assert await hands.count("pauses") == 0
    item = await hands.item(run)
    assert item is not None and item["ready"]


async def test_without_a_fitting_event_it_waits_until_its_time_is_over(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.take_in([event(0, {"id": "p2"})])
    await hands.settle_one(run, 1, waits())

    await look(hands, run)

    item = await hands.item(run, "w")
    assert item is not None
    assert (item["kind"], item["step"], item["ready"]) == ("wait", "w", False)
    assert item["due_at"] == NOON + timedelta(seconds=600)
    found = event(1)
    await hands.take_in([found])
    assert await memo(hands, run) == found.payload


async def test_a_wait_that_does_not_look_back_sees_nothing_that_was_before(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.take_in([event(0)])

    await hands.settle_one(run, 1, waits(look_back=None))

    assert await hands.count("pauses", "looks_from is null and own_events = '{}'") == 1
    assert await memo(hands, run) is None


async def test_the_rest_of_a_condition_is_checked(hands: Hands) -> None:
    run = await hands.begin_leased()
    fits = event(2, {"id": "p1", "n": 8})
    await hands.take_in(
        [event(0, {"id": "p1", "n": 1}), event(1), fits, event(3, {"id": "p1", "n": 9})]
    )
    await hands.settle_one(run, 1, waits(ODD))

    await look(hands, run, least=7)

    assert await memo(hands, run) == fits.payload


async def test_what_the_run_was_started_by_does_not_count(hands: Hands) -> None:
    first, second = event(0), event(1)
    run = sql.start(is_direct=True)
    await hands.take_in([first, second], [run])
    await hands.settle_one(run, 1, waits())

    await look(hands, run)

    assert await memo(hands, run) == second.payload


async def test_no_event_ends_two_waits_of_a_run_that_follow_each_other(hands: Hands) -> None:
    run = await hands.begin_leased()
    events = [event(0), event(1)]
    await hands.take_in(events)
    given = []
    for hashed in ("w1", "w2", "w3"):
        row = await hands.item(run)
        assert row is not None
        if row["owner"] is None:
            [row] = [r for r in await hands.lease(8) if r["job"] == "main"]
        await hands.settle_one(run, row["gen"], waits(hashed=hashed))
        await look(hands, run, hashed)
        given.append(await memo(hands, run, hashed))

    assert given == [events[0].payload, events[1].payload, None]


async def test_an_engine_whose_clock_is_behind_is_waited_for_no_less(hands: Hands) -> None:
    run = await hands.begin_leased()
    late = event(-110)
    await hands.take_in([late])
    await hands.settle_one(run, 1, waits())

    await look(hands, run)

    assert await memo(hands, run) == late.payload


async def test_many_events_are_read_page_by_page(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepbase.engine.reads._PAGE", 2)
    run = await hands.begin_leased()
    events = [event(0.01 * n, {"id": "p1", "n": n}) for n in range(7)]
    await hands.take_in(events)
    await hands.settle_one(run, 1, waits(ODD))

    await look(hands, run, least=5)

    assert await memo(hands, run) == events[6].payload


async def test_a_look_after_the_wait_has_ended_changes_nothing(hands: Hands) -> None:
    run = await hands.begin_leased()
    await hands.take_in([event(0)])
    await hands.settle_one(run, 1, waits())
    [row] = [r for r in await hands.lease(8) if r["job"] == "w"]
    live = event(1)
    await hands.take_in([live])

    effects = await looking.look("w", "{}", hands.look_back(run.run_id, "w"))
    settled = await hands.settle_one(run, row["gen"], effects, job="w", called=None)

    assert settled.outcome == "lost"
    assert await memo(hands, run) == live.payload


async def test_the_locks_are_taken_only_once_somebody_has_looked_back(hands: Hands) -> None:
    locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    run = await hands.begin_leased()
    await hands.take_in([event(0)])
    assert await hands.connection.fetchval(locks) == 0
    await hands.settle_one(run, 1, waits(ALWAYS))
    await look(hands, run)

    await hands.take_in([event(1), event(1), event(1, name="app/other")])

    assert await hands.connection.fetchval(locks) == 2


async def test_an_ingest_that_begins_during_the_first_look_ever_takes_the_locks_too(
    connect: Connect,
) -> None:
    looker, sender, watcher = Hands(await connect()), Hands(await connect()), Hands(await connect())
    run = await looker.begin_leased()
    await looker.settle_one(run, 1, waits(ALWAYS))
    first_look, ingesting = looker.connection.transaction(), sender.connection.transaction()
    await first_look.start()
    await looker.connection.fetchval("select stepbase.await_ingests($1, 'w')", run.run_id)
    await ingesting.start()
    taking = asyncio.create_task(sender.take_in([event(0)]))
    await _blocked_or_done(watcher, taking)
    await first_look.commit()
    await taking

    pid = sender.connection.get_server_pid()
    assert await watcher.connection.fetchval(
        "select count(*) from pg_locks where locktype = 'advisory' and pid = $1", pid
    )
    await ingesting.rollback()


# --- every interleaving of a wait and an event ---------------------------------------------------


def interleavings() -> Iterator[str]:
    """All ways to mix the two sides: [i]ngest and its commit, [s]ettle, its commit and the [l]ook."""
    for places in combinations(range(5), 2):
        wait, ingest = iter("sSl"), iter("iI")
        yield "".join(next(ingest if n in places else wait) for n in range(5))


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("wait", [BY_ID, ODD, ALWAYS], ids=["exact", "residual", "any"])
async def test_no_event_is_lost_or_ends_a_wait_twice(
    connect: Connect, wait: Wait, is_first: bool
) -> None:
    waiter, sender, watcher = [Hands(await connect()) for _ in range(3)]
    for steps in interleavings():
        run = await waiter.begin_leased()
        await watcher.connection.execute("update stepbase.epoch set looks_back = $1", not is_first)
        # The database's own clock here: what commits on one connection is looked for on another.
        now = await watcher.connection.fetchval("select now()")
        going = event((now - NOON).total_seconds(), {"id": "p1", "n": 8})

        async with asyncio.timeout(20):
            await _play(steps, run, wait, going, waiter, sender, watcher)

        where = f"run_id = '{run.run_id}'"
        assert await memo(watcher, run) == going.payload, steps
        assert (await watcher.run(run))["step_count"] == 1
        assert await watcher.count("pauses", where) == 0
        assert await watcher.count("queue", f"{where} and job <> 'main'") == 0
        assert await watcher.count("queue", f"{where} and job = 'main' and ready") == 1
        await watcher.cancel([run.run_id], "{}")
        await watcher.connection.execute("delete from stepbase.events")


async def _play(
    steps: str, run: Start, wait: Wait, going: Event, waiter: Hands, sender: Hands, watcher: Hands
) -> None:
    settling, ingesting = waiter.connection.transaction(), sender.connection.transaction()
    looks: asyncio.Task[None] | None = None
    for each in steps:
        if each == "s":
            await settling.start()
            await waiter.settle_one(run, 1, waits(wait))
        elif each == "S":
            await settling.commit()
        elif each == "i":
            await ingesting.start()
            await sender.take_in([going])
        elif each == "I":
            await ingesting.commit()
        else:
            looks = asyncio.create_task(_looked(waiter, run))
            if steps.index("i") < steps.index("l") < steps.index("I"):
                await _blocked_or_done(watcher, looks)
    assert looks is not None
    await looks
    await _check(watcher, run)


async def _looked(hands: Hands, run: Start) -> None:
    """Look as an engine would, if the event has not ended the wait already."""
    for row in await hands.lease(8):
        if row["job"] == "w":
            own = json.dumps({"data": {"least": 7}})
            effects = await looking.look("w", own, hands.look_back(run.run_id, "w"))
            await hands.settle_one(run, row["gen"], effects, job="w", called=None)
        else:
            await _match(hands, row)


async def _check(hands: Hands, run: Start) -> None:
    """Check the rest of conditions, where that is left to do."""
    is_ready = "kind = 'match' and ready"
    while await hands.count("queue", is_ready):
        for row in await hands.lease(8):
            await _match(hands, row)


async def _match(hands: Hands, row: asyncpg.Record) -> None:
    closed = (StepRow("w", "", "", "done", row["other_event"]),) if row["kind"] == "match" else ()
    effects = Settlement(
        Verdict.DONE if row["kind"] == "match" else Verdict.READY, was_called=False, steps=closed
    )
    await hands.settle_one(row["run_id"], row["gen"], effects, job=row["job"], called=None)


async def _blocked_or_done(hands: Hands, task: "asyncio.Task[Any]") -> None:
    """Return when a task waits for a lock, or has ended without."""
    waiting = "select count(*) from pg_locks where not granted"
    while not task.done() and not await hands.connection.fetchval(waiting):
        await asyncio.sleep(0.001)
