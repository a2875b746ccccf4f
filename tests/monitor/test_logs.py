"""Failures show in Postgres' own log: a line each, with names and ids, and nothing of the data."""

from typing import Any

import asyncpg
import pytest


@pytest.fixture
async def said(db: asyncpg.Connection) -> list[str]:
    """What the server writes into its log while this database is used."""
    lines: list[str] = []
    db.add_log_listener(lambda _, message: lines.append(str(message.message)))
    await db.execute("set client_min_messages = log")
    await db.execute(
        """
        insert into stepbase.functions (function_id, app_id, slug, name, config)
          values ('6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca', gen_random_uuid(), 'shop-award', 'a', '{}')
        """
    )
    return lines


async def finish(db: asyncpg.Connection, status: str, error: Any) -> None:
    await db.execute(
        """
        insert into stepbase.runs (run_id, function_id, fn_version, event_id, created_at, step_count)
          values ('R1', '6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca', 1, 'E1', now(), 2)
        """
    )
    await db.execute(
        "select stepbase._finish(array['R1'], array[$1], array[null::text], array[$2], now())",
        status,
        error,
    )


async def test_a_failed_run_is_one_line(db: asyncpg.Connection, said: list[str]) -> None:
    await finish(db, "Failed", '{"message": "card 4711", "name": "CardError"}')

    assert said == [
        'stepbase what=run_failed run=R1 function="shop-award" error="CardError" steps=2'
    ]


@pytest.mark.parametrize("status", ["Completed", "Cancelled"])
async def test_other_ends_are_none(db: asyncpg.Connection, said: list[str], status: str) -> None:
    await finish(db, status, None)

    assert said == []


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ('{"name": "CardError", "message": "4711"}', '"CardError"'),
        ('{"message": "\\u0000 \\"name\\": \\"x\\"", "name": "A\\nB \\u0000"}', '"A\\nB \\u0000"'),
        ('{"message": "no name"}', '""'),
        (f'{{"name": "{"x" * 200}"}}', f'"{"x" * 100}"'),
    ],
)
async def test_a_failed_attempt_is_one_line_whatever_its_error_holds(
    db: asyncpg.Connection, said: list[str], error: str, shown: str
) -> None:
    await db.execute(
        """
        insert into stepbase.attempts (run_id, hash, attempt, at, http_status, error)
          values ('R1', 'h1', 1, now(), 206, $1)
        """,
        error,
    )

    assert said == [f"stepbase what=attempt_failed run=R1 step=h1 attempt=1 http=206 error={shown}"]


async def test_they_can_be_turned_off(db: asyncpg.Connection, said: list[str]) -> None:
    await db.execute("set local stepbase.log_failures = 'off'")
    await finish(db, "Failed", '{"name": "CardError"}')
    await db.execute(
        "insert into stepbase.attempts (run_id, attempt, at, error) values ('R1', 0, now(), '{}')"
    )

    assert said == []
