"""Forgetting a person: nothing of their payloads is left where runs have ended, and what is others' stays."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner
from tests.conftest import Connect

from stepbase.cli.main import main
from stepbase.history.forget import forget as cli_forget

USER, OTHER = "7d1f0a52-4f3c-user", "other-user"
SECRET = "psst-4711"

# By the user: E1 (a run that ended, with a step, an attempt, a ledger row), E2 (a live run), E3 (named in the
# data only), E4 (no run). E5 is another's; E6 a batch of both; E7 what R1 handed to the run it invoked.
_FILL = f"""
insert into stepbase.events (id, event_id, name, payload, ts, received_at)
  select id, 'u' || id, 'a/b', payload::json, now(), now()
    from (values
      ('E1', '{{"name":"a/b","data":{{"x":"{SECRET}"}},"user":{{"id":"{USER}"}}}}'),
      ('E2', '{{"name":"a/b","data":{{"x":"live-4711"}},"user":{{"sub":"{USER}"}}}}'),
      ('E3', '{{"name":"a/b","data":{{"customer":{{"id":"{USER}"}},"x":"{SECRET}"}}}}'),
      ('E4', '{{"name":"a/b","data":{{"x":"{SECRET}"}},"user":{{"id":"{USER}"}}}}'),
      ('E5', '{{"name":"a/b","data":{{"x":"kept","about":"{USER}"}},"user":{{"id":"{OTHER}"}}}}'),
      ('E6', '{{"name":"a/b","data":{{"x":"{SECRET}"}},"user":{{"id":"{USER}"}}}}'),
      ('E7', '{{"name":"inngest/function.invoked","data":{{"x":"{SECRET}"}}}}')
    ) as e (id, payload);
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, event_ids, cause, status, output, error, created_at,
     ended_at, parent_run)
  select id, gen_random_uuid(), 1, event, events, cause, status, output::json, error::json,
         now() - interval '1 minute', case when status <> 'Running' then now() end, parent
    from (values
      ('R1', 'E1', null::text[], 'event', 'Completed', '"{SECRET}"', null, null),
      ('R2', 'E2', null, 'event', 'Running', null, null, null),
      ('R3', 'E3', null, 'event', 'Failed', null, '{{"name":"CardError","message":"{SECRET}"}}', null),
      ('R5', 'E5', null, 'event', 'Completed', '"kept"', null, null),
      ('R6', 'E5', '{{E5,E6}}', 'event', 'Completed', '"{SECRET}"', null, null),
      ('R7', 'E7', null, 'event', 'Completed', '"{SECRET}"', null, 'R1')
    ) as r (id, event, events, cause, status, output, error, parent);
insert into stepbase.not_started (event_id, function_id, reason, run_id, at)
  values ('E6', gen_random_uuid(), 'batched', 'R6', now());
insert into stepbase.steps (run_id, hash, pos, name, op, status, memo, started_at)
  values ('R1', 'h1', 1, 'one', 'StepRun', 'done', '{{"data":"{SECRET}"}}', now()),
         ('R1', 'h2', 2, 'two', 'StepRun', 'failed',
          '{{"error":{{"name":"E","message":"{SECRET}"}}}}', now()),
         ('R1', 'h3', 3, 'nap', 'Sleep', 'done', 'null', now()),
         ('R2', 'h1', 1, 'one', 'StepRun', 'done', '{{"data":"live-4711"}}', now()),
         ('R5', 'h1', 1, 'one', 'StepRun', 'done', '{{"data":"kept"}}', now());
insert into stepbase.attempts (run_id, hash, attempt, at, error)
  values ('R1', 'h2', 0, now(), '{{"message":"\\u0000 {SECRET}","name":"CardError"}}');
insert into stepbase.ledger (key, run_id, step, fn, arg_hashes, result, created_at)
  values ('key:award:1', 'R1', 'h1', 'f', '{{}}', '"{SECRET}"', now() - interval '30 seconds'),
         ('key:award:2', 'R2', 'h1', 'f', '{{}}', '"live-4711"', now() - interval '30 seconds'),
         ('key:award:5', 'R5', 'h1', 'f', '{{}}', '"kept"', now() - interval '30 seconds')
