"""What a relay does in SQL beyond taking and acking: giving back, dozing, reporting, retrying."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

_NOON = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
async def _noon(db: asyncpg.Connection) -> None:
    await later(db, timedelta())


async def later(db: asyncpg.Connection, by: timedelta) -> None:
    moment = (_NOON + by).isoformat()
    await db.execute("select set_config('stepbase.fake_now', $1, false)", moment)


async def emit(db: asyncpg.Connection, count: int = 1, size: int = 0) -> list[str]:
    rows = await db.fetch(
        "select stepbase.emit('a/b', jsonb_build_object('x', repeat('x', $2))) as id"
        " from generate_series(1, $1::int)",
        count,
        size,
    )
    return [row["id"] for row in rows]


async def take(
    db: asyncpg.Connection, count: int = 100, size: int = 1_000_000, token: str = "t"
) -> list[str]:
    rows = await db.fetch(
        "select id from stepbase.outbox_take_some($1, $2, $3, '30 s')", count, size, token
    )
    return [row["id"] for row in rows]


async def give_back(
    db: asyncpg.Connection,
    ids: list[str],
    token: str = "t",
    at_least: timedelta = timedelta(),
    most: int = 20,
) -> dict[str, bool]:
    rows = await db.fetch(
        "select * from stepbase.outbox_give_back($1, 'HTTP 500', $2, $3, $4, '7 days')",
        ids, token, at_least, most,
    )  # fmt: skip
    return {row["id"]: row["is_dead"] for row in rows}


async def report(db: asyncpg.Connection, *args: object) -> Any:
    names = ", ".join(f"${i}" for i, _ in enumerate(args, 1))
    return json.loads(await db.fetchval(f"select stepbase.outbox_report({names})", *args))


async def test_no_more_is_leased_than_fits(db: asyncpg.Connection) -> None:
    ids = await emit(db, 10, size=1000)

    first = await take(db, size=5_000)
    second = await take(db, count=2)

    assert (len(first), len(second)) == (4, 2)
    assert len({*first, *second} & set(ids)) == 6


async def test_the_first_event_always_fits(db: asyncpg.Connection) -> None:
    [large] = await emit(db, size=10_000)
    await later(db, _SECOND)
    await emit(db)

    assert await take(db, size=100) == [large]


async def test_what_is_leased_by_size_is_leased_as_ever(db: asyncpg.Connection) -> None:
    [event_id] = await emit(db)

    assert await take(db) == [event_id]
    assert await take(db, token="other") == []
    await later(db, 31 * _SECOND)
    assert await take(db, token="other") == [event_id]
    row = await db.fetchrow("select tries, token from stepbase.outbox")
    assert row is not None and tuple(row) == (2, "other")


async def test_the_delay_doubles_up_to_five_minutes(db: asyncpg.Connection) -> None:
    for tries, longest in ((1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (2_000_000_000, 300)):
        delays = [await db.fetchval("select stepbase.relay_delay($1)", tries) for _ in range(20)]
        assert longest * _SECOND / 2 <= min(delays) < max(delays) <= longest * _SECOND


async def test_what_is_given_back_is_due_later(db: asyncpg.Connection) -> None:
    [event_id] = await emit(db)
    await take(db)

    assert await give_back(db, [event_id]) == {event_id: False}

    row = await db.fetchrow("select token, error, due_at, tries from stepbase.outbox")
    assert row is not None
    assert (row["token"], row["error"], row["tries"]) == (None, "HTTP 500", 1)
    assert _NOON + _SECOND / 2 <= row["due_at"] <= _NOON + _SECOND


async def test_what_is_given_back_waits_as_long_as_the_receiver_asks(
    db: asyncpg.Connection,
) -> None:
    [event_id] = await emit(db)
    await take(db)

    await give_back(db, [event_id], at_least=timedelta(minutes=7))

    assert await db.fetchval("select due_at from stepbase.outbox") == _NOON + timedelta(minutes=7)


async def test_only_what_is_tried_often_and_old_dies(db: asyncpg.Connection) -> None:
    [old] = await emit(db)
    await later(db, timedelta(days=8))
    [young] = await emit(db)

    # Tried often, but only one of them is old; and once, when neither was tried often.
    await take(db)
    assert await give_back(db, [old, young], most=2) == {old: False, young: False}
    await later(db, timedelta(days=8, hours=1))
    await take(db)
    assert await give_back(db, [old, young], most=2) == {old: True, young: False}


async def test_an_outage_of_a_day_makes_no_dead_letters(db: asyncpg.Connection) -> None:
    [event_id] = await emit(db)
    tries, now = 0, timedelta()
    while now < timedelta(days=1):
        now += timedelta(minutes=5)
        await later(db, now)
        assert await take(db) == [event_id]
        tries += 1
        assert await give_back(db, [event_id]) == {event_id: False}

    assert tries == 288
    row = await db.fetchrow("select tries, dead_at from stepbase.outbox")
    assert row is not None and tuple(row) == (tries, None)


async def test_another_relays_events_cannot_be_given_back(db: asyncpg.Connection) -> None:
    [event_id] = await emit(db)
    await take(db)

    assert await give_back(db, [event_id], token="other") == {}
    assert await db.fetchval("select stepbase.outbox_put_back($1, 'other')", [event_id]) == 0


async def test_what_was_not_tried_is_put_back_as_it_was(db: asyncpg.Connection) -> None:
    [event_id] = await emit(db)
    await take(db)

    assert await db.fetchval("select stepbase.outbox_put_back($1, 't')", [event_id]) == 1

    row = await db.fetchrow("select tries, token, due_at from stepbase.outbox")
    assert row is not None and tuple(row) == (0, None, _NOON)


async def test_dozing_says_when_the_next_event_is_due(db: asyncpg.Connection) -> None:
    async def doze() -> object:
        return await db.fetchval("select stepbase.outbox_doze('15 s')")

    assert await doze() is None
    await emit(db)
    assert await doze() == 0
    await take(db)
    assert await doze() == 30
    await later(db, 31 * _SECOND)
    assert await doze() == 0
    await db.execute("update stepbase.outbox set dead_at = stepbase.now()")
    assert await doze() is None


async def test_dozing_has_writers_notify(db: asyncpg.Connection) -> None:
    await db.fetchval("select stepbase.outbox_doze('15 s')")

    until = await db.fetchval("select pg_sequence_last_value('stepbase.relay_idle_until')")
    assert until == (_NOON + 15 * _SECOND).timestamp() * 1000


async def test_the_report_counts_and_names_what_is_stuck(db: asyncpg.Connection) -> None:
    await db.execute("select stepbase.outbox_claim('abc')")
    [dead] = await emit(db)
    await take(db)
    await db.execute("select stepbase.outbox_fail($1, 'no name', null, 't')", dead)
    [retrying] = await emit(db)
    await take(db)
    await give_back(db, [retrying], at_least=timedelta(hours=1))
    await later(db, timedelta(minutes=10))
    leased = await emit(db)
    await take(db)
    await later(db, timedelta(minutes=10, seconds=5))
    await emit(db, 2)
    await later(db, timedelta(minutes=10, seconds=8))

    found = await report(db)

    assert found == {
        "project": "abc", "waiting": 2, "leased": 1, "retrying": 1, "dead": 1, "lag_s": 3,
        "stuck": [
            {"id": dead, "name": "a/b", "state": "dead", "tries": 1, "age_s": 608,
             "due_in_s": None, "error": "no name"},
            {"id": retrying, "name": "a/b", "state": "retrying", "tries": 1, "age_s": 608,
             "due_in_s": 2992, "error": "HTTP 500"},
        ],
    }  # fmt: skip
    few = await report(db, timedelta(), 3)
    assert [each["id"] for each in few["stuck"]] == [dead, retrying, *leased]


async def test_the_report_of_an_empty_outbox(db: asyncpg.Connection) -> None:
    assert await report(db) == {
        "project": None, "waiting": 0, "leased": 0, "retrying": 0, "dead": 0, "lag_s": 0, "stuck": [],
    }  # fmt: skip


async def test_waiting_events_can_be_made_due(db: asyncpg.Connection) -> None:
    ids = await emit(db, 3)
    await take(db)
    await give_back(db, ids[:2], at_least=timedelta(hours=1))

    assert await db.fetchval("select stepbase.outbox_retry($1)", ids[:1]) == 1
    assert await take(db, token="u") == ids[:1]
    assert await db.fetchval("select stepbase.outbox_retry()") == 1, "leased ones are left alone"
    assert await take(db, token="u") == ids[1:2]
    # Chosen by name, a lease is broken: the relay that held it is no longer heard.
    assert await db.fetchval("select stepbase.outbox_retry($1)", ids[2:]) == 1
    assert await db.fetchval("select stepbase.outbox_ack($1, 't')", ids[2:]) == 0
