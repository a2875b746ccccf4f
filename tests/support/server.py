"""The PostgreSQL server of a test session, and databases on it that take milliseconds to make.

Normally a throwaway cluster; `PG_BIN` chooses its binaries, `PG_TEST_DSN` a server already running.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from stepbase.local.binaries import find_binaries
from stepbase.local.postgres import Cluster

# Many clients at once are part of some tests; a crash of the test machine is not.
_SETTINGS = {"max_connections": "200", "log_min_messages": "error", "max_wal_size": "256MB"}

# Copying a database makes a thousand files: 12 ms in memory, 300 ms on a disk.
_MEMORY = Path("/dev/shm")
_MEMORY_NEEDED = 2 * 1024**3


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
    cluster = Cluster(durable=False, binaries=binaries, settings=_SETTINGS)
    try:
        with _in_memory():
            cluster.start()
        yield Server(cluster.dsn())
    finally:
        cluster.close()


@contextmanager
def _in_memory() -> Iterator[None]:
    """Have temporary folders made in memory where there is a file system for that, and room."""
    is_there = os.access(_MEMORY, os.W_OK) and disk_usage(_MEMORY).free > _MEMORY_NEEDED
    before = tempfile.tempdir
    tempfile.tempdir = str(_MEMORY) if is_there else before
    try:
        yield
    finally:
        tempfile.tempdir = before
