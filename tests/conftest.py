"""Fixtures every test may use: a clean environment, and databases in three sizes.

`db`        a connection in a transaction that is rolled back: the default, some milliseconds.
`database`  a database of the test's own, for what commits, uses several connections or processes.
`cluster`   the server itself.
"""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest
from tests.support.server import Server, running_server

from stepbase.local import migrate

_OURS = ("INNGEST_", "STEPBASE_", "SUPABASE_", "DATABASE_URL")
_KEPT = ("STEPBASE_SABOTAGE", "STEPBASE_FAILPOINT")

Connect = Callable[[], Awaitable[asyncpg.Connection]]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own settings: a test sets what it needs."""
    for name in list(os.environ):
        if name.startswith(_OURS) and not name.startswith(_KEPT):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Server]:
    """The session's PostgreSQL server."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def template(cluster: Server) -> Iterator[str]:
    """The name of a database with all migrations, to copy; nobody may stay connected to it."""
    name = asyncio.run(cluster.create())
    asyncio.run(migrate.apply_files(cluster.dsn(name), migration_files()))
    yield name
    asyncio.run(cluster.drop(name))


@pytest.fixture(scope="session")
def shared_database(cluster: Server, template: str) -> Iterator[str]:
    """The DSN of a migrated database in which no test commits."""
    name = asyncio.run(cluster.create(template))
    yield cluster.dsn(name)
    asyncio.run(cluster.drop(name))


@pytest.fixture
async def database(cluster: Server, template: str) -> AsyncIterator[str]:
    """The DSN of a migrated database of the test's own."""
    name = await cluster.create(template)
    yield cluster.dsn(name)
    await cluster.drop(name)


@pytest.fixture
async def connect(database: str) -> AsyncIterator[Connect]:
    """Open connections to `database`; they are closed after the test."""
    opened: list[asyncpg.Connection] = []

    async def open_one() -> asyncpg.Connection:
        connection = await asyncpg.connect(database)
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.terminate()


@pytest.fixture
async def db(shared_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a transaction that is rolled back after the test."""
    connection = await asyncpg.connect(shared_database)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    if not connection.is_closed():
        await transaction.rollback()
        await connection.close()


def migration_files() -> dict[str, str]:
    """Return the migrations by name, with the sabotage the session asks for."""
    files = migrate.read_folder(migrate.migrations_folder())
    sabotage = os.environ.get("STEPBASE_SABOTAGE")
    if sabotage:
        patches = importlib.import_module("tests.sabotage.patches")
        files = dict(patches.apply(sabotage, files))
    return files