"""

_ALL = """
select (select string_agg(t::text, '') from stepbase.{0} t)
"""
TABLES = ("events", "runs", "steps", "attempts", "ledger")


@pytest.fixture
async def stored(db: asyncpg.Connection) -> asyncpg.Connection:
    """A database with what several users left there."""
    await db.execute(_FILL)
    return db


async def everything(db: asyncpg.Connection) -> str:
    return "".join([await db.fetchval(_ALL.format(table)) or "" for table in TABLES])


async def forget(db: asyncpg.Connection, **options: Any) -> dict[str, Any]:
    row = await db.fetchrow(
        "select * from stepbase.forget($1, array['data.customer.id'], $2, $3, $4)",
        USER,
        options.get("after", ""),
        options.get("limit", 1000),
        options.get("is_dry", False),
    )
    assert row is not None
    return dict(row)


async def test_what_is_of_a_user_goes_and_the_rest_stays(stored: asyncpg.Connection) -> None:
    assert SECRET in await everything(stored)
    counts = await forget(stored)

    after = await everything(stored)
    assert SECRET not in after
    assert after.count("kept") == 4 and after.count("live-4711") == 3
    assert counts == {
        "events": 5, "runs": 4, "steps": 2, "attempts": 1, "results": 1,
        "live_runs": ["R2"], "in_outbox": 0, "elsewhere": 1, "elsewhere_ids": ["E5"], "last": None,
    }  # fmt: skip


async def test_what_happened_can_still_be_seen(stored: asyncpg.Connection) -> None:
    await forget(stored)

    rows = await stored.fetch(
        "select run_id, status, error from stepbase.run_overview order by run_id"
    )
    assert [(row["run_id"], row["status"]) for row in rows] == [
        ("R1", "Completed"), ("R2", "Running"), ("R3", "Failed"), ("R5", "Completed"),
        ("R6", "Completed"), ("R7", "Completed"),
    ]  # fmt: skip
    assert json.loads(rows[2]["error"]) == {"name": "CardError", "message": "(forgotten)"}
    payload = json.loads(
        await stored.fetchval("select payload from stepbase.events where id = 'E1'")
    )
    assert payload.pop("ts") > 0
    assert payload == {"name": "a/b", "id": "uE1", "data": {}, "forgotten": True}
    memos = await stored.fetch("select memo from stepbase.steps where run_id = 'R1' order by pos")
    assert [json.loads(row["memo"]) for row in memos] == [
        {"data": None}, {"error": {"name": "E", "message": "(forgotten)"}}, None,
    ]  # fmt: skip


async def test_a_dry_run_counts_the_same_and_changes_nothing(stored: asyncpg.Connection) -> None:
    before = await everything(stored)
    counted = await forget(stored, is_dry=True)

    assert await everything(stored) == before
    assert await forget(stored) == counted


async def test_a_live_run_is_forgotten_once_it_has_ended(stored: asyncpg.Connection) -> None:
    await forget(stored)
    await stored.execute(
        "update stepbase.runs set status = 'Cancelled', ended_at = now() where run_id = 'R2'"
    )
    counts = await forget(stored)

    assert "live-4711" not in await everything(stored)
    assert counts["live_runs"] == [] and counts["events"] == 1


async def test_a_path_that_is_misspelt_shows(stored: asyncpg.Connection) -> None:
    row = await stored.fetchrow("select * from stepbase.forget($1, '{data.costumer.id}')", USER)

    assert row is not None
    assert (row["elsewhere"], row["elsewhere_ids"]) == (2, ["E3", "E5"])
    again = await forget(stored)
    assert again["elsewhere_ids"] == ["E5"], "what was forgotten is not found again"


async def test_where_else_the_id_stands_is_told(connect: Connect, database: str) -> None:
    stored = await connect()
    await stored.execute(_FILL)
    deep = "[" * 5000 + "]" * 5000
    for name, data in (("E8", f'{{"to": ["{USER}!"]}}'), ("E9", f'["{USER}", {deep}]')):
        await stored.execute(
            "insert into stepbase.events (id, name, payload, ts, received_at)"
            " values ($1, 'a/b', $2::json, now(), now())",
            name,
            f'{{"data": {data}}}',
        )

    found = await asyncio.wait_for(cli_forget(database, USER, batch=3), 30)
    words = ["forget", USER, "--yes", "--database-url", database]
    said = await asyncio.to_thread(CliRunner().invoke, main, words)

    assert not found.is_all and found.elsewhere == 4
    assert found.places == ["data.customer.id", "data.about", "data.to.0 (as a part)"]
    assert said.exit_code == 1
    assert "4 events (data.customer.id, data.about, data.to.0 (as a part)); if" in said.output


async def test_a_short_id_that_is_part_of_others_is_not_taken_for_them(
    stored: asyncpg.Connection,
) -> None:
    await stored.execute(
        "insert into stepbase.events (id, name, payload, ts, received_at) values"
        " ('F1', 'a/b', '{\"data\": {\"who\": \"u-17\"}}', now(), now()),"
        " ('F2', 'a/b', '{\"data\": {\"who\": \"u-1\"}}', now(), now())"
    )
    row = await stored.fetchrow("select elsewhere_ids from stepbase.forget('u-1')")
    assert row is not None and row["elsewhere_ids"] == ["F2"]


async def test_it_goes_in_batches(stored: asyncpg.Connection) -> None:
    after, total = "", 0
    while after is not None:
        counts = await forget(stored, after=after, limit=2)
        after, total = counts["last"], total + counts["events"]

    assert SECRET not in await everything(stored)
    assert total == 5


async def test_events_that_have_not_left_the_outbox_are_counted(stored: asyncpg.Connection) -> None:
    await stored.execute(
        "select stepbase.emit('a/b', '{}', \"user\" => jsonb_build_object('id', $1::text))", USER
    )

    assert (await forget(stored))["in_outbox"] == 1


async def test_an_event_that_waits_for_company_stays(stored: asyncpg.Connection) -> None:
    await stored.execute(
        """
        insert into stepbase.buffers (id, function_id, kind, key, event_ids, bytes, first_at, due_at)
          values ('B', gen_random_uuid(), 'batch', '', array['E4'], 1, now(), now())
        """
    )
    await forget(stored)

    payload = await stored.fetchval("select payload from stepbase.events where id = 'E4'")
    assert SECRET in payload


async def test_what_a_run_still_called_when_it_was_cancelled_goes_too(
    stored: asyncpg.Connection,
) -> None:
    # The call that was under way went on for the longest that it may.
    await stored.execute(
        """
        insert into stepbase.ledger (key, run_id, step, fn, arg_hashes, result, created_at)
        select 'run:R1:late', 'R1', 'late', 'f', '{}', '"late-4711"', r.ended_at + interval '119 minutes'
        from stepbase.runs as r where r.run_id = 'R1'
        """
    )

    planned = await forget(stored, is_dry=True)
    counts = await forget(stored)

    assert "late-4711" not in await everything(stored)
    assert planned["results"] == counts["results"] == 2


async def test_an_empty_user_is_refused(stored: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="whom to forget"):
        await stored.execute("select stepbase.forget('')")
