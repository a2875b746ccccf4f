"""`stepbase outbox`, as typed."""

import json

import asyncpg
import pytest
from click.testing import CliRunner, Result
from tests.relay.conftest import emit

from stepbase.cli.main import main


@pytest.fixture
async def dead(db: asyncpg.Connection) -> str:
    """An event that was given up."""
    [event_id] = await emit(db, name="shop/paid")
    await db.execute("select stepbase.outbox_take(1, 't', '1 min')")
    await db.execute("select stepbase.outbox_fail($1, E'HTTP 400:\\nno name', null, 't')", event_id)
    return event_id


def typed(database: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["outbox", *arguments, "--database-url", database])


async def run(database: str, *arguments: str) -> Result:
    import asyncio

    return await asyncio.to_thread(typed, database, *arguments)


async def test_list_shows_lag_and_dead_letters(database: str, dead: str) -> None:
    shown = await run(database, "list")

    assert shown.exit_code == 0
    head, line = shown.output.splitlines()
    assert head == ("outbox of no relay yet: 0 waiting, 0 leased, 0 retrying, 1 dead; lag 0 s")
    assert line.startswith(f"dead     {dead}  shop/paid  1 tries, ")
    assert line.endswith("  HTTP 400: no name")


async def test_list_as_json_is_the_report(database: str, db: asyncpg.Connection, dead: str) -> None:
    shown = await run(database, "list", "--json")

    [event] = json.loads(shown.output)["stuck"]
    assert (event["id"], event["state"]) == (dead, "dead")


async def test_list_shows_what_waits_for_long(database: str, db: asyncpg.Connection) -> None:
    [event_id] = await emit(db)

    assert event_id not in (await run(database, "list")).output
    assert event_id in (await run(database, "list", "--older", "0s")).output
    assert (await run(database, "list", "--older", "soon")).exit_code == 2


async def test_requeue_gives_a_dead_event_another_try(
    database: str, db: asyncpg.Connection, dead: str
) -> None:
    first = await run(database, "requeue", dead)
    again = await run(database, "requeue", "--all", "--json")

    assert (first.exit_code, first.output) == (0, "1 requeued\n")
    assert (again.exit_code, json.loads(again.output)) == (1, {"events": 0})
    assert await db.fetchval("select dead_at is null and tries = 0 from stepbase.outbox")


async def test_retry_makes_waiting_events_due(database: str, db: asyncpg.Connection) -> None:
    await emit(db)
    await db.execute("update stepbase.outbox set due_at = due_at + interval '1 hour'")

    done = await run(database, "retry", "--all")

    assert (done.exit_code, done.output) == (0, "1 due now\n")


@pytest.mark.parametrize("arguments", [["requeue"], ["requeue", "--all", "x"], ["retry"]])
async def test_ids_or_all_must_be_said(database: str, arguments: list[str]) -> None:
    assert (await run(database, *arguments)).exit_code == 2


async def test_a_database_that_is_away_is_told_in_a_line() -> None:
    done = await run("postgresql://nobody@127.0.0.1:1/none", "list")

    assert done.exit_code == 1
    assert "the database cannot be reached" in done.output
