"""`ingest`: events are stored and start their runs, once."""

import asyncio
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support import engine_sql as sql
from tests.support.engine_sql import NOON, Hands

from stepbase.engine.starts import Ingest


async def emit(hands: Hands, name: str = "app/f", event_id: str | None = None) -> str:
    """Put an event into the outbox; return its id."""
    return str(
        await hands.connection.fetchval("select stepbase.emit($1, '{}', id => $2)", name, event_id)
    )


async def test_an_event_and_its_run_are_there_together(hands: Hands) -> None:
    event = sql.event("app/f", {"n": 1}, event_id="mine")
    run = sql.start(key="mine")

    [row] = await hands.take_in([event], [run])

    assert tuple(row) == (1, run.run_id, False, 0)
    stored = await hands.connection.fetchrow("select *, payload::text as text from stepbase.events")
    assert stored is not None
    assert (stored["id"], stored["event_id"], stored["name"]) == (event.id, "mine", "app/f")
    assert (stored["text"], stored["received_at"]) == (event.payload, NOON)
    begun = await hands.run(run)
    assert (begun["status"], begun["event_id"], begun["function_id"]) == (
        "Scheduled", event.id, sql.FUNCTION_ID,
    )  # fmt: skip


async def test_an_event_nobody_waits_for_is_kept(hands: Hands) -> None:
    assert await hands.take_in([sql.event("other/event")]) == []
    assert await hands.count("events") == 1


async def test_a_direct_start_is_leased_to_its_engine_at_once(hands: Hands) -> None:
    run = sql.start(is_direct=True)

    [row] = await hands.take_in([sql.event()], [run])

    assert (row["is_leased"], row["gen"]) == (True, 1)
    assert await hands.of("B").lease(10) == []


async def test_a_start_in_the_future_is_a_timer_even_if_it_was_to_be_direct(hands: Hands) -> None:
    due = NOON + timedelta(seconds=60)
    run = sql.start(is_direct=True, due=due)

    [row] = await hands.take_in([sql.event()], [run])

    item = await hands.item(run)
    assert item is not None
    assert (row["is_leased"], item["ready"], item["owner"], item["due_at"]) == (
        False,
        False,
        None,
        due,
    )


async def test_a_time_that_is_over_by_the_databases_clock_is_now(hands: Hands) -> None:
    await hands.begin(due=NOON - timedelta(seconds=1))

    assert len(await hands.lease(10)) == 1


async def test_sending_the_same_batch_twice_changes_nothing(hands: Hands) -> None:
    events = [sql.event(), sql.event(event_id="mine")]
    starts = [
        sql.start(1, is_direct=True, pauses=(sql.pause("app/stop", "data.x", 1),), deadline=9.0),
        sql.start(2, key="mine"),
    ]
    first = await hands.take_in(events, starts)
    counts = [await hands.count(t) for t in ("events", "runs", "queue", "pauses", "dedupe")]

    again = await hands.take_in(events, starts)

    assert [await hands.count(t) for t in ("events", "runs", "queue", "pauses", "dedupe")] == counts
    assert [tuple(row) for row in again] == [tuple(row) for row in first], (
        "it may be launched again"
    )


async def test_an_event_that_is_stored_already_starts_nothing_new(hands: Hands) -> None:
    """A client repeats a request (same seed, so same internal ids): the runs it asked for are there."""
    event = sql.event()
    run = sql.start()
    await hands.take_in([event], [run])

    assert await hands.take_in([event], [sql.start()]) == []

    assert await hands.count("runs") == 1


async def test_of_a_repeated_request_with_something_new_only_the_new_starts(hands: Hands) -> None:
    old, new = sql.event(), sql.event()
    await hands.take_in([old], [sql.start()])
    second = sql.start(2)

    rows = await hands.take_in([old, new], [sql.start(1), second])

    assert [row["run_id"] for row in rows] == [second.run_id]


async def test_a_repeated_event_cancels_nothing_that_started_since(hands: Hands) -> None:
    refund = sql.event("app/stop", {"x": 1})
    await hands.take_in([refund])
    run = await hands.begin(pauses=(sql.pause("app/stop", "data.x", 1),))

    await hands.take_in([refund])

    assert await hands.status(run) == "Scheduled"


async def test_the_largest_request_is_one_statement_of_seconds(hands: Hands) -> None:
    """Joining the arrays row by row took ten minutes for this."""
    events = [sql.event() for _ in range(5000)]
    starts = [
        sql.start(i + 1, key=f"k{i}", pauses=(sql.pause("app/stop", "data.id", i),))
        for i in range(5000)
    ]

    async with asyncio.timeout(20):
        rows = await hands.take_in(events, starts)

    assert [row["start"] for row in rows] == list(range(1, 5001))
    assert await hands.count("pauses") == 5000


# --- de-duplication ------------------------------------------------------------------------------


