"""One kind of reader for an outbox: whichever comes second is refused, and says who is there."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from tests.relay.conftest import StartRelay, emit, empty, settings, until
from tests.relay.test_pg_net import start, tick
from tests.support import pg_net
from tests.support.event_receiver import EventReceiver, Reply
from tests.support.sql import refused

from stepbase.engine.app import Engine
from stepbase.engine.app import running as running_engine
from stepbase.engine.settings import Settings
from stepbase.errors import StoreError
from stepbase.relay.process import running

TICK = "select stepbase.relay_tick()"
STOPPED = "select stepbase.relay_stop()"


@asynccontextmanager
async def engine(database: str) -> AsyncIterator[Engine]:
    """An engine of the test's database."""
    wanted = Settings(database_url=database, port=0, lease=timedelta(seconds=5), sweep_seconds=0.2)
    async with running_engine(wanted) as engine:
        yield engine


@pytest.fixture
async def net(db: asyncpg.Connection) -> asyncpg.Connection:
    """The test's database with the stand-ins for pg_net, Vault and pg_cron."""
    await db.execute(pg_net.NET + pg_net.VAULT + pg_net.CRON)
    await db.execute("select vault.create_secret('key', 'inngest_event_key')")
    return db


async def kinds(db: asyncpg.Connection) -> list[str]:
    return [row["kind"] for row in await db.fetch("select kind from stepbase.outbox_readers()")]


