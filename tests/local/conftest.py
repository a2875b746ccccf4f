"""A database with one of each kind of thing, and a gateway in front of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from supabase import AsyncClientOptions, ClientOptions, acreate_client, create_client
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.server import Server

from stepbase.local import migrate

_SCHEMA = Path(__file__).with_name("schema.sql")

Call = Callable[[Callable[[Any], Any]], Awaitable[Any]]


@pytest.fixture(scope="session")
def gateway_database(cluster: Server) -> Iterator[str]:
    """The DSN of a database with `schema.sql`."""
    name = asyncio.run(cluster.create())
    dsn = cluster.dsn(name)
    asyncio.run(migrate.apply_files(dsn, {"1_schema.sql": _SCHEMA.read_text("utf-8")}))
    yield dsn
    asyncio.run(cluster.drop(name))


@pytest.fixture(scope="session")
def gateway(gateway_database: str) -> Iterator[RunningGateway]:
    """A gateway in front of `gateway_database`."""
    with running_gateway(gateway_database, schemas=("public", "other")) as running:
        yield running


@pytest.fixture
async def things(gateway_database: str) -> None:
    """Three rows, always the same, in `things`; the other tables empty."""
    connection = await asyncpg.connect(gateway_database)
    await connection.execute(
        """
        truncate public.things, public.notes, public.pairs, public.deferred, other.elsewhere
          restart identity;
        insert into public.things
          (name, size, amount, huge, tags, data, mood, code, span, "odd ""name, (x)", made)
        values
          ('ant', 1, 1.10, 9223372036854775807, '{a,b}', '{"k": {"n": 1}, "l": [1, {"z": "q"}]}',
            'glad', 'abc', '[1,5)', 'o', '2026-01-01'),
          ('Bee, (x)', 20, 2.20, null, '{b}', '{"k": {"n": 2}}', 'sad', 'de', '[10,20)', null,
            '2026-02-01'),
          ('cat"s', null, null, 5, null, null, null, null, null, 'p', '2026-03-01');
        """
    )
    await connection.close()


@pytest.fixture(params=["sync", "async"])
async def call(request: pytest.FixtureRequest, gateway: RunningGateway) -> AsyncIterator[Call]:
    """Run `build(client).execute()` as service role, with the sync and with the async client."""
    if request.param == "sync":
        with httpx.Client() as http:
            client = create_client(
                gateway.url, gateway.keys.secret, ClientOptions(httpx_client=http)
            )

            async def run_sync(build: Callable[[Any], Any]) -> Any:
                return await asyncio.to_thread(build(client).execute)

            yield run_sync
        return
    async with httpx.AsyncClient() as async_http:
        async_client = await acreate_client(
            gateway.url, gateway.keys.secret, AsyncClientOptions(httpx_client=async_http)
        )

        async def run_async(build: Callable[[Any], Any]) -> Any:
            return await build(async_client).execute()

        yield run_async


@pytest.fixture
def rest(gateway: RunningGateway) -> Iterator[httpx.Client]:
    """A plain HTTP client on /rest/v1, as service role."""
    headers = {"apikey": gateway.keys.secret}
    with httpx.Client(base_url=gateway.url + "/rest/v1", headers=headers) as client:
        yield client
