"""The PostgreSQL server of a test session, and databases on it that take milliseconds to make.

Normally a throwaway cluster; `PG_BIN` chooses its binaries, `PG_TEST_DSN` a server already running.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from stepbase.local.binaries import find_binaries
from stepbase.local.postgres import Cluster

# Many clients at once are part of some tests; a crash of the test machine is not.
_SETTINGS = {"max_connections": "200", "log_min_messages": "error"}


@dataclass(frozen=True)
class Server:
    """Where databases can be made; `admin` connects to one that is never touched."""

    admin: str

    def dsn(self, database: str) -> str:
        """Return the connection string of another database on this server."""
        return urlunsplit(urlsplit(self.admin)._replace(path=f"/{database}"))

    async def create(self, template: str | None = None) -> str:
        """Create a database under a random name, as a copy of `template` if given; return it."""
        name = f"test_{secrets.token_hex(6)}"
        copy = f" template {template} strategy file_copy" if template else ""
        await self._execute(f"create database {name}{copy}")
        return name

    async def drop(self, name: str) -> None:
        """Drop a database, cutting off whoever is still connected."""
        await self._execute(f"drop database if exists {name} with (force)")

    async def _execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.admin)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


@contextmanager
def running_server() -> Iterator[Server]:
    """Yield the session's server; a throwaway one is gone afterwards."""
    external = os.environ.get("PG_TEST_DSN")
    if external:
        yield Server(external)
        return
    binaries = find_binaries(os.environ.get("PG_BIN"))
    with Cluster(durable=False, binaries=binaries, settings=_SETTINGS) as cluster:
        yield Server(cluster.dsn())
