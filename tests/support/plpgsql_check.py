"""Puts the extension plpgsql_check into a database: the server's own, or a copy of Debian's package.

Loaded from its files: a server under test need not be writable, and nothing has to be installed.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from tests.support import debian


@asynccontextmanager
async def installed(connection: asyncpg.Connection) -> AsyncIterator[bool]:
    """Have the extension during the block; False where there is none for this server."""
    if await connection.fetchval(
        "select exists (select from pg_available_extensions where name = 'plpgsql_check')"
    ):
        await connection.execute("create extension plpgsql_check")
        yield True
        return
    major = int(await connection.fetchval("show server_version_num")) // 10_000
    with tempfile.TemporaryDirectory(prefix="stepbase-check-") as folder:
        Path(folder).chmod(0o755)  # the server may run as somebody else
        package = f"postgresql-{major}-plpgsql-check"
        yield await _install_from(connection, debian.fetched(Path(folder), package))


async def _install_from(connection: asyncpg.Connection, files: Path | None) -> bool:
    if files is None:
        return False
    [library] = files.rglob("plpgsql_check.so")
    [script] = files.rglob("plpgsql_check--?.?.sql")
    text = script.read_text("utf-8").replace("@extschema@", "public")
    text = text.replace("MODULE_PATHNAME", str(library.with_suffix("")))
    try:
        await connection.execute(
            "\n".join(line for line in text.splitlines() if not line.startswith("\\"))
        )
    except asyncpg.UndefinedFileError:
        return False  # the server sees other files than we do
    return True
