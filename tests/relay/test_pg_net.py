"""The relay without a process: pg_cron calls it, and pg_net (a stand-in, tests/support/pg_net.py) carries.

The first tests show what the stand-in has in common with pg_net, and that plain webhooks on it lose events.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect, migration_files
from tests.relay.conftest import emit, empty, until
from tests.relay.moods import Moody
from tests.repo.pages import blocks
from tests.repo.tree import ROOT
from tests.support import pg_cron, pg_net
from tests.support.event_receiver import Answer, EventReceiver, Post, Reply
from tests.support.sql import refused
from tests.unit.relay.answers import ANSWERS

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

KEY = "key-in-vault"
RELAYS = ROOT / "docs" / "relays.md"

_WEBHOOK = """
create table public.facts (n int primary key);
create function public.webhook() returns trigger language plpgsql as $$
begin
  perform net.http_post(url => '{url}/e/key',
    body => jsonb_build_array(jsonb_build_object('name', 'fact/told', 'id', 'fact-' || new.n)));
  return null;
end $$;
create trigger webhook after insert on public.facts for each row execute function public.webhook();
"""


@pytest.fixture
async def net(db: asyncpg.Connection) -> asyncpg.Connection:
    """The test's database with the stand-ins and the event key."""
    await db.execute(pg_net.NET + pg_net.VAULT + pg_net.CRON)
    await db.execute("select vault.create_secret($1, 'inngest_event_key')", KEY)
    return db


async def start(db: asyncpg.Connection, receiver: EventReceiver, **options: object) -> object:
    """Set the relay up; nobody calls it but the test."""
    given = {"p_project": "test", "p_url": receiver.url, "p_schedule": None, **options}
    names = ", ".join(f"{name} => ${i}" for i, name in enumerate(given, 1))
    return await db.fetchval(f"select stepbase.relay_start({names})", *given.values())


def has_come(receiver: EventReceiver, requests: int) -> bool:
    """Say whether the receiver has had so many requests."""
    return len(receiver.posts) >= requests


async def tick(db: asyncpg.Connection) -> dict[str, int]:
    found: dict[str, int] = json.loads(await db.fetchval("select stepbase.relay_tick()"))
    return found


async def ticks(db: asyncpg.Connection, until_so: Callable[[], Any], seconds: float = 20) -> None:
    """Be pg_cron: call the relay again and again until something holds."""

    async def holds() -> bool:
        await tick(db)
        found = until_so()
        return bool(await found if asyncio.iscoroutine(found) else found)

    await until(holds, seconds)


# -- the stand-in, and webhooks on it ------------------------------------------------------------------


@pytest.fixture
async def crashing() -> AsyncIterator[Cluster]:
    """A server of the test's own that may be crashed, with everything the relay needs."""
    with Cluster(port=0, durable=False, settings={"max_wal_size": "256MB"}) as cluster:
        await migrate.apply_files(cluster.dsn(), migration_files())
        db = await asyncpg.connect(cluster.dsn())
        await db.execute(pg_net.NET + pg_net.VAULT + pg_net.CRON)
        await db.execute("select vault.create_secret('key', 'inngest_event_key')")
        await db.close()
        yield cluster


