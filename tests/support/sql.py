"""What tests of SQL share: refusals by SQLSTATE, waits for a lock without sleeping, ledger calls."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

# Much longer than anything here takes; only a test that would hang gets to see it.
PATIENCE = 20.0


@dataclass(frozen=True)
class Answer:
    """What the ledger answered; `text` is the data's JSON as it came."""

    data: Any
    replayed: bool
    text: str


async def refused(
    db: asyncpg.Connection, sqlstate: str, sql: str, *args: object
) -> asyncpg.PostgresError:
    """Run SQL that must be refused with this SQLSTATE, inside a savepoint; return the error."""
    with pytest.raises(asyncpg.PostgresError) as info:
        async with db.transaction():
            await db.execute(sql, *args) if args else await db.execute(sql)
    assert info.value.sqlstate == sqlstate, info.value
    return info.value


async def blocked(observer: asyncpg.Connection, connection: asyncpg.Connection) -> None:
    """Return when `connection` waits for a lock of another session."""
    pid = connection.get_server_pid()
    async with asyncio.timeout(PATIENCE):
        while not await observer.fetchval("select cardinality(pg_blocking_pids($1)) > 0", pid):
            pass


async def blocked_or_done(
    observer: asyncpg.Connection, connection: asyncpg.Connection, task: asyncio.Task[Any]
) -> None:
    """Return when `connection` waits for a lock, or the task that uses it is done."""
    pid = connection.get_server_pid()
    async with asyncio.timeout(PATIENCE):
        while not task.done():
            if await observer.fetchval("select cardinality(pg_blocking_pids($1)) > 0", pid):
                return


async def call(
    db: asyncpg.Connection,
    function: str,
    args: Mapping[str, object] | str | None = None,
    *,
    run_id: str | None = None,
    step: str | None = None,
    key: str | None = None,
    as_user: Mapping[str, object] | None = None,
    timeout_ms: int | None = None,
) -> Answer:
    """Call a function through the ledger; arguments as a mapping or as JSON text."""
    text = await db.fetchval(
        "select public.stepbase_call($1, $2, $3, $4, $5, $6, $7)",
        function,
        args if isinstance(args, str) else json.dumps(args or {}),
        run_id,
        step,
        key,
        None if as_user is None else json.dumps(as_user),
        timeout_ms,
    )
    return _answer(text)


async def write(
    db: asyncpg.Connection,
    table: str,
    action: str,
    args: Mapping[str, object] | str,
    *,
    key: str | None = None,
    run_id: str | None = None,
    step: str | None = None,
    as_user: Mapping[str, object] | None = None,
    timeout_ms: int | None = None,
    returning: bool = True,
) -> Answer:
    """Write to a table through the ledger; arguments as a mapping or as JSON text."""
    text = await db.fetchval(
        "select public.stepbase_write($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        table,
        action,
        args if isinstance(args, str) else json.dumps(args),
        run_id,
        step,
        key,
        None if as_user is None else json.dumps(as_user),
        timeout_ms,
        returning,
    )
    return _answer(text)


def _answer(text: str) -> Answer:
    head, tail = '{"data": ', ', "replayed": '
    data, _, replayed = text.rpartition(tail)
    assert text.startswith(head) and replayed in ("true}", "false}")
    return Answer(json.loads(text)["data"], replayed == "true}", data.removeprefix(head))


async def refused_call(
    db: asyncpg.Connection, sqlstate: str, function: str, args: object = None, **options: Any
) -> asyncpg.PostgresError:
    """Make a call that must be refused with this SQLSTATE, inside a savepoint; return the error."""
    with pytest.raises(asyncpg.PostgresError) as info:
        async with db.transaction():
            await call(db, function, args, **options)  # type: ignore[arg-type]  # refusals take anything
    assert info.value.sqlstate == sqlstate, info.value
    return info.value


async def refused_write(
    db: asyncpg.Connection, sqlstate: str, table: str, action: str, args: object, **options: Any
) -> asyncpg.PostgresError:
    """Make a write that must be refused with this SQLSTATE, inside a savepoint; return the error."""
    with pytest.raises(asyncpg.PostgresError) as info:
        async with db.transaction():
            await write(db, table, action, args, **options)  # type: ignore[arg-type]  # refusals take anything
    assert info.value.sqlstate == sqlstate, info.value
    return info.value


async def effects(db: asyncpg.Connection) -> int:
    """Return how many effects there are (see tests/sql/conftest.py)."""
    count = await db.fetchval("select count(*) from public.effects")
    assert isinstance(count, int)
    return count