async def test_a_relay_is_refused_where_an_engine_runs(
    db: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    async with engine(database):
        assert await kinds(db) == ["engine"]
        with pytest.raises(StoreError, match="read by an engine .*Stop that one first") as no:
            async with running(settings(database, receiver, take_over=True)):
                pass
        assert no.value.sqlstate == "SB015" and "HINT" not in str(no.value)
        assert await db.fetchval("select project from stepbase.relay_state") is None

    await until(lambda: _none(db))
    async with running(settings(database, receiver)):
        pass  # the engine has gone


async def test_an_engine_is_refused_where_a_relay_runs_and_takes_nothing(
    db: asyncpg.Connection, database: str, start_relay: StartRelay, receiver: EventReceiver
) -> None:
    receiver.decide = lambda _: Reply(503)
    async with start_relay():
        await until(lambda: _read_as(db, "relay"))
        await emit(db, 3)
        with pytest.raises(StoreError, match="read by stepbase relay"):
            async with engine(database):
                pass
        assert await db.fetchval("select count(*) from stepbase.events") == 0
        receiver.decide = lambda _: None
        await until(lambda: empty(db))
    assert len(receiver.accepted) == 3


async def test_readers_of_one_kind_share(
    db: asyncpg.Connection, database: str, start_relay: StartRelay
) -> None:
    async with engine(database), engine(database):
        assert await kinds(db) == ["engine", "engine"]
    await until(lambda: _none(db))
    async with start_relay(), start_relay():
        await until(lambda: _two_relays(db))


async def test_a_relay_beside_which_an_engine_appears_ends(
    database: str, receiver: EventReceiver
) -> None:
    async with running(settings(database, receiver, poll=0.05)) as (relay, _):
        other = await asyncpg.connect(database)
        # Between the relay's look and its lock, as two that start at one moment.
        await other.execute("select stepbase.outbox_read_as('engine')")
        with pytest.raises(StoreError, match="read by an engine"):
            await asyncio.wait_for(relay.listen(), 10)
        await other.close()


async def test_an_engine_that_has_begun_goes_on_and_says_so(
    db: asyncpg.Connection, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(database) as running_one:
        other = await asyncpg.connect(database)
        await other.execute("select stepbase.outbox_read_as('relay')")
        with caplog.at_level(logging.ERROR, "stepbase.engine.listener"):
            await db.execute(
                "select pg_terminate_backend(pid) from stepbase.outbox_readers() where kind = 'engine'"
            )
            await until(lambda: "the outbox has another reader" in caplog.text)
        await other.close()
        assert running_one.failure is not None and not running_one.failure.done()
        await emit(db)
        await until(lambda: empty(db))


async def test_a_reader_is_gone_when_its_session_is(db: asyncpg.Connection, database: str) -> None:
    other = await asyncpg.connect(database)
    await other.execute("select stepbase.outbox_read_as('relay')")
    [row] = await db.fetch("select * from stepbase.outbox_readers()")
    assert row["pid"] == other.get_server_pid() and row["since"] is not None
    said = str(await refused(db, "SB015", "select stepbase.outbox_alone('engine')"))
    assert str(row["pid"]) in said

    other.terminate()
    await until(lambda: _none(db))
    await db.execute("select stepbase.outbox_alone('engine')")


async def test_other_kinds_of_sessions_are_refused(db: asyncpg.Connection) -> None:
    for kind in ("pg_net", "", None):
        await refused(db, "22023", "select stepbase.outbox_read_as($1)", kind)


async def test_readers_of_another_database_do_not_count(
    db: asyncpg.Connection, database: str
) -> None:
    elsewhere = await asyncpg.connect(database, database="postgres")
    await elsewhere.execute("select pg_advisory_lock_shared(1936878713, 1)")
    assert await kinds(db) == []
    await elsewhere.close()


async def test_the_service_role_sees_who_reads(net: asyncpg.Connection, database: str) -> None:
    await net.execute(
        "select stepbase.relay_start('test', p_schedule => null);set role service_role"
    )
    assert await kinds(net) == ["pg_net"]
    await refused(net, "SB015", "select stepbase.outbox_alone('relay')")


# -- the relay on pg_net --------------------------------------------------------------------------------


async def test_where_the_relay_on_pg_net_is_set_up_nobody_else_starts(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    with pytest.raises(StoreError, match="the relay on pg_net .*relay_stop"):
        async with running(settings(database, receiver)):
            pass
    with pytest.raises(StoreError, match="the relay on pg_net"):
        async with engine(database):
            pass

    await net.execute(STOPPED)
    async with engine(database):
        assert await kinds(net) == ["engine"]


async def test_the_relay_on_pg_net_does_not_start_beside_an_engine(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    async with engine(database):
        await refused(net, "SB015", "select stepbase.relay_start('test', p_schedule => null)")
        assert await net.fetchval("select count(*) from stepbase.relay_pg_net") == 0


async def test_ticks_beside_an_engine_fail_and_send_nothing(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver, p_poke=True)
    await tick(net)
    await emit(net)  # sent at once
    await emit(net)  # within a second, so it waits for the tick
    async with asyncio.timeout(10):
        other = await asyncpg.connect(database)
        await other.execute("select stepbase.outbox_read_as('engine')")
        # What is under way is read to its end, so that nobody sends it again.
        assert await tick(net) == {"answered": 0, "sent": 0, "under_way": 1}
        async with pg_net.working(database):
            await until(lambda: receiver.accepted)
            await until(lambda: _answer_read(net))
        assert "read by an engine" in str(await refused(net, "SB015", TICK))
        await net.execute("select setval('stepbase.relay_poked_at', 0)")
        await emit(net)
        assert await net.fetchval("select count(*) from net.http_request_queue") == 0
        await other.close()
    assert len(receiver.accepted) == 1
    await until(lambda: _none_but(net, "pg_net"))
    assert (await tick(net))["sent"] == 1


async def test_a_relay_that_was_stopped_reads_answers_and_sends_nothing(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await emit(net)
    await tick(net)
    assert await net.fetchval(STOPPED) == 1
    await emit(net)

    async with pg_net.working(database):
        await until(lambda: _nothing_under_way(net))
    assert await tick(net) == {"answered": 0, "sent": 0, "under_way": 0}
    assert len(receiver.accepted) == 1
    assert await net.fetchval("select count(*) from stepbase.outbox") == 1

    await start(net, receiver)  # again
    assert (await tick(net))["sent"] == 1


async def test_the_original_is_not_disarmed_while_pg_net_relays(
    net: asyncpg.Connection, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await emit(net)
    owner = await net.fetchval("select project from stepbase.relay_state")
    with pytest.raises(asyncpg.PostgresError, match="is read by the relay on pg_net") as no:
        await net.execute("select stepbase.disarm_copy('branch', $1)", owner)
    assert no.value.sqlstate == "SB015" and "relay_stop()" in str(no.value.hint)
    assert await net.fetchval("select count(*) from stepbase.outbox") == 1


async def test_a_copy_of_its_set_up_is_no_reader(
    net: asyncpg.Connection, database: str, receiver: EventReceiver
) -> None:
    await start(net, receiver)
    await net.execute("update stepbase.relay_pg_net set home = '1/2'")
    assert await kinds(net) == []
    async with running(replace(settings(database, receiver), project="test")):
        pass
    await until(lambda: _none(net))
    await net.execute("select stepbase.disarm_copy('branch', 'test')")
    assert await net.fetchval("select is_stopped from stepbase.relay_pg_net")
    async with running(replace(settings(database, receiver), project="branch")):
        pass


async def _none(db: asyncpg.Connection) -> bool:
    return await kinds(db) == []


async def _none_but(db: asyncpg.Connection, kind: str) -> bool:
    return await kinds(db) == [kind]


async def _two_relays(db: asyncpg.Connection) -> bool:
    return await kinds(db) == ["relay", "relay"]


async def _read_as(db: asyncpg.Connection, kind: str) -> bool:
    return kind in await kinds(db)


async def _answer_read(db: asyncpg.Connection) -> bool:
    return await tick(db) == {"answered": 1, "sent": 0, "under_way": 0}


async def _nothing_under_way(db: asyncpg.Connection) -> bool:
    return (await tick(db))["under_way"] == 0 and not await db.fetchval(
        "select count(*) from stepbase.relay_requests"
    )
