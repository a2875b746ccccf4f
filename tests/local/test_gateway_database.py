"""The gateway and its database: outages, saturation, schema changes, one transaction a request."""

import asyncio
from collections.abc import Iterator

import asyncpg
import httpx
import pytest
from tests.support.gateway import running_gateway
from tests.support.server import Server

from stepbase.local import migrate
from stepbase.local.gateway import errors
from stepbase.local.gateway.catalogue import load
from stepbase.local.gateway.database import Database
from stepbase.local.gateway.errors import ApiError
from stepbase.local.gateway.table import Statement
from stepbase.local.postgres import Cluster

_SCHEMA = """
create table public.log (n int);
grant all on public.log to service_role;
create function public.write(n int) returns int language sql as
  'insert into public.log values (n) returning n';
create function public.sleep(seconds float8) returns void language sql volatile as
  'select pg_sleep(seconds)';
grant execute on all functions in schema public to service_role;
"""


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A server that a test may stop."""
    with Cluster(durable=False) as running:
        yield running


@pytest.fixture
def dsn(own_cluster: Cluster) -> str:
    """A database on it, with the schema above."""
    own_cluster.start()
    server = Server(own_cluster.dsn())
    found = server.dsn(asyncio.run(server.create()))
    asyncio.run(migrate.apply_files(found, {"1_schema.sql": _SCHEMA}))
    return found


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=f"{url}/rest/v1", headers={"apikey": key}, timeout=30)


def test_requests_fail_clearly_while_the_database_is_away_and_work_again(
    own_cluster: Cluster, dsn: str
) -> None:
    with (
        running_gateway(dsn) as gateway,
        client(gateway.url, gateway.keys.secret) as c,
    ):
        assert c.post("/rpc/write", json={"n": 1}).status_code == 200

        own_cluster.stop()
        away = [c.post("/rpc/write", json={"n": 2}) for _ in range(3)]
        own_cluster.start()
        back = c.post("/rpc/write", json={"n": 3})

        assert {(a.status_code, a.json()["code"]) for a in away} <= {
            (503, "PGRST000"),
            (503, "PGRST001"),
            (503, "PGRST002"),
        }
        assert back.status_code == 200
        assert c.get("/log?order=n").json() == [{"n": 1}, {"n": 3}]


def test_a_restart_between_two_requests_is_not_seen(own_cluster: Cluster, dsn: str) -> None:
    with (
        running_gateway(dsn) as gateway,
        client(gateway.url, gateway.keys.secret) as c,
    ):
        for n in range(3):
            assert c.post("/rpc/write", json={"n": n}).status_code == 200
            own_cluster.restart(immediate=True)

        assert c.get("/log?select=n").json() == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_starts_before_its_database(own_cluster: Cluster, dsn: str) -> None:
    own_cluster.stop()
    with (
        running_gateway(dsn) as gateway,
        client(gateway.url, gateway.keys.secret) as c,
    ):
        early = c.get("/log")
        own_cluster.start()

        assert (early.status_code, early.json()["code"]) == (503, "PGRST002")
        assert c.get("/log").status_code == 200


async def test_a_connection_cut_in_the_middle_is_reported(dsn: str) -> None:
    admin = await asyncpg.connect(dsn)
    with running_gateway(dsn) as gateway:
        headers = {"apikey": gateway.keys.secret}
        async with httpx.AsyncClient(base_url=gateway.url + "/rest/v1", headers=headers) as c:
            asked = asyncio.create_task(c.post("/rpc/sleep", json={"seconds": 20}))
            async with asyncio.timeout(5):
                while not await admin.fetchval(
                    "select bool_or(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where wait_event = 'PgSleep'"
                ):
                    await asyncio.sleep(0.01)
            cut = await asked
            next_one = await c.post("/rpc/write", json={"n": 1})
    await admin.close()

    assert (cut.status_code, cut.json()["code"]) == (503, "PGRST001")
    assert next_one.status_code == 200


async def test_too_many_requests_at_once_are_told_so(dsn: str) -> None:
    with running_gateway(dsn, size=1, patience=0.05) as gateway:
        headers = {"apikey": gateway.keys.secret}
        async with httpx.AsyncClient(base_url=gateway.url + "/rest/v1", headers=headers) as c:
            assert (await c.get("/log")).status_code == 200
            answers = await asyncio.gather(
                *(c.post("/rpc/sleep", json={"seconds": 0.5}) for _ in range(3))
            )

    assert sorted(a.status_code for a in answers) == [204, 504, 504]
    assert {a.json()["code"] for a in answers if a.status_code == 504} == {"PGRST003"}


async def test_a_client_that_hangs_up_leaves_no_broken_connection(dsn: str) -> None:
    with running_gateway(dsn, size=1) as gateway:
        headers = {"apikey": gateway.keys.secret}
        async with httpx.AsyncClient(base_url=gateway.url + "/rest/v1", headers=headers) as c:
            await c.get("/log")
            with pytest.raises(httpx.ReadTimeout):
                await c.post("/rpc/sleep", json={"seconds": 0.3}, timeout=0.05)

            assert (await c.post("/rpc/write", json={"n": 1})).json() == 1


async def test_new_tables_and_functions_are_found_at_once(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    with running_gateway(dsn) as gateway:
        headers = {"apikey": gateway.keys.secret}
        async with httpx.AsyncClient(base_url=gateway.url + "/rest/v1", headers=headers) as c:
            assert (await c.get("/fresh")).status_code == 404

            await connection.execute(
                "create table public.fresh (a int); grant all on public.fresh to service_role;"
                "create function public.fresh() returns int language sql as 'select 1';"
                "grant execute on function public.fresh() to service_role"
            )
            assert (await c.get("/fresh")).status_code == 200
            assert (await c.post("/rpc/fresh", json={})).json() == 1

            await connection.execute("alter table public.fresh add b int")
            assert (await c.post("/fresh", json={"a": 1, "b": 2})).status_code == 201
    await connection.close()


async def test_notify_makes_the_catalogue_new(dsn: str) -> None:
    database = Database(dsn, ["public"])
    connection = await asyncpg.connect(dsn)
    await database.open()
    try:
        await connection.execute(
            "create function public.f(a int) returns int language sql as 'select 1'"
        )
        while ("public", "f") not in (await database.catalogue()).functions:
            await asyncio.sleep(0)
        before = await database.catalogue()
        # A change that no request misses: the same function, another result.
        await connection.execute(
            "drop function public.f(int);"
            "create function public.f(a int) returns setof int language sql as 'select 1';"
            "notify pgrst, 'reload schema'"
        )
        async with asyncio.timeout(5):
            while (await database.catalogue()) is before:
                await asyncio.sleep(0.005)

        assert (await database.catalogue()).functions["public", "f"][0].returns_set
    finally:
        await database.close()
        await connection.close()


async def test_catalogue_reads_settings_of_roles_and_functions(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "alter role service_role set work_mem = '7MB';"
        "create function public.g() returns int language sql"
        " set statement_timeout = '1s' set work_mem = '1MB' as 'select 1'"
    )
    try:
        found = await load(connection, ["public"])
    finally:
        await connection.execute("alter role service_role reset work_mem")
        await connection.close()

    (function,) = found.functions["public", "g"]
    assert found.settings("anon")["statement_timeout"] == "3s"
    assert found.settings("service_role")["statement_timeout"] == "8s"
    assert found.settings("service_role")["work_mem"] == "7MB"
    assert found.settings("anon")["work_mem"] not in ("", "7MB")
    # Of a function's settings, PostgreSQL itself takes care of all that count inside it.
    assert function.settings == {"statement_timeout": "1s"}
    assert found.settings("anon", function)["statement_timeout"] == "1s"


async def test_a_statement_with_the_wrong_number_of_rows_is_undone(dsn: str) -> None:
    database = Database(dsn, ["public"])
    connection = await asyncpg.connect(dsn)
    statement = Statement(
        "with page as (insert into public.log select generate_series(1, 2) returning n)"
        " select '' as body, count(*) as rows, null::bigint as total,"
        " null as headers, null as status from page",
        [],
    )
    try:
        for rows, left in ((1, 0), (2, 2)):
            await database.run({"role": "service_role"}, statement, read_only=False, rows=rows)
            assert await connection.fetchval("select count(*) from public.log") == left
    finally:
        await database.close()
        await connection.close()


@pytest.mark.parametrize(
    ("message", "details", "status", "code"),
    [
        ('{"code": "A", "message": "m"}', '{"status": 402}', 402, "A"),
        ("no json", "{}", 500, "PGRST121"),
        ('{"code": "A", "message": "m"}', None, 500, "PGRST121"),
        ('{"code": "A"}', '{"status": 402}', 500, "PGRST121"),
    ],
)
def test_errors_raised_as_json(message: str, details: str | None, status: int, code: str) -> None:
    error = errors.from_sqlstate("PGRST", message, details, None, anonymous=False)

    assert isinstance(error, ApiError)
    assert (error.status, error.code) == (status, code)
