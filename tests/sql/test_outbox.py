"""The outbox: what is emitted, leased, acknowledged, given back and given up."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support.sql import PATIENCE, refused

_NOON = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


async def set_now(db: asyncpg.Connection, moment: datetime) -> None:
    await db.execute("select set_config('stepbase.fake_now', $1, false)", moment.isoformat())


async def emit(db: asyncpg.Connection, name: str = "a/b", data: str = "{}") -> str:
    event_id = await db.fetchval("select stepbase.emit($1, $2)", name, data)
    assert isinstance(event_id, str)
    return event_id


async def take(db: asyncpg.Connection, token: str = "t", count: int = 10) -> list[asyncpg.Record]:
    return await db.fetch(
        "select * from stepbase.outbox_take($1, $2, $3)", count, token, timedelta(seconds=30)
    )


async def ack(db: asyncpg.Connection, ids: list[str], token: str = "t") -> object:
    return await db.fetchval("select stepbase.outbox_ack($1, $2)", ids, token)


async def fail(
    db: asyncpg.Connection, event_id: str, retry_at: datetime | None, token: str = "t"
) -> object:
    return await db.fetchval(
        "select stepbase.outbox_fail($1, 'HTTP 500', $2, $3)", event_id, retry_at, token
    )


async def test_emit_writes_the_event_as_functions_will_see_it(db: asyncpg.Connection) -> None:
    await set_now(db, _NOON)

    event_id = await db.fetchval(
        """select stepbase.emit('order/paid', '{"amount": 12.50, "note": "a\\"b"}',
             ts => '2027-02-28T10:00:00.123Z', "user" => '{"id": 7}', v => '2"x')"""
    )

    row = await db.fetchrow("select * from stepbase.outbox")
    assert row is not None
    assert json.loads(row["payload"]) == {
        "name": "order/paid",
        "data": {"amount": 12.50, "note": 'a"b'},
        "id": event_id,
        "ts": 1803808800123,
        "user": {"id": 7},
        "v": '2"x',
    }
    assert (row["id"], row["name"], row["tries"]) == (event_id, "order/paid", 0)
    assert row["created_at"] == row["due_at"] == _NOON


async def test_emit_leaves_out_what_was_not_given(db: asyncpg.Connection) -> None:
    await set_now(db, _NOON)

    event_id = await emit(db)

    payload = json.loads(await db.fetchval("select payload from stepbase.outbox"))
    ts = int(_NOON.timestamp() * 1000)
    assert payload == {"name": "a/b", "data": {}, "id": event_id, "ts": ts}


async def test_event_ids_are_version_7_uuids_in_order_of_time(db: asyncpg.Connection) -> None:
    ids = []
    for minute in range(3):
        await set_now(db, _NOON + timedelta(minutes=minute))
        ids.append(await emit(db))

    assert ids == sorted(ids)
    for minute, event_id in enumerate(ids):
        parsed = UUID(event_id)
        assert str(parsed) == event_id
        assert (parsed.version, parsed.variant) == (7, "specified in RFC 4122")
        assert parsed.int >> 80 == int((_NOON.timestamp() + 60 * minute) * 1000)


async def test_an_event_is_there_after_commit_and_never_after_rollback(connect: Connect) -> None:
    db, other = await connect(), await connect()
    with pytest.raises(ZeroDivisionError):
        async with db.transaction():
            await emit(db, "never/happened")
            raise ZeroDivisionError

    async with db.transaction():
        await emit(db, "it/happened")
        assert await other.fetchval("select count(*) from stepbase.outbox") == 0

    assert [r["name"] for r in await other.fetch("select name from stepbase.outbox")] == [
        "it/happened"
    ]


async def test_the_same_id_is_the_same_event(db: asyncpg.Connection) -> None:
    for amount in (1, 2):
        given = await db.fetchval(
            "select stepbase.emit('a/b', $1, id => 'mine')", f'{{"amount": {amount}}}'
        )
        assert given == "mine"

    payloads = await db.fetch("select payload from stepbase.outbox")
    assert [json.loads(row["payload"])["data"]["amount"] for row in payloads] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'', '{}'", "an event needs a name"),
        ("null, '{}'", "an event needs a name"),
        ("repeat('x', 513), '{}'", "513 characters, at most 512"),
        ("'inngest/function.failed', '{}'", "reserved"),
        ("'a/b', '[1]'", 'data of event "a/b" is array, but must be a JSON object'),
        ("'a/b', 'null'", "is null, but must be"),
        ("'a/b', null", "is null, but must be"),
        ("'a/b', '{}', id => ''", 'id of event "a/b" must have 1 to 512 characters, not 0'),
        ("'a/b', '{}', id => repeat('x', 513)", "not 513"),
        ("'a/b', '{}', ts => 'infinity'", "must be a moment"),
        ("'a/b', '{}', \"user\" => '7'", '"user" of event "a/b" is number'),
        ("'a/b', jsonb_build_object('x', repeat('x', 3145728))", r"at most 3145728 \(3 MiB\)"),
    ],
)
async def test_emit_refuses(db: asyncpg.Connection, arguments: str, message: str) -> None:
    error = await refused(db, "SB010", f"select stepbase.emit({arguments})")

    assert re.search(message, str(error))
    assert await db.fetchval("select count(*) from stepbase.outbox") == 0


async def test_take_gives_the_longest_due_first_and_counts_the_try(db: asyncpg.Connection) -> None:
    ids = []
    for second in range(3):
        await set_now(db, _NOON + timedelta(seconds=second))
        ids.append(await emit(db, f"n/{second}"))

    rows = await take(db, count=2)

    assert [(row["id"], row["name"], row["tries"]) for row in rows] == [
        (ids[0], "n/0", 1),
        (ids[1], "n/1", 1),
    ]
    assert json.loads(rows[0]["payload"])["id"] == ids[0]


async def test_a_leased_event_is_taken_again_when_the_lease_has_ended(
    db: asyncpg.Connection,
) -> None:
    await set_now(db, _NOON)
    event_id = await emit(db)
    assert len(await take(db, "first")) == 1

    await set_now(db, _NOON + timedelta(seconds=29))
    assert await take(db, "second") == []
    await set_now(db, _NOON + timedelta(seconds=30))
    rows = await take(db, "second")

    assert [(row["id"], row["tries"]) for row in rows] == [(event_id, 2)]


async def test_two_relays_never_take_the_same_event(connect: Connect) -> None:
    first, second = await connect(), await connect()
    ids = [await emit(first) for _ in range(4)]

    async with first.transaction():
        got_first = [row["id"] for row in await take(first, "first", 3)]
        got_second = [row["id"] for row in await take(second, "second", 3)]

    assert len(got_first) == 3
    assert sorted(got_first + got_second) == sorted(ids)


async def test_an_acked_event_is_never_taken_again(db: asyncpg.Connection) -> None:
    await set_now(db, _NOON)
    event_id = await emit(db)
    await take(db)

    assert await ack(db, [event_id]) == 1

    await set_now(db, _NOON + timedelta(days=1))
    assert await take(db) == []
    assert await db.fetchval("select count(*) from stepbase.outbox") == 0


async def test_an_ack_after_the_lease_went_to_another_changes_nothing(
    db: asyncpg.Connection,
) -> None:
    await set_now(db, _NOON)
    event_id = await emit(db)
    await take(db, "slow")
    await set_now(db, _NOON + timedelta(minutes=1))
    await take(db, "quick")

    assert await ack(db, [event_id], "slow") == 0
    assert await fail(db, event_id, _NOON, "slow") is False
    assert await ack(db, [event_id], "quick") == 1


async def test_a_failed_event_is_due_again_at_the_time_given(db: asyncpg.Connection) -> None:
    await set_now(db, _NOON)
    event_id = await emit(db)
    await take(db)

    assert await fail(db, event_id, _NOON + timedelta(seconds=5)) is True

    assert await take(db) == []
    await set_now(db, _NOON + timedelta(seconds=5))
    assert [(row["id"], row["tries"]) for row in await take(db)] == [(event_id, 2)]
    assert await db.fetchval("select error from stepbase.outbox") == "HTTP 500"


async def test_an_event_given_up_is_dead_until_it_is_requeued(db: asyncpg.Connection) -> None:
    await set_now(db, _NOON)
    event_id, other = await emit(db), await emit(db)
    for each in (await take(db))[:2]:
        await fail(db, each["id"], None)

    await set_now(db, _NOON + timedelta(days=1))
    assert await take(db) == []
    dead = await db.fetchrow("select * from stepbase.outbox where id = $1", event_id)
    assert dead is not None
    assert (dead["error"], dead["dead_at"], dead["token"]) == ("HTTP 500", _NOON, None)

    assert await db.fetchval("select stepbase.outbox_requeue($1)", [event_id, "unknown"]) == 1
    assert [(row["id"], row["tries"]) for row in await take(db)] == [(event_id, 1)]
    assert await db.fetchval("select stepbase.outbox_requeue()") == 1
    assert [row["id"] for row in await take(db)] == [other]


async def test_writers_notify_only_while_a_relay_sleeps(connect: Connect) -> None:
    relay, writer = await connect(), await connect()
    heard: asyncio.Queue[object] = asyncio.Queue()
    await relay.add_listener("stepbase", lambda *args: heard.put_nowait(args[3]))

    async def heard_after_emit() -> list[object]:
        await emit(writer)
        await writer.execute("notify stepbase, 'end'")
        got: list[object] = []
        async with asyncio.timeout(PATIENCE):
            while "end" not in got:
                got.append(await heard.get())
        return got

    assert await heard_after_emit() == ["end"]
    await relay.execute("select stepbase.outbox_idle('1 minute')")
    assert await heard_after_emit() == ["o", "end"]
    await relay.execute("select stepbase.outbox_idle('0')")
    assert await heard_after_emit() == ["end"]


async def test_an_outbox_knows_whose_it_is(db: asyncpg.Connection) -> None:
    assert await db.fetchval("select stepbase.outbox_claim('shop')") == "shop"
    assert await db.fetchval("select stepbase.outbox_claim('shop')") == "shop"

    error = await refused(db, "SB013", "select stepbase.outbox_claim('shop-preview')")

    assert 'belongs to project "shop", not to "shop-preview"' in str(error)
    assert error.hint and "stepbase.outbox_claim(project, true)" in error.hint
    assert await db.fetchval("select stepbase.outbox_claim('shop-preview', true)") == "shop-preview"
    await refused(db, "SB013", "select stepbase.outbox_claim('shop')")


async def test_take_reads_an_index_and_not_the_table(db: asyncpg.Connection) -> None:
    await db.execute(
        "select stepbase.emit('a/b', '{}') from generate_series(1, 200); analyze stepbase.outbox"
    )
    body = await db.fetchval(
        "select prosrc from pg_proc where oid = 'stepbase.outbox_take'::regproc"
    )
    await db.execute("set local enable_seqscan = off")
    for name, value in (("p_n", "10"), ("p_token", "'t'"), ("p_for", "'30 s'::interval")):
        body = body.replace(name, value)

    plan = "\n".join(row[0] for row in await db.fetch(f"explain {body}"))

    assert "Index Scan using outbox_due" in plan
    assert "Seq Scan" not in plan