async def test_the_senders_id_starts_a_function_once_in_24_hours(hands: Hands) -> None:
    async def send(seconds: float) -> bool:
        await hands.at(seconds)
        return bool(await hands.take_in([sql.event(event_id="mine")], [sql.start(key="mine")]))

    day = 24 * 3600
    assert [await send(s) for s in (0, 1, day - 0.001, day, day + 1, 2 * day)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip
    assert await hands.count("events") == 6, "every delivery is stored"


async def test_each_function_remembers_the_senders_ids_for_itself(hands: Hands) -> None:
    starts = [sql.start(function=sql.function(n), key="mine") for n in (1, 2)]

    assert len(await hands.take_in([sql.event(event_id="mine")], starts)) == 2
    assert await hands.take_in([sql.event(event_id="mine")], [sql.start(key="mine")]) == []


async def test_one_batch_with_an_id_twice_starts_its_first_event(hands: Hands) -> None:
    starts = [sql.start(i, key="mine") for i in (1, 2, 3)]

    rows = await hands.take_in([sql.event(event_id="mine") for _ in range(3)], starts)

    assert [row["run_id"] for row in rows] == [starts[0].run_id]


async def test_events_without_an_id_are_never_the_same(hands: Hands) -> None:
    rows = await hands.take_in([sql.event() for _ in range(3)], [sql.start(i) for i in (1, 2, 3)])

    assert len(rows) == 3


async def test_a_duplicate_leaves_no_pause_and_no_timer(hands: Hands) -> None:
    await hands.take_in([sql.event(event_id="x")], [sql.start(key="x")])

    await hands.take_in(
        [sql.event(event_id="x")],
        [sql.start(key="x", deadline=9.0, pauses=(sql.pause("app/stop", "data.x", 1),))],
    )

    assert (await hands.count("pauses"), await hands.count("queue")) == (0, 1)


async def test_two_deliveries_at_once_start_one_run(connect: Connect) -> None:
    a, b = Hands(await connect(), "A"), Hands(await connect(), "B")

    for i in range(20):
        key = f"key-{i}"
        rows = await asyncio.gather(
            *(each.take_in([sql.event(event_id=key)], [sql.start(key=key)]) for each in (a, b))
        )
        assert sorted(len(each) for each in rows) == [0, 1]

    assert await a.count("runs") == 20


# --- the outbox ----------------------------------------------------------------------------------


async def test_an_outbox_row_goes_as_its_event_comes(hands: Hands) -> None:
    row = await emit(hands)

    assert len(await hands.take_in([sql.event(outbox_id=row)], [sql.start(key=row)])) == 1
    assert (await hands.count("outbox"), await hands.count("events")) == (0, 1)


async def test_an_event_whose_outbox_row_is_gone_is_dropped(hands: Hands) -> None:
    row = await emit(hands)
    await hands.take_in([sql.event(outbox_id=row)], [sql.start()])
    kept = sql.start(2)

    rows = await hands.take_in(
        [sql.event(outbox_id=row), sql.event(), sql.event(outbox_id="never-was")],
        [sql.start(1), kept, sql.start(3)],
    )

    assert [each["run_id"] for each in rows] == [kept.run_id]
    assert await hands.count("events") == 2


async def test_one_outbox_row_moved_by_two_engines_at_once_moves_once(connect: Connect) -> None:
    a, b = Hands(await connect(), "A"), Hands(await connect(), "B")

    for _ in range(20):
        rows = [await emit(a) for _ in range(5)]

        async def move(each: Hands, ids: list[str]) -> int:
            events = [sql.event(outbox_id=id_, event_id=id_) for id_ in ids]
            # Without the key: the row alone must be enough.
            starts = [sql.start(i + 1) for i in range(len(ids))]
            return len(await each.take_in(events, starts))

        moved = await asyncio.gather(move(a, rows), move(b, rows[::-1]))
        assert sum(moved) == 5

    assert await a.count("runs") == await a.count("events") == 100
    assert await a.count("outbox") == 0


# --- refused -------------------------------------------------------------------------------------


async def test_an_old_epoch_is_refused_before_anything_is_written(hands: Hands) -> None:
    row = await emit(hands)
    epoch = await hands.epoch()
    await _register(hands, "app-f", "app-g")

    with pytest.raises(asyncpg.PostgresError, match="the functions have changed since") as caught:
        async with hands.connection.transaction():
            await hands.ingest(epoch, Ingest([sql.event(outbox_id=row)], [sql.start()]))

    assert caught.value.sqlstate == "SB101"
    assert (await hands.count("outbox"), await hands.count("events")) == (1, 0)
    assert len(await hands.take_in([sql.event(outbox_id=row)], [sql.start()])) == 1


async def test_a_sync_that_changes_nothing_keeps_the_epoch(hands: Hands) -> None:
    await _register(hands, "app-f")
    epoch = await hands.epoch()

    assert (await _register(hands, "app-f"))[1] is False
    assert await hands.epoch() == epoch


async def test_functions_left_out_of_a_sync_are_archived_and_come_back_as_they_were(
    hands: Hands,
) -> None:
    await _register(hands, "app-f", "app-g")
    await _register(hands, "app-g", checksum="two")
    rows = {row["slug"]: row for row in await hands.load_functions()}
    assert {slug: row["is_archived"] for slug, row in rows.items()} == {
        "app-f": True,
        "app-g": False,
    }

    await _register(hands, "app-f", "app-g", checksum="three", url="http://elsewhere")

    again = {row["slug"]: row for row in await hands.load_functions()}
    assert again["app-f"]["function_id"] == rows["app-f"]["function_id"]
    assert (again["app-f"]["version"], again["app-f"]["app_url"]) == (1, "http://elsewhere")
    assert not again["app-f"]["is_archived"]


async def test_a_changed_configuration_is_the_next_version(hands: Hands) -> None:
    await _register(hands, "app-f")
    await _register(hands, "app-f", checksum="two", config='{"changed":true}')

    [row] = await hands.load_functions()
    assert row["version"] == 2


async def _register(
    hands: Hands,
    *slugs: str,
    checksum: str = "one",
    url: str = "http://here",
    config: str = "{}",
) -> tuple[UUID, bool]:
    functions = [(UUID(int=sum(slug.encode())), slug, slug, config, "{}") for slug in slugs]
    return await hands.register_app(UUID(int=7), "app", url, "sdk", "fw", checksum, functions)
