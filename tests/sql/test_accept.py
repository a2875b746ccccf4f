"""`stepbase_accept`: the rate of each user, and their events into the outbox."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

ALICE, BOB = "alice", "bob"
START = datetime(2027, 1, 1, 12, tzinfo=UTC)


async def at(db: asyncpg.Connection, seconds: float) -> None:
    """Move the database's clock."""
    await db.execute(
        "select set_config('stepbase.fake_now', $1, false)",
        (START + timedelta(seconds=seconds)).isoformat(),
    )


async def accept(
    db: asyncpg.Connection,
    n: int = 1,
    user: str = ALICE,
    *,
    events: list[dict[str, Any]] | None = None,
    limit: int | None = 6,
    burst: int | None = None,
) -> Any:
    """Send `n` events; six a minute unless said otherwise."""
    sent = [{"name": "app/seen", "data": {"i": i}} for i in range(n)] if events is None else events
    text = await db.fetchval(
        "select public.stepbase_accept($1, $2, $3, $4, $5, $6)",
        user, json.dumps({"id": user}), json.dumps(sent), limit, 60_000 if limit else None, burst,
    )  # fmt: skip
    return json.loads(text)


async def outbox(db: asyncpg.Connection) -> list[dict[str, Any]]:
    rows = await db.fetch("select payload from stepbase.outbox order by id")
    return [json.loads(row["payload"]) for row in rows]


async def test_a_user_may_send_the_whole_allowance_at_once_and_then_each_after_its_share(
    db: asyncpg.Connection,
) -> None:
    await at(db, 0)
    assert len((await accept(db, 6))["ids"]) == 6
    assert await accept(db) == {"retry_after_ms": 10_000}

    await at(db, 9.999)
    assert await accept(db) == {"retry_after_ms": 1}
    await at(db, 10)
    assert len((await accept(db))["ids"]) == 1
    assert await accept(db, 2) == {"retry_after_ms": 20_000}

    await at(db, 100)
    assert len((await accept(db, 6))["ids"]) == 6
    assert len(await outbox(db)) == 13


async def test_what_is_refused_costs_nothing(db: asyncpg.Connection) -> None:
    await at(db, 0)
    await accept(db, 5)
    for _ in range(10):
        assert await accept(db, 2) == {"retry_after_ms": 10_000}

    assert len((await accept(db))["ids"]) == 1


async def test_an_event_that_is_refused_costs_nothing(db: asyncpg.Connection) -> None:
    await at(db, 0)
    bad = [{"name": "app/seen", "data": {}}, {"name": "inngest/mine", "data": {}}]
    for _ in range(10):
        with pytest.raises(asyncpg.PostgresError) as caught:
            async with db.transaction():
                await accept(db, events=bad)
        assert caught.value.sqlstate == "SB010"

    assert await outbox(db) == []
    assert len((await accept(db, 6))["ids"]) == 6


async def test_users_do_not_share_their_rates(db: asyncpg.Connection) -> None:
    await at(db, 0)
    await accept(db, 6)

    assert "retry_after_ms" in await accept(db)
    assert len((await accept(db, 6, BOB))["ids"]) == 6


async def test_a_burst_may_be_smaller_than_the_limit(db: asyncpg.Connection) -> None:
    await at(db, 0)
    assert len((await accept(db, 2, burst=2))["ids"]) == 2
    assert await accept(db, burst=2) == {"retry_after_ms": 10_000}


async def test_more_than_can_ever_be_had_is_an_error(db: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.PostgresError, match="at most 6") as caught:
        await accept(db, 7)

    assert caught.value.sqlstate == "22023"


async def test_without_a_limit_nothing_is_counted(db: asyncpg.Connection) -> None:
    assert len((await accept(db, 500, limit=None))["ids"]) == 500
    assert await db.fetchval("select count(*) from stepbase.sender_rates") == 0


async def test_idle_rows_go_as_new_users_come(db: asyncpg.Connection) -> None:
    await at(db, 0)
    for i in range(20):
        await accept(db, user=f"old-{i}")
    await at(db, 3600)
    for i in range(10):
        await accept(db, user=f"new-{i}")

    users = await db.fetch("select user_id from stepbase.sender_rates")
    assert {row["user_id"] for row in users} == {f"new-{i}" for i in range(10)}


async def test_events_have_their_user_and_ids_come_in_order(db: asyncpg.Connection) -> None:
    events = [
        {"name": "app/seen", "data": {"i": 0}, "id": "z"},
        {"name": "app/seen", "data": {"i": 1}},
        {"name": "app/rated", "data": {"i": 2}, "id": "a"},
    ]

    ids = (await accept(db, events=events))["ids"]

    assert (ids[0], ids[2]) == ("z", "a")
    stored = {event["id"]: event for event in await outbox(db)}
    assert [stored[each]["data"]["i"] for each in ids] == [0, 1, 2]
    assert {json.dumps(event["user"]) for event in stored.values()} == {'{"id": "alice"}'}


async def test_an_id_that_is_still_there_changes_nothing(db: asyncpg.Connection) -> None:
    for i in range(3):
        event = {"name": "app/seen", "data": {"i": i}, "id": "one"}
        assert await accept(db, events=[event]) == {"ids": ["one"]}

    assert [event["data"]["i"] for event in await outbox(db)] == [0]


async def test_several_at_once_get_exactly_the_allowance(
    connect: Callable[[], Awaitable[asyncpg.Connection]],
) -> None:
    connections = [await connect() for _ in range(8)]
    for connection in connections:
        await at(connection, 0)

    async def some(connection: asyncpg.Connection) -> int:
        answers = [await accept(connection, limit=50) for _ in range(20)]
        return sum("ids" in answer for answer in answers)

    accepted = sum(await asyncio.gather(*map(some, connections)))

    assert accepted == 50
    assert len(await outbox(connections[0])) == 50


async def test_the_same_ids_in_another_order_do_not_wait_for_each_other(
    connect: Callable[[], Awaitable[asyncpg.Connection]],
) -> None:
    connections = [await connect() for _ in range(4)]
    names = [f"id-{i}" for i in range(50)]

    async def send(connection: asyncpg.Connection, ids: list[str]) -> None:
        events = [{"name": "app/seen", "data": {}, "id": each} for each in ids]
        await accept(connection, events=events, limit=None)

    await asyncio.gather(
        *(send(c, names if i % 2 else names[::-1]) for i, c in enumerate(connections))
    )

    assert len(await outbox(connections[0])) == 50


async def test_only_the_service_role_may_call_it(db: asyncpg.Connection) -> None:
    for role in ("anon", "authenticated"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.transaction():
                await db.execute(f"set local role {role}")
                await accept(db)
    await db.execute("set local role service_role")
    assert len((await accept(db))["ids"]) == 1


async def test_who_is_forgotten_has_no_rate_left(db: asyncpg.Connection) -> None:
    for user in (ALICE, BOB):
        await accept(db, user=user)
    await db.fetch("select stepbase.forget('alice', p_is_dry => true)")
    assert await db.fetchval("select count(*) from stepbase.sender_rates") == 2

    await db.fetch("select stepbase.forget('alice')")

    assert await db.fetchval("select array_agg(user_id) from stepbase.sender_rates") == [BOB]