async def test_plain_webhooks_lose_events_in_a_crash(
    crashing: Cluster, receiver: EventReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    db = await asyncpg.connect(crashing.dsn())
    await db.execute(_WEBHOOK.format(url=receiver.url))

    async with pg_net.working(crashing.dsn()):
        await db.execute("insert into public.facts select generate_series(1, 3000)")
        await until(lambda: len(receiver.accepted) >= 200)
        db.terminate()
        await asyncio.to_thread(crashing.restart, immediate=True)
        db = await asyncpg.connect(crashing.dsn())
        await until(lambda: db.fetchval("select not exists (select from net.http_request_queue)"))
        await asyncio.sleep(0.3)

    rows = await db.fetchval("select count(*) from public.facts")
    await db.close()
    with capsys.disabled():
        sys.stdout.write(
            f"\n  webhooks: {rows} rows committed, {len(receiver.accepted)} told, "
            f"{rows - len(receiver.accepted)} lost in the crash\n"
        )
    assert rows == 3000
    assert len(receiver.accepted) < 3000


async def test_plain_webhooks_never_try_again(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    receiver.decide = lambda _: Reply(500, {"error": "no"})
    await net.execute(_WEBHOOK.format(url=receiver.url))

    async with pg_net.working(database):
        await net.execute("insert into public.facts select generate_series(1, 5)")
        await until(lambda: net.fetchval("select count(*) = 5 from net._http_response"))
        await asyncio.sleep(0.3)

    assert len(receiver.posts) == 5
    assert receiver.accepted == {}


async def test_plain_webhooks_wait_behind_a_slow_one(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    async def decide(post: Post) -> Answer:
        if post.ids == ["fact-1"]:
            await asyncio.sleep(0.5)
        return None

    receiver.decide = decide
    await net.execute(_WEBHOOK.format(url=receiver.url))

    async with pg_net.working(database):
        await net.execute("insert into public.facts select generate_series(1, 201)")
        await until(lambda: len(receiver.posts) == 200)
        await asyncio.sleep(0.2)
        assert len(receiver.posts) == 200, "the 201st waits for the first"
        await until(lambda: len(receiver.posts) == 201)


# -- the relay -----------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
async def test_ten_thousand_events_in_a_storm_all_arrive(
    crashing: Cluster, receiver: EventReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    moody = Moody(seed=11)
    receiver.decide = moody
    db = await asyncpg.connect(crashing.dsn())
    await start(db, receiver, p_batch_events=100, p_timeout=timedelta(seconds=1))
    await emit(db, 5000)
    crashes = 0
    async with pg_net.working(crashing.dsn()) as worker:
        for enough in (20, 40):
            await ticks(db, partial(has_come, receiver, enough))
            db.terminate()
            await asyncio.to_thread(crashing.restart, immediate=True)
            crashes += 1
            db = await asyncpg.connect(crashing.dsn())
            await emit(db, 2500)
        await ticks(db, lambda: min(moody.moods.values()) >= 2, seconds=60)
        moody.behaves = True
        await db.execute("select stepbase.outbox_retry()")
        await ticks(db, lambda: empty(db), seconds=60)
        sent = worker.sent
    left = await db.fetch("select id, error from stepbase.outbox")
    await db.close()

    twice = sum(1 for count in receiver.accepted.values() if count > 1)
    with capsys.disabled():
        sys.stdout.write(
            f"\n  outbox on pg_net: 10000 committed, {len(receiver.accepted)} arrived, {twice} of them more"
            f" than once; {sent} requests, {crashes} crashes of Postgres, receiver: {moody.moods}\n"
        )
    assert len(receiver.accepted) == 10_000
    assert left == []


async def test_events_arrive_as_they_were_emitted(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver, p_env="branch-1")
    event_id = await net.fetchval(
        """select stepbase.emit('shop/paid', '{"amount": 12.50, "note": "Käse"}',
             ts => '2027-02-28T10:00:00.123Z', "user" => '{"id": 7}', v => '2')"""
    )

    async with pg_net.working(database):
        await ticks(net, lambda: empty(net))

    assert receiver.events[event_id] == {
        "id": event_id, "name": "shop/paid", "data": {"amount": 12.50, "note": "Käse"},
        "ts": 1803808800123, "user": {"id": 7}, "v": "2",
    }  # fmt: skip
    [post] = receiver.posts
    assert (post.key, post.headers["x-inngest-env"]) == (KEY, "branch-1")


async def test_a_tick_that_is_rolled_back_sends_nothing_and_leases_nothing(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await emit(net, 3)
    transaction = net.transaction()
    await transaction.start()
    assert (await tick(net))["sent"] == 1
    await transaction.rollback()

    assert await net.fetchval("select count(*) from net.http_request_queue") == 0
    assert await net.fetchval("select count(*) from stepbase.outbox where token is null") == 3


@pytest.mark.parametrize("place", [0, 3, 9])
async def test_a_refused_event_is_dead_at_once_and_stops_nothing(
    net: asyncpg.Connection, database: str, receiver: EventReceiver, place: int
) -> None:
    receiver.bad = {"bad/one"}
    await start(net, receiver)
    async with net.transaction():
        good = await emit(net, place)
        [bad] = await emit(net, name="bad/one")
        good += await emit(net, 9 - place)

    async with pg_net.working(database):
        await ticks(net, lambda: empty(net))

    assert receiver.accepted == dict.fromkeys(good, 1)
    dead = await net.fetch("select id, error from stepbase.outbox")
    reason = "HTTP 400: event name is reserved for internal use: bad/one"
    assert [tuple(row) for row in dead] == [(bad, reason)]


async def test_an_event_that_is_no_jsonb_is_dead_and_stops_nothing(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    good = await emit(net, 3)
    await net.execute(
        r"""insert into stepbase.outbox (id, name, payload, created_at, due_at)
          values ('nul', 'a/b', '{"name": "a/b", "data": {"x": "\u0000"}}', now(), now())"""
    )

    async with pg_net.working(database):
        await ticks(net, lambda: empty(net))

    assert receiver.accepted == dict.fromkeys(good, 1)
    error = await net.fetchval("select error from stepbase.outbox where id = 'nul'")
    assert error.startswith("cannot be sent: ")


async def test_a_request_that_is_too_large_is_taken_apart(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    receiver.decide = lambda post: Reply(413, {"error": "large"}) if post.size > 40_000 else None
    await start(net, receiver)
    ids = await emit(net, 9, size=10_000)
    [huge] = await emit(net, size=50_000)

    async with pg_net.working(database):
        await ticks(net, lambda: empty(net))

    assert receiver.accepted == dict.fromkeys(ids, 1)
    dead = await net.fetch("select id, error from stepbase.outbox")
    assert [tuple(row) for row in dead] == [(huge, "HTTP 413: large")]


async def test_an_outage_costs_one_event_a_try_and_nobody_their_life(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    receiver.decide = lambda post: Reply(500, {"error": "no"}) if post.number <= 2 else None
    await start(net, receiver)
    ids = await emit(net, 50)

    async with pg_net.working(database):
        await ticks(net, lambda: empty(net))

    assert set(receiver.accepted) == set(ids)
    assert [len(post.events) for post in receiver.posts[:3]] == [50, 1, 1]


async def test_a_receiver_that_is_not_there_and_one_that_hangs_are_waited_for(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    async def decide(post: Post) -> Answer:
        if post.number == 1:
            await asyncio.sleep(5)
        return None

    receiver.decide = decide
    await start(net, receiver, p_timeout=timedelta(seconds=0.3))
    [event_id] = await emit(net)
    await receiver.stop()
    errors = "select error from stepbase.outbox where error is not null"

    async with pg_net.working(database):
        await ticks(net, lambda: net.fetchval(errors))
        assert "no answer: Couldn't connect" in await net.fetchval(errors)
        await receiver.start()
        await ticks(net, lambda: receiver.posts)
        await ticks(net, lambda: net.fetchval(errors + " and error like '%Timeout%'"))
        await net.execute("select stepbase.outbox_retry()")
        await ticks(net, lambda: empty(net))

    assert event_id in receiver.accepted


async def test_a_clock_that_is_set_back_does_not_stop_it(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await emit(net)
    # It failed at two o'clock; then the clock was set to one.
    await net.execute(
        "update stepbase.relay_pg_net set failures = 3, pause_until = now() + interval '1 hour'"
    )

    assert (await tick(net))["sent"] == 1
    await net.execute(
        "update stepbase.relay_pg_net set pause_until = now() + interval '10 minutes'"
    )
    await net.execute(
        "update stepbase.outbox set due_at = now() - interval '1 second', token = null"
    )
    await net.execute("delete from stepbase.relay_requests")
    assert (await tick(net))["sent"] == 0, "what a receiver asks for is kept"


async def test_retry_after_is_kept(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    receiver.decide = lambda _: Reply(429, {"error": "slow"}, headers={"Retry-After": "300"})
    await start(net, receiver)
    await emit(net, 2)

    async with pg_net.working(database):
        await ticks(net, lambda: net.fetchval("select failures = 1 from stepbase.relay_pg_net"))
        assert (await tick(net))["sent"] == 0

    waits = await net.fetchrow(
        "select (select pause_until from stepbase.relay_pg_net) - now(), min(due_at) - now()"
        " from stepbase.outbox"
    )
    assert waits is not None
    assert all(timedelta(seconds=290) < wait <= timedelta(seconds=300) for wait in waits)


async def test_what_has_failed_often_travels_alone(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    def decide(post: Post) -> Answer:
        return Reply(500, {"error": "boom"}) if bad in post.ids else None

    receiver.decide = decide
    await start(net, receiver)
    good = await emit(net, 20)
    [bad] = await emit(net)
    await net.execute("update stepbase.outbox set tries = 3 where id = $1", bad)

    async with pg_net.working(database):
        await ticks(net, lambda: set(receiver.accepted) == set(good))

    assert [bad] in [post.ids for post in receiver.posts]
    assert await net.fetchval("select failures from stepbase.relay_pg_net") == 0


async def test_a_request_that_pg_net_lost_is_sent_again(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    [event_id] = await emit(net)
    await tick(net)
    await net.execute("delete from net.http_request_queue")
    assert await tick(net) == {"answered": 0, "sent": 0, "under_way": 1}

    await net.execute("update stepbase.relay_requests set sent_at = sent_at - interval '2 minutes'")
    async with pg_net.working(database):
        await ticks(net, lambda: empty(net))

    assert receiver.accepted == {event_id: 1}


async def test_what_waits_long_in_the_queue_is_not_sent_twice(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await emit(net)
    await tick(net)
    # Nobody sends, for longer than a lease and than any timeout.
    await net.execute("update stepbase.relay_requests set sent_at = sent_at - interval '1 hour'")
    await net.execute("update stepbase.outbox set due_at = due_at - interval '4 minutes'")

    assert await tick(net) == {"answered": 0, "sent": 0, "under_way": 1}

    assert await net.fetchval("select due_at > now() + interval '4 minutes' from stepbase.outbox")


async def test_answers_to_numbers_of_an_earlier_life_are_not_taken_for_ours(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    ids = await emit(net, 2)
    await tick(net)
    # A crash: all unlogged tables are empty. Then somebody else's request gets our number, and is accepted.
    await net.execute("truncate stepbase.relay_life, net.http_request_queue restart identity")
    await net.execute(
        "insert into net._http_response (id, status_code, content) values (1, 200, $1)",
        json.dumps({"ids": ids, "status": 200}),
    )

    assert await tick(net) == {"answered": 1, "sent": 1, "under_way": 1}

    assert await net.fetchval("select count(*) from stepbase.outbox") == 2


async def test_two_ticks_at_once_are_one(
    net: asyncpg.Connection, connect: Connect, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    other = await connect()
    async with net.transaction():
        await tick(net)
        assert await other.fetchval("select stepbase.relay_tick()") is None


async def test_no_more_is_under_way_than_said(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver, p_batch_events=2, p_in_flight=3)
    await emit(net, 20)

    assert await tick(net) == {"answered": 0, "sent": 3, "under_way": 3}
    assert await tick(net) == {"answered": 0, "sent": 0, "under_way": 3}
    assert await net.fetchval("select count(*) from stepbase.outbox where token is null") == 14


async def test_an_event_sent_at_once_needs_no_tick(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver, p_poke=True)
    await tick(net)

    async with pg_net.working(database):
        [event_id] = await emit(net)
        await until(lambda: event_id in receiver.accepted)
        # At most once a second; the others wait for the tick.
        await net.execute(
            "select setval('stepbase.relay_poked_at', (extract(epoch from now()) * 1000)::bigint + 60000)"
        )
        more = await emit(net, 5)
        assert await net.fetchval("select count(*) from stepbase.outbox where token is null") == 5
        await ticks(net, lambda: empty(net))

    assert receiver.accepted == dict.fromkeys([event_id, *more], 1)


async def test_sending_at_once_never_fails_the_writer(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver, p_poke=True)
    await tick(net)
    await net.execute("drop schema net cascade")

    await emit(net)

    assert await net.fetchval("select token is null and tries = 0 from stepbase.outbox")


async def test_sending_at_once_is_rolled_back_with_the_writer(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver, p_poke=True)
    await tick(net)
    transaction = net.transaction()
    await transaction.start()
    await emit(net)
    assert await net.fetchval("select count(*) from net.http_request_queue") == 1
    await transaction.rollback()

    assert await net.fetchval("select count(*) from net.http_request_queue") == 0


async def test_stopping_leaves_no_job_and_no_trigger(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    assert await start(net, receiver, p_schedule="5 seconds", p_poke=True) == "5 seconds"
    jobs = await net.fetch("select jobname, schedule, command from cron.job")
    assert [tuple(job) for job in jobs] == [
        ("stepbase-relay", "5 seconds", "select stepbase.relay_tick()")
    ]
    await emit(net)
    await tick(net)

    assert await net.fetchval("select stepbase.relay_stop()") == 1
    assert await net.fetchval("select count(*) from cron.job") == 0
    triggers = "select count(*) from pg_trigger where tgname = 'stepbase_poke'"
    assert await net.fetchval(triggers) == 0


# -- who may, and what it needs --------------------------------------------------------------------------


async def test_what_is_missing_is_named(db: asyncpg.Connection) -> None:
    begin = "select stepbase.relay_start('test')"
    assert "pg_net" in str(await refused(db, "SB014", begin))
    await db.execute(pg_net.NET)
    assert "supabase_vault" in str(await refused(db, "SB014", begin))
    await db.execute(pg_net.VAULT)
    assert "pg_cron" in str(await refused(db, "SB014", begin))
    await db.execute(pg_net.CRON)
    assert 'no secret "inngest_event_key"' in str(await refused(db, "SB014", begin))
    await db.execute("select vault.create_secret('k', 'inngest_event_key')")
    url = "select stepbase.relay_start('test', p_url => 'https://inn.gs/')"
    assert "without a slash" in str(await refused(db, "SB014", url))
    assert "relay_start" in str(await refused(db, "SB014", "select stepbase.relay_tick()"))
    assert await db.fetchval(begin) == "5 seconds"


async def test_a_copy_is_refused_until_somebody_says_take_over(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await emit(net)
    # What a dump restored elsewhere looks like: all rows are there, the home is another.
    await net.execute("update stepbase.relay_pg_net set home = '1/2'")

    assert "this is a copy" in str(await refused(net, "SB013", "select stepbase.relay_tick()"))
    assert await net.fetchval("select count(*) from stepbase.outbox where token is null") == 1
    again = "select stepbase.relay_start('branch', 'http://127.0.0.1:1', p_schedule => null)"
    await refused(net, "SB013", again)
    await start(net, receiver, p_project="branch", p_take_over=True)
    assert (await tick(net))["sent"] == 1


async def test_a_key_that_is_gone_is_said_and_loses_nothing(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await emit(net)
    await net.execute("delete from vault.secrets")

    await refused(net, "SB014", "select stepbase.relay_tick()")

    assert await net.fetchval("select token is null from stepbase.outbox")


@pytest.mark.parametrize(("status", "body", "outcome", "accepted"), ANSWERS)
async def test_answers_are_read_as_by_the_process(
    db: asyncpg.Connection, status: int, body: bytes, outcome: object, accepted: int
) -> None:
    row = await db.fetchrow(
        "select * from stepbase.relay_read_answer($1, $2, 3)", status, body.decode()
    )

    assert row is not None
    assert (row["outcome"], row["accepted"]) == (getattr(outcome, "value", None), accepted)


async def test_the_pages_set_up_works_where_the_extensions_are(
    net: asyncpg.Connection, database: str
) -> None:
    await net.execute("delete from vault.secrets")
    statements = [b for b in blocks(RELAYS) if b.language == "sql"]
    shown = [b for b in statements if "vault." in b.text or "relay_st" in b.text]
    assert len(shown) == 3

    for block in shown[:2]:
        await net.execute(block.text)
    job = await net.fetchval("select command from cron.job")
    assert await net.fetchval(job) is not None
    assert await net.fetchval(shown[2].text) == 0


async def test_real_pg_cron_calls_the_relay(receiver: EventReceiver) -> None:
    with pg_cron.running() as cluster:
        if cluster is None:
            return  # not to be had for this server: the stand-in has to do
        await migrate.apply_files(cluster.dsn(), migration_files())
        db = await asyncpg.connect(cluster.dsn())
        await db.execute(pg_net.NET + pg_net.VAULT)
        await db.execute("create extension pg_cron")
        await db.execute("select vault.create_secret('key', 'inngest_event_key')")
        # Debian's pg_cron knows no seconds.
        schedule = await start(db, receiver, p_schedule="5 seconds")
        [job] = await db.fetch("select schedule, command, active from cron.job")
        [event_id] = await emit(db)
        async with pg_net.working(cluster.dsn()):
            # What pg_cron does every minute, without the minute.
            await until(lambda: _run(db, job["command"], event_id, receiver))
        stopped = await db.fetchval("select stepbase.relay_stop()")
        jobs = await db.fetchval("select count(*) from cron.job")
        await db.close()

    assert schedule == "* * * * *"
    assert tuple(job) == (schedule, "select stepbase.relay_tick()", True)
    assert (stopped, jobs) == (0, 0)


async def _run(
    db: asyncpg.Connection, command: str, event_id: str, receiver: EventReceiver
) -> bool:
    await db.execute(command)
    return event_id in receiver.accepted and await empty(db)
