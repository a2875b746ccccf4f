"""What a relay does with each answer of a receiver; in this process, with a database of the test's own."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from tests.relay.conftest import KEY, StartRelay, emit, empty, settings, until
from tests.support.event_receiver import Answer, EventReceiver, Post, Reply

from stepbase.errors import StoreError
from stepbase.relay.process import running
from stepbase.relay.settings import Settings


async def dead(db: asyncpg.Connection) -> dict[str, str]:
    rows = await db.fetch("select id, error from stepbase.outbox where dead_at is not null")
    return {row["id"]: row["error"] for row in rows}


async def test_events_arrive_as_they_were_emitted(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    event_id = await db.fetchval(
        """select stepbase.emit('shop/paid', '{"amount": 12.50, "note": "Käse \\"x\\""}',
             ts => '2027-02-28T10:00:00.123Z', "user" => '{"id": 7}', v => '2')"""
    )

    async with start_relay(env="branch-1"):
        await until(lambda: empty(db))

    assert receiver.events == {
        event_id: {
            "id": event_id,
            "name": "shop/paid",
            "data": {"amount": 12.50, "note": 'Käse "x"'},
            "ts": 1803808800123,
            "user": {"id": 7},
            "v": "2",
        }
    }
    [post] = receiver.posts
    assert post.key == KEY
    assert post.headers["content-type"] == "application/json"
    assert post.headers["x-inngest-env"] == "branch-1"
    assert post.headers["user-agent"].startswith("stepbase-relay/")


async def test_batches_keep_to_their_limits(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    ids = await emit(db, 25) + await emit(db, 12, size=30_000)

    async with start_relay(batch_events=10, batch_bytes=100_000):
        await until(lambda: empty(db))

    assert receiver.accepted == dict.fromkeys(ids, 1)
    assert max(len(post.events) for post in receiver.posts) == 10
    assert max(post.size for post in receiver.posts) <= 100_000 + 2


async def test_an_event_larger_than_a_batch_travels_alone(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    [large], [small] = await emit(db, size=300_000), await emit(db)

    async with start_relay(batch_bytes=100_000):
        await until(lambda: empty(db))

    assert [large] in [post.ids for post in receiver.posts]
    assert receiver.accepted == {large: 1, small: 1}


@pytest.mark.parametrize("place", [0, 3, 9])
async def test_a_refused_event_is_dead_at_once_and_stops_nothing(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay, place: int
) -> None:
    receiver.bad = {"bad/one"}
    async with db.transaction():
        before = await emit(db, place)
        [bad] = await emit(db, name="bad/one")
        after = await emit(db, 9 - place)

    async with start_relay():
        await until(lambda: empty(db))

    assert receiver.accepted == dict.fromkeys(before + after, 1)
    reason = "HTTP 400: event name is reserved for internal use: bad/one"
    assert await dead(db) == {bad: reason}
    assert [bad] in [post.ids for post in receiver.posts], (
        "it was tried alone before it was given up"
    )


async def test_many_poison_events_stop_nothing(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    receiver.bad = {"bad/one"}
    good, bad = [], []
    for _ in range(20):
        good += await emit(db, 5)
        bad += await emit(db, name="bad/one")

    async with start_relay():
        await until(lambda: empty(db))

    assert receiver.accepted == dict.fromkeys(good, 1)
    assert set(await dead(db)) == set(bad)


async def test_no_event_dies_of_a_400_that_is_not_an_event_apis(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    receiver.decide = lambda post: (
        Reply(400, "The plain HTTP request …") if post.number < 3 else None
    )
    ids = await emit(db, 3)

    async with start_relay():
        await until(lambda: empty(db))

    assert set(receiver.accepted) == set(ids)
    assert await dead(db) == {}


async def test_a_request_that_is_too_large_is_taken_apart(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    def decide(post: Post) -> Answer:
        return Reply(413, {"error": "too large"}) if post.size > 40_000 else None

    receiver.decide = decide
    ids = await emit(db, 16, size=10_000)
    [huge] = await emit(db, size=50_000)

    async with start_relay():
        await until(lambda: empty(db))
        refused = len([post for post in receiver.posts if post.size > 40_000])
        more = await emit(db, 16, size=10_000)
        await until(lambda: empty(db))

    assert receiver.accepted == dict.fromkeys(ids + more, 1)
    assert await dead(db) == {huge: "HTTP 413: too large"}
    later = [post for post in receiver.posts if post.size > 40_000]
    assert len(later) == refused, "the relay has learnt how much is too much"


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_an_outage_of_the_receiver_costs_nobody_their_event(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay, status: int
) -> None:
    receiver.decide = lambda post: Reply(status, {"error": "no"}) if post.number <= 2 else None
    ids = await emit(db, 50)

    async with start_relay(in_flight=1):
        await until(lambda: len(receiver.posts) >= 2)
        errors = {r["error"] for r in await db.fetch("select error from stepbase.outbox")}
        await until(lambda: empty(db))

    assert set(receiver.accepted) == set(ids)
    assert [len(post.events) for post in receiver.posts[:3]] == [50, 1, 1], "one event asks"
    assert any(f"HTTP {status}: no" in (error or "") for error in errors)
    assert await dead(db) == {}


async def test_retry_after_is_kept(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    receiver.decide = lambda _: Reply(429, {"error": "slow down"}, headers={"retry-after": "300"})
    await emit(db, 3)

    async with start_relay() as relay:
        await until(lambda: relay.pace.is_troubled)
        await emit(db)
        await until(lambda: db.fetchval("select min(tries) = 0 from stepbase.outbox"))
        assert len(receiver.posts) == 1

    waits = await db.fetchval(
        "select min(due_at - stepbase.now()) from stepbase.outbox where tries > 0"
    )
    assert timedelta(seconds=280) < waits <= timedelta(seconds=300)


async def test_a_receiver_that_hangs_is_asked_again(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    async def decide(post: Post) -> Answer:
        if post.number == 1:
            await asyncio.sleep(10)
        return None

    receiver.decide = decide
    ids = await emit(db, 5)

    async with start_relay(timeout=0.3):
        await until(lambda: empty(db))

    assert set(receiver.accepted) == set(ids)


async def test_a_receiver_that_accepts_and_is_cut_off_gets_the_same_ids_again(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    receiver.decide = lambda post: Reply(0, accepted=5) if post.number == 1 else None
    ids = await emit(db, 5)

    async with start_relay():
        await until(lambda: empty(db))

    assert receiver.accepted == dict.fromkeys(ids, 2)


async def test_a_receiver_that_is_not_there_yet_is_waited_for(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    await receiver.stop()
    ids = await emit(db, 5)

    async with start_relay() as relay:
        await until(lambda: relay.pace.failures >= 2)
        await receiver.start()
        await until(lambda: empty(db))

    assert receiver.accepted == dict.fromkeys(ids, 1)


async def test_an_event_that_takes_the_receiver_down_ends_up_alone(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    def decide(post: Post) -> Answer:
        return Reply(500, {"error": "boom"}) if bad in post.ids else None

    receiver.decide = decide
    good = await emit(db, 30)
    [bad] = await emit(db, name="bad/one")
    good += await emit(db, 30)

    async with start_relay():
        await until(lambda: set(receiver.accepted) == set(good))
        # Later ones are not held up by it either.
        more = await emit(db, 5)
        await until(lambda: set(receiver.accepted) == set(good + more))

    row = await db.fetchrow("select tries, error, dead_at from stepbase.outbox")
    assert row is not None and row["tries"] >= 1
    assert (row["error"], row["dead_at"]) == ("HTTP 500: boom", None)


async def test_an_event_that_nobody_takes_is_given_up_when_tried_often_and_old(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    receiver.decide = lambda _: Reply(500, {"error": "boom"})
    [old, young] = await emit(db, 2)
    await db.execute(
        "update stepbase.outbox set created_at = created_at - interval '8 days' where id = $1", old
    )

    async with start_relay(most_tries=2):
        await until(lambda: db.fetchval("select min(tries) >= 2 from stepbase.outbox"), seconds=30)
        await until(lambda: db.fetchval("select bool_and(token is null) from stepbase.outbox"))

    assert await dead(db) == {old: "HTTP 500: boom"}
    assert young not in await dead(db)


async def test_two_relays_share_the_work(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    ids = await emit(db, 300)

    async with start_relay(batch_events=10), start_relay(batch_events=10):
        await until(lambda: empty(db))

    assert receiver.accepted == dict.fromkeys(ids, 1)


async def test_a_sleeping_relay_is_woken_by_a_commit(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    async with start_relay(poll=60.0):
        await until(
            lambda: db.fetchval(
                "select pg_sequence_last_value('stepbase.relay_idle_until') > 0"
                " and exists (select from pg_stat_activity"
                "   where application_name = 'stepbase relay listener' and datname = current_database()"
                "   and query like '%outbox_claim%')"
            )
        )
        await asyncio.sleep(0.7)  # past the second looks: from now on only a notification helps
        [event_id] = await emit(db)
        await until(lambda: event_id in receiver.accepted, seconds=5)


async def test_a_sleeping_relay_asks_the_database_for_little(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    count = "select sum(xact_commit) from pg_stat_database where datname = current_database()"
    async with start_relay(poll=60.0):
        await asyncio.sleep(1.5)
        await db.execute("select pg_stat_clear_snapshot()")
        before = await db.fetchval(count)
        await asyncio.sleep(1.0)
        await db.execute("select pg_stat_clear_snapshot()")
        after = await db.fetchval(count)

    assert after - before <= 4  # ours among them


async def test_stopping_waits_for_requests_under_way(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    go_on = asyncio.Event()

    async def decide(_: Post) -> Answer:
        receiver.arrived.set()
        await go_on.wait()
        return None

    receiver.decide = decide
    ids = await emit(db, 3)

    async with start_relay() as relay:
        await receiver.arrived.wait()
        relay.stop()
        [late] = await emit(db)
        go_on.set()

    assert receiver.accepted == dict.fromkeys(ids, 1)
    left = await db.fetch("select id, token from stepbase.outbox")
    assert [tuple(row) for row in left] == [(late, None)]


async def test_stopping_does_not_wait_for_ever(
    db: asyncpg.Connection, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    async def decide(_: Post) -> Answer:
        receiver.arrived.set()
        await asyncio.sleep(10)
        return None

    receiver.decide = decide
    await emit(db, 3)

    async with start_relay(drain_seconds=0.1):
        await receiver.arrived.wait()

    rows = await db.fetch("select token, tries from stepbase.outbox where due_at <= stepbase.now()")
    assert [tuple(row) for row in rows] == [(None, 0)] * 3, "given back at once"


async def test_a_copy_is_refused_until_somebody_says_take_over(
    db: asyncpg.Connection, database: str, receiver: EventReceiver, start_relay: StartRelay
) -> None:
    await db.execute("select stepbase.outbox_claim('production')")
    ids = await emit(db, 3)

    with pytest.raises(StoreError, match='belongs to project "production".*--take-over') as refused:
        async with running(settings(database, receiver)):
            pass
    assert refused.value.sqlstate == "SB013"
    assert receiver.posts == []

    async with start_relay(take_over=True):
        await until(lambda: empty(db))
    assert receiver.accepted == dict.fromkeys(ids, 1)


async def test_a_relay_whose_outbox_is_taken_over_ends(
    db: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    async with running(settings(database, receiver, poll=0.05)) as (relay, _):
        listening = asyncio.create_task(relay.listen())
        await db.execute("select stepbase.outbox_claim('another', true)")

        with pytest.raises(StoreError, match='belongs to project "another"'):
            await asyncio.wait_for(listening, 10)


async def test_a_database_without_the_schema_is_explained(
    database: str, db: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await db.execute("drop schema stepbase cascade")

    with pytest.raises(StoreError, match="apply the migrations first"):
        async with running(settings(database, receiver)):
            pass


async def test_the_event_key_is_told_to_nobody(
    db: asyncpg.Connection,
    receiver: EventReceiver,
    start_relay: StartRelay,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.decide = lambda _: Reply(404, {"error": f"there is nothing at /e/{KEY}"})
    await emit(db)

    with caplog.at_level(logging.INFO, "stepbase"):
        async with start_relay():
            await until(lambda: db.fetchval("select error is not null from stepbase.outbox"))

    error = await db.fetchval("select error from stepbase.outbox")
    assert "/e/<event key>" in error
    told = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "receiver is away" in told
    assert KEY not in error + told
    assert KEY not in repr(settings("", receiver))


async def test_metrics_and_health(
    db: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    receiver.bad = {"bad/one"}
    await emit(db, 3)
    await emit(db, name="bad/one")

    async with (
        running(settings(database, receiver, metrics_port=0)) as (relay, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web,
    ):
        working = asyncio.create_task(relay.run())
        await until(lambda: empty(db))
        text = (await web.get("/metrics")).text
        health = await web.get("/health")
        relay.stop()
        draining = await web.get("/health")
        await working

    lines = set(text.splitlines())
    assert {
        "stepbase_relay_sent_total 3.0",
        "stepbase_relay_failed_total 0.0",
        "stepbase_relay_dead_total 1.0",
        'stepbase_relay_batches_total{outcome="refused"} 2.0',
        "stepbase_outbox_dead 1.0",
        "stepbase_outbox_waiting 0.0",
        "stepbase_outbox_lag_seconds 0.0",
        "stepbase_database_up 1.0",
    } <= lines
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert (draining.status_code, draining.json()["status"]) == (503, "draining")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"project": ""}, "name of the project"),
        ({"batch_events": 5001}, "1 to 5000 events"),
        ({"timeout": 60.0}, "must last longer"),
        ({"in_flight": 0}, "must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    given: dict[str, Any] = {
        "database_url": "", "event_origin": "", "event_key": "", "project": "p", **changes,
    }  # fmt: skip

    with pytest.raises(ValueError, match=message):
        Settings(**given)
