"""Retention where no engine sweeps: by hand, and on a schedule of pg_cron."""

from datetime import timedelta

import asyncpg
import pytest
from tests.conftest import Connect, migration_files
from tests.support import pg_cron

from stepbase.engine.app import running
from stepbase.engine.settings import Settings
from stepbase.engine.sweeper import sweep_once
from stepbase.local import migrate

# Ended runs and silent ones, of 40 days ago and of now; ledger rows; an event no run needs.
_FILL = """
insert into stepbase.events (id, name, payload, ts, received_at)
  select 'E' || n, 'a/b', '{}', at, at
    from (values (1, now() - interval '40 days'), (2, now()), (3, now() - interval '40 days'),
                 (4, now() - interval '40 days'), (5, now() - interval '40 days'),
                 (6, now() - interval '40 days'), (7, now() - interval '40 days')) as e (n, at);
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, created_at, ended_at, recorded_at)
  select 'R' || n, gen_random_uuid(), 1, 'E' || n, status, at, ended, recorded
    from (values
      (1, 'Completed', now() - interval '40 days', now() - interval '40 days', null::timestamptz),
      (2, 'Completed', now(), now(), null),
      (3, 'Failed', now() - interval '40 days', now() - interval '40 days', null),
      (4, 'Running', now() - interval '40 days', null, null),
      (5, 'Running', now() - interval '40 days', null, now() - interval '40 days'),
      (6, 'Running', now() - interval '40 days', null, now() - interval '40 days')
    ) as r (n, status, at, ended, recorded);
insert into stepbase.steps (run_id, hash, pos, name, op, status, started_at)
  select 'R' || n, 'h', 1, 's', 'Sleep', 'sleeping', now() from generate_series(1, 6) n;
insert into stepbase.recorded_waits (run_id, hash, kind, due_at)
  values ('R5', 'h', 'sleep', now() - interval '39 days'), ('R6', 'h', 'sleep', now() + interval '20 days');
insert into stepbase.ledger (key, run_id, fn, arg_hashes, result, created_at)
  values ('key:old', 'R1', 'f', '{}', '1', now() - interval '40 days'),
         ('key:new', 'R2', 'f', '{}', '1', now())
"""


async def test_prune_deletes_what_has_reached_its_age(db: asyncpg.Connection) -> None:
    await db.execute(_FILL)

    gone = {row["what"]: row["gone"] for row in await db.fetch("select * from stepbase.prune()")}

    assert gone == {"silent runs ended": 1, "runs": 1, "events": 2, "ledger": 1}
    left = await db.fetch("select run_id, status from stepbase.runs order by run_id")
    assert [tuple(row) for row in left] == [
        ("R2", "Completed"),
        ("R3", "Failed"),  # kept for 90 days
        ("R4", "Running"),  # an engine's own: it has not ended
        ("R5", "Cancelled"),  # silent, and nothing to wait for
        ("R6", "Running"),  # silent, and asleep for 20 days more
    ]
    assert await db.fetchval("select array_agg(id order by id) from stepbase.events") == [
        "E2", "E3", "E4", "E5", "E6",
    ]  # fmt: skip
    assert await db.fetchval("select status from stepbase.steps where run_id = 'R5'") == "cancelled"
    results = await db.fetch("select key, result from stepbase.ledger order by key")
    assert [tuple(row) for row in results] == [("key:new", "1"), ("key:old", None)]


async def test_prune_goes_on_where_it_stopped(db: asyncpg.Connection) -> None:
    await db.execute(_FILL)
    await db.execute(
        """
        insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, created_at, ended_at)
          select 'X' || n, gen_random_uuid(), 1, 'E1', 'Completed', at, at
            from generate_series(1, 2500) n, (select now() - interval '50 days' as at) x
        """
    )
    runs = "select gone from stepbase.prune(p_seconds => $1) where what = 'runs'"

    assert await db.fetchval(runs, -1) == 1000
    assert await db.fetchval(runs, 20) == 1501
    assert await db.fetchval(runs, 20) == 0


async def test_ages_are_the_callers(db: asyncpg.Connection) -> None:
    await db.execute(_FILL)
    await db.execute(
        "update stepbase.runs set ended_at = now() - interval '2 days' where run_id = 'R2'"
    )

    await db.execute("select stepbase.prune(p_runs => '1 day', p_failed => '10 days')")

    assert await db.fetchval("select count(*) from stepbase.runs where run_id in ('R2', 'R3')") == 0


async def test_a_silent_run_that_is_heard_of_again_goes_on(db: asyncpg.Connection) -> None:
    await db.execute(_FILL)
    await db.execute("select stepbase.prune()")
    report = '{"run": "R5", "report": "x", "ms": 1, "known": [], "steps": [], "failed": [], "attempt": 0}'
    await db.execute("select public.stepbase_record($1)", report)

    row = await db.fetchrow("select status, error, ended_at from stepbase.runs where run_id = 'R5'")
    assert row is not None
    assert tuple(row) == ("Running", None, None)


async def test_an_engine_ends_silent_runs_too(connect: Connect, database: str) -> None:
    db = await connect()
    await db.execute(_FILL)
    settings = Settings(database_url=database, port=0)

    async with running(settings) as engine:
        await sweep_once(engine.store, settings)

    row = await db.fetchrow(
        "select status, error ->> 'name' from stepbase.runs where run_id = 'R5'"
    )
    assert row is not None and tuple(row) == ("Cancelled", "NotHeardOf")
    assert await db.fetchval("select status from stepbase.runs where run_id = 'R6'") == "Running"


async def test_without_pg_cron_the_error_says_what_else_there_is(db: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        async with db.transaction():
            await db.execute("select stepbase.schedule_retention()")

    assert caught.value.sqlstate == "SB020"
    assert "stepbase.prune()" in str(caught.value.hint)
    assert await db.fetchval("select stepbase.unschedule_retention()") is False


@pytest.mark.timeout(200)
async def test_pg_cron_prunes_on_its_schedule() -> None:
    with pg_cron.running() as cluster:
        if cluster is None:
            return  # the other tests are what can be had here
        await migrate.apply_files(cluster.dsn(), migration_files())
        db = await asyncpg.connect(cluster.dsn())
        await db.execute("create extension pg_cron")
        await db.execute(_FILL)

        first = await db.fetchval("select stepbase.schedule_retention('0 3 * * *')")
        job = await db.fetchval(
            "select stepbase.schedule_retention('* * * * *', p_runs => $1)", timedelta(days=10)
        )
        assert job == first
        [(schedule, command)] = await db.fetch("select schedule, command from cron.job")
        assert schedule == "* * * * *" and "p_runs => '10 days'" in command

        # As pg_cron will: its version here knows minutes only, and this test would wait for one.
        assert len(await db.fetch(command)) == 4
        assert await db.fetchval("select count(*) from stepbase.runs where run_id = 'R1'") == 0
        assert await db.fetchval("select stepbase.unschedule_retention()") is True
        assert await db.fetchval("select count(*) from cron.job") == 0
        await db.close()
