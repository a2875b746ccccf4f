"""Hosts and databases that go away and come back: nothing is lost, and the messages say what is wrong."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import asyncpg
import pytest
from click.testing import CliRunner
from tests.conftest import Connect, migration_files
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.server import Server
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase.cli.main import main
from stepbase.engine.app import Engine
from stepbase.engine.server import check_address, serving
from stepbase.engine.settings import Settings
from stepbase.errors import StoreError
from stepbase.local import migrate
from stepbase.local.postgres import Cluster

SEED = {"x-inngest-event-id-seed": "1789990000000,AAECAwQFBgcICQ=="}


async def failures(connection: asyncpg.Connection) -> list[tuple[int, int | None, str]]:
    """Return (attempt, HTTP status, error) of every failed attempt."""
    rows = await connection.fetch(
        "select attempt, http_status, error::json ->> 'message' as message"
        " from stepbase.attempts order by id"
    )
    return [(row["attempt"], row["http_status"], row["message"]) for row in rows]


# -- the function host -----------------------------------------------------------------------------


async def test_host_that_is_away_costs_no_attempt(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["ctx"]["attempt"])
    await client.register(host.registration(host.function("app-f", retries=0)))
    connection = await connect()
    await host.stop()

    [event_id] = await client.send({"name": "app/f"})
    async with asyncio.timeout(10):
        # Every try leases and settles the item: at least three were made.
        while (await connection.fetchval("select gen from stepbase.queue") or 0) < 6:
            await asyncio.sleep(0.01)
    await host.start()
    run = await client.result(event_id)

    assert run["output"] == 0
    [(attempt, status, message)] = await failures(connection)
    assert (attempt, status) == (0, None)
    assert message.startswith(f"{host.url} does not answer: cannot connect to ")


async def test_host_that_goes_away_between_steps_goes_on_where_it_was(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: (
        Answer(200, [call["ctx"]["attempt"], call["steps"]["s"]["data"]])
        if "nap" in call["steps"]
        else ops({"op": "Sleep", "id": "nap", "name": "200ms"})
        if "s" in call["steps"]
        else ops(step_run("s", 7))
    )
    await client.register(host.registration(host.function("app-f", retries=0)))
    connection = await connect()

    [event_id] = await client.send({"name": "app/f"})
    async with asyncio.timeout(10):
        while not await connection.fetchval("select 1 from stepbase.steps where hash = 'nap'"):
            await asyncio.sleep(0.005)
        await host.stop()
        while not await failures(connection):
            await asyncio.sleep(0.01)
    await host.start()

    assert (await client.result(event_id))["output"] == [0, 7]


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_proxy_that_says_the_host_is_away_costs_no_attempt(
    client: EngineClient, host: StubHost, connect: Connect, status: int
) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        if len(host.calls) < 4:
            return Answer(status, text="<h1>away</h1>", headers={})
        return Answer(200, call["ctx"]["attempt"])

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f", retries=0)))

    [event_id] = await client.send({"name": "app/f"})

    assert (await client.result(event_id))["output"] == 0
    message = (
        f"Your server returned HTTP {status} before the SDK responded (body starts '<h1>away</h1>')"
    )
    assert len(host.calls) == 4
    assert await failures(await connect()) == [(0, status, message)]


@pytest.mark.parametrize("status", [404, 500])
async def test_other_errors_from_no_sdk_use_up_the_attempts(
    client: EngineClient, host: StubHost, connect: Connect, status: int
) -> None:
    host.handlers["app-f"] = lambda call: Answer(status, text="lost", headers={})
    await client.register(host.registration(host.function("app-f", retries=2)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    message = f"Your server returned HTTP {status} before the SDK responded (body starts 'lost')"
    assert run["status"] == "Failed"
    assert run["output"] == {"name": "NoAnswer", "message": message}
    assert await failures(await connect()) == [(i, status, message) for i in range(3)]


async def test_page_that_is_no_serve_endpoint_is_not_taken_for_a_result(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, text="<html>", headers={})
    await client.register(host.registration(host.function("app-f", retries=0)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["status"] == "Failed"
    assert run["output"]["message"] == (
        "HTTP 200 without the x-inngest-sdk header: the URL is answered by something that is not "
        "an app's serve endpoint; check the synced URL (body starts '<html>')"
    )


async def test_call_that_takes_too_long_uses_up_an_attempt(
    start_engine: StartEngine, host: StubHost
) -> None:
    never = asyncio.Event()

    async def hang(call: dict[str, Any]) -> Answer:
        await never.wait()
        return Answer(200, None)

    host.handlers["app-f"] = lambda call: (
        hang(call) if call["ctx"]["attempt"] == 0 else Answer(200, "in time")
    )
    async with start_engine(call_timeout=0.2) as (client, _):
        await client.register(host.registration(host.function("app-f", retries=1)))
        [event_id] = await client.send({"name": "app/f"})

        assert (await client.result(event_id))["output"] == "in time"
    never.set()


# -- the database ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_server() -> Iterator[Cluster]:
    """A database server that these tests may stop."""
    settings = {"max_connections": "50", "log_min_messages": "error"}
    with Cluster(port=0, durable=False, settings=settings) as cluster:
        asyncio.run(_create(cluster))
        asyncio.run(migrate.apply_files(cluster.dsn("outages"), migration_files()))
        yield cluster


async def _create(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.dsn())
    await connection.execute("create database outages")
    await connection.close()


@asynccontextmanager
async def engine_on(cluster: Cluster) -> AsyncIterator[tuple[EngineClient, Engine]]:
    """Run an engine on the server that may be stopped."""
    settings = Settings(
        database_url=cluster.dsn("outages"),
        port=0,
        retry_interval=0.05,
        lease=timedelta(seconds=2),
        sweep_seconds=0.3,
    )
    async with serving(settings) as (engine, port, _), aiohttp.ClientSession() as session:
        yield EngineClient(session, f"http://127.0.0.1:{port}"), engine


async def test_database_that_crashes_loses_nothing(own_server: Cluster, host: StubHost) -> None:
    go = asyncio.Event()

    async def step(call: dict[str, Any]) -> Answer:
        if "s" in call["steps"]:
            return Answer(200, call["event"]["data"]["n"])
        await go.wait()
        return ops(step_run("s", 1))

    host.handlers["app-f"] = step
    async with engine_on(own_server) as (client, _):
        await client.register(host.registration(host.function("app-f", retries=0)))
        before = await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(5)))
        async with asyncio.timeout(10):
            while len(host.calls) < 5:
                await host.called.wait()
                host.called.clear()
        await asyncio.to_thread(own_server.stop, immediate=True)
        go.set()  # the replies come while nothing can be settled
        event = {"name": "app/f", "id": "in-the-dark", "data": {"n": 99}}
        posting = asyncio.create_task(client.request("POST", "/e/test", event, SEED))
        status, answer = await client.request("GET", f"/v1/runs/{before[0]}")
        assert status == 503
        assert answer["error"].startswith("the database cannot be reached: ")
        await asyncio.to_thread(own_server.start)

        assert (await posting)[0] == 200
        again = await client.request("POST", "/e/test", event, SEED)
        outputs = [(await client.result(each))["output"] for each in before]
        [dark] = await client.ended((await posting)[1]["ids"][0])

        assert again == await posting
        assert outputs == list(range(5))
        assert dark["output"] == 99


async def test_events_in_flight_at_a_crash_start_one_run_each(
    own_server: Cluster, host: StubHost
) -> None:
    host.handlers["app-g"] = lambda call: Answer(200, call["event"]["data"]["n"])
    async with engine_on(own_server) as (client, _):
        await client.register(host.registration(host.function("app-g"), app="crashing"))

        async def send(n: int) -> list[str]:
            """Send until it is accepted, as every client does: same id, same seed."""
            event = {"name": "app/g", "id": f"n{n}", "data": {"n": n}}
            seed = {"x-inngest-event-id-seed": f"17899970{n:05},AAECAwQFBgcICQ=="}
            while True:
                status, answer = await client.request("POST", "/e/test", event, seed)
                if status == 200:
                    ids: list[str] = answer["ids"]
                    return ids
                assert status == 503 and answer["error"].startswith("nothing was accepted, send")

        sending = [asyncio.create_task(send(n)) for n in range(40)]
        await host.called.wait()
        await asyncio.to_thread(own_server.restart, immediate=True)
        sent = await asyncio.gather(*sending)
        outputs = [(await client.result(event_id))["output"] for [event_id] in sent]

        assert outputs == list(range(40))


async def test_after_a_crash_the_outbox_is_listened_to_again(
    own_server: Cluster, host: StubHost
) -> None:
    ran = asyncio.Event()

    def handler(call: dict[str, Any]) -> Answer:
        ran.set()
        return Answer(200, None)

    host.handlers["app-h"] = handler
    async with engine_on(own_server) as (client, engine):
        await client.register(host.registration(host.function("app-h"), app="listening"))
        await asyncio.to_thread(own_server.restart, immediate=True)
        async with asyncio.timeout(10):
            while not await _listens(own_server, engine):
                await asyncio.sleep(0.02)
        connection = await asyncpg.connect(own_server.dsn("outages"))
        await connection.execute("select stepbase.emit('app/h', '{}')")
        await connection.close()
        async with asyncio.timeout(2):
            await ran.wait()


async def _listens(cluster: Cluster, engine: Engine) -> bool:
    """Say whether the relay sleeps until it is notified, and somebody listens."""
    if not engine.relay.is_idle:
        return False
    connection = await asyncpg.connect(cluster.dsn("outages"))
    try:
        found = await connection.fetchval(
            "select 1 from pg_stat_activity where application_name = 'stepbase engine listener'"
        )
    finally:
        await connection.close()
    return found is not None


async def test_read_only_database_is_said_so_and_recovers(
    cluster: Server, database: str, start_engine: StartEngine, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, "written")
    name = database.partition("?")[0].rpartition("/")[2]
    admin = await connect()
    async with start_engine(patience=0.5) as (client, _):
        await client.register(host.registration(host.function("app-f")))
        await set_read_only(admin, name, "on")

        status, answer = await client.request("POST", "/e/test", {"name": "app/f"})
        assert status == 503
        assert answer["ids"] == [""]
        assert answer["error"].startswith(
            "nothing was accepted, send again: ReadOnlySQLTransactionError: cannot execute "
        )
        status, answer = await client.request(
            "POST", "/fn/register", host.registration(host.function("app-new"))
        )
        assert status == 503
        assert "read-only transaction" in answer["error"]

        await set_read_only(admin, name, "off")
        [event_id] = await client.send({"name": "app/f"})
        assert (await client.result(event_id))["output"] == "written"


async def set_read_only(admin: asyncpg.Connection, name: str, value: str) -> None:
    """Switch a database, and cut off everyone so that they meet the new setting."""
    await admin.execute(f"alter database {name} set default_transaction_read_only = {value}")
    await admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )


# -- what an engine refuses to start on --------------------------------------------------------------


async def test_database_without_the_schema_is_refused_in_words(cluster: Server) -> None:
    name = await cluster.create()
    with pytest.raises(StoreError) as info:
        async with serving(Settings(database_url=cluster.dsn(name), port=0)):
            pass
    await cluster.drop(name)

    assert str(info.value) == (
        "this database has no stepbase schema: apply the migrations first "
        "(stepbase db apply, or supabase db push)"
    )


async def test_schema_of_another_version_is_refused_in_words(
    start_engine: StartEngine, connect: Connect
) -> None:
    await (await connect()).execute("update stepbase.schema_version set version = 99")

    with pytest.raises(StoreError) as info:
        async with start_engine():
            pass

    assert str(info.value) == (
        "the stepbase schema has version 99, this engine knows 1: apply the migrations that belong "
        "to this version of stepbase, or upgrade the engine"
    )


async def test_database_that_is_not_there_is_refused_in_words() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(StoreError, match="the database cannot be reached: ") as info:
            async with serving(Settings(database_url=f"postgresql://x@127.0.0.1:{port}/x", port=0)):
                pass

    assert info.value.is_transient


REFUSED = (
    "refusing to bind 0.0.0.0 without keys: anybody could start and read runs. "
    "Set INNGEST_SIGNING_KEY and INNGEST_EVENT_KEY, or bind 127.0.0.1"
)


@pytest.mark.parametrize(
    ("signing", "event"),
    [((), ()), (("ab12",), ()), ((), ("key",))],
    ids=["none", "no event", "no signing"],
)
def test_serving_the_world_needs_both_keys(
    signing: tuple[str, ...], event: tuple[str, ...]
) -> None:
    settings = Settings(database_url="", host="0.0.0.0", signing_keys=signing, event_keys=event)

    with pytest.raises(ValueError) as info:
        check_address(settings)

    assert str(info.value) == REFUSED


def test_loopback_needs_no_key_and_the_world_may_have_both() -> None:
    for address in ("127.0.0.1", "::1", "localhost"):
        check_address(Settings(database_url="", host=address))
    check_address(
        Settings(database_url="", host="0.0.0.0", signing_keys=("ab12",), event_keys=("key",))
    )


def test_command_refuses_the_world_without_keys() -> None:
    result = CliRunner().invoke(
        main, ["engine", "--host", "0.0.0.0", "--port", "0", "--database-url", "postgresql://x/y"]
    )

    assert result.exit_code == 2
    assert REFUSED in " ".join(result.output.split())
