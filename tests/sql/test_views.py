"""The views people look at, over a little history made by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from stepbase.protocol.ids import ulid

_NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
_SOON = "'2027-03-01 12:01Z'"
_FUNCTION = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")


@pytest.fixture
async def history(db: asyncpg.Connection) -> asyncpg.Connection:
    """A run that completed, one that failed, one asleep; all of one function, at noon."""
    await db.execute("select set_config('stepbase.fake_now', $1, false)", _NOW.isoformat())
    await db.execute(
        """
        insert into stepbase.functions (function_id, app_id, slug, name, config)
        values ($1, $1, 'shop-award', 'award', '{}')
        """,
        _FUNCTION,
    )
    await db.execute(
        """
        insert into stepbase.events (id, event_id, name, payload, ts, received_at)
        values ('E1', 'mine', 'order/paid', '{}', $1, $1), ('E2', null, 'order/paid', '{}', $1, $1)
        """,
        _NOW - timedelta(minutes=5),
    )
    await db.executemany(
        """
        insert into stepbase.runs (run_id, function_id, fn_version, event_id, status, step_count,
          error, output, created_at, started_at, ended_at)
        values ($1, $2, 1, $3, $4, $5, $6, $7, $8, $8, $9)
        """,
        [
            ("R1", _FUNCTION, "E1", "Completed", 2, None, '{"ok": true}', _ago(300), _ago(298.5)),
            ("R2", _FUNCTION, "E2", "Failed", 1, '{"name": "Error"}', None, _ago(300), _ago(240)),
            ("R3", _FUNCTION, "E2", "Running", 1, None, None, _ago(60), None),
        ],
    )
    await db.executemany(
        """
        insert into stepbase.steps (run_id, hash, pos, name, op, status, attempt, started_at, ended_at)
        values ($1, $2, 0, $3, 'StepRun', $4, 0, $5, $6)
        """,
        [
            ("R1", "h1", "charge", "done", _ago(299.5), _ago(299)),
            ("R3", "h1", "nap", "sleeping", _ago(60), None),
        ],
    )
    await db.execute(
        """
        insert into stepbase.attempts (run_id, hash, attempt, at, http_status, error)
        values ('R1', 'h1', 0, $1, 500, '{"name": "Error"}'), ('R2', null, 0, $2, 502, '{}')
        """,
        _ago(299.4),
        _ago(241),
    )
    await db.execute(
        """
        insert into stepbase.queue (run_id, job, kind, ready, score, due_at)
        values ('R3', 'sleep', 'sleep', false, $1, $2), ('R3', 'deadline', 'deadline', false, $1, $2)
        """,
        _NOW,
        _NOW + timedelta(hours=1),
    )
    return db


def _ago(seconds: float) -> datetime:
    return _NOW - timedelta(seconds=seconds)


async def test_run_overview_has_a_line_per_run(history: asyncpg.Connection) -> None:
    rows = await history.fetch(
        """
        select run_id, function, status, event, event_id, age_ms, steps, failed_attempts, waits
        from stepbase.run_overview order by run_id
        """
    )

    assert [tuple(row) for row in rows] == [
        ("R1", "shop-award", "Completed", "order/paid", "mine", Decimal(1500), 2, 1, None),
        ("R2", "shop-award", "Failed", "order/paid", "E2", Decimal(60000), 1, 1, None),
        (
            *("R3", "shop-award", "Running", "order/paid", "E2", Decimal(60000), 1, 0),
            "asleep until 2027-03-01 13:00:00 UTC",
        ),
    ]


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        ("ready = true, due_at = null", "ready"),
        ("owner = 'x'", "being called"),
        ("kind = 'edge'", "due at 2027-03-01 13:00:00 UTC"),
        ("kind = 'invoke'", "waits until 2027-03-01 13:00:00 UTC"),
        ("kind = 'wait'", "waits until 2027-03-01 13:00:00 UTC"),
        ("kind = 'wait', job = 'h2'", "waits for order/refunded until 2027-03-01 13:00:00 UTC"),
    ],
)
async def test_run_overview_says_what_a_run_waits_for(
    history: asyncpg.Connection, state: str, waits: str
) -> None:
    await history.execute(
        "insert into stepbase.pauses (run_id, hash, kind, event_name, path, own_events, expires_at)"
        " values ('R3', 'h2', 'event', 'order/refunded', '', '{}', now());"
        f"update stepbase.queue set {state} where job = 'sleep'"
    )

    assert (
        await history.fetchval("select waits from stepbase.run_overview where run_id = 'R3'")
        == waits
    )


async def test_run_timeline_tells_a_run_in_order(history: asyncpg.Connection) -> None:
    rows = await history.fetch(
        "select what, name, status, ms from stepbase.run_timeline where run_id = 'R1'"
    )

    assert [tuple(row) for row in rows] == [
        ("run", "scheduled", "event", None),
        ("step", "charge", "done", Decimal(500)),
        ("failed attempt", "charge", "HTTP 500", None),
        ("run", "completed", "Completed", Decimal(1500)),
    ]


async def test_run_timeline_tells_of_failures_between_steps(history: asyncpg.Connection) -> None:
    names = await history.fetchval(
        "select array_agg(name) from stepbase.run_timeline where run_id = 'R2'"
    )

    assert names == ["scheduled", "(between steps)", "failed"]


async def test_steps_saved_on_the_way_begin_where_the_one_before_ended(
    history: asyncpg.Connection,
) -> None:
    await history.execute("delete from stepbase.steps; delete from stepbase.attempts")
    await history.execute(
        "update stepbase.runs set started_at = $1 where run_id = 'R1'", _ago(299.9)
    )
    await history.executemany(
        """
        insert into stepbase.steps (run_id, hash, pos, name, op, status, started_at, ended_at)
        values ('R1', $1, $2, $1, $3, 'done', $4, $5)
        """,
        [
            ("saved", 1, "StepRun", _ago(299.7), _ago(299.7)),
            ("saved too", 2, "StepRun", _ago(299.2), _ago(299.2)),
            # Two that came with the end of the call: what is known is when the call began.
            ("last", 3, "StepRun", _ago(299.9), _ago(299)),
            ("last too", 4, "StepRun", _ago(299.9), _ago(299)),
            ("nap", 2147483647, "Sleep", _ago(299.9), None),
        ],
    )

    rows = await history.fetch(
        "select at, name, ms from stepbase.run_timeline where run_id = 'R1' and what = 'step'"
    )
    slow = await history.fetch("select step, max_ms from stepbase.slow_steps order by step")

    assert sorted(tuple(row) for row in rows) == [
        (_ago(299.9), "saved", Decimal(200)),
        (_ago(299.7), "saved too", Decimal(500)),
        (_ago(299.2), "last", Decimal(200)),
        (_ago(299.2), "last too", Decimal(200)),
        (_ago(299), "nap", None),
    ]
    assert [tuple(row) for row in slow] == [
        ("last", 200), ("last too", 200), ("saved", 200), ("saved too", 500),
    ]  # fmt: skip


async def test_failing_functions_counts_the_last_day(history: asyncpg.Connection) -> None:
    row = await history.fetchrow("select * from stepbase.failing_functions")

    assert row is not None
    assert tuple(row) == (
        *("shop-award", 1, 2, Decimal("50.0"), _ago(240), "R2", '{"name": "Error"}'),
    )
    tomorrow = (_NOW + timedelta(hours=24)).isoformat()
    await history.execute("select set_config('stepbase.fake_now', $1, false)", tomorrow)
    assert await history.fetch("select * from stepbase.failing_functions") == []


async def test_throughput_by_minute_counts_the_last_hour(history: asyncpg.Connection) -> None:
    rows = await history.fetch("select * from stepbase.throughput_by_minute")

    assert [tuple(row) for row in rows] == [
        (_ago(60), 0, 1, 0, 0),
        (_ago(240), 0, 0, 1, 1),
        (_ago(300), 2, 2, 1, 0),
    ]


async def test_outbox_health_is_one_line(history: asyncpg.Connection) -> None:
    health = "select * from stepbase.outbox_health"
    empty = await history.fetchrow(health)
    for state in ("due_at = $1", "token = 't', due_at = now()", "tries = 1", "dead_at = $1"):
        event_id = await history.fetchval("select stepbase.emit('a/b', '{}')")
        await history.execute(
            f"update stepbase.outbox set error = 'no', {state.replace('now()', _SOON)}"
            " where id = $2 and $1::timestamptz is not null",
            _ago(90),
            event_id,
        )

    row = await history.fetchrow(health)

    assert empty is not None and row is not None
    assert tuple(empty)[:6] == (0, 0, 0, 0, None, None)
    assert tuple(row)[:5] == (3, 1, 1, 1, Decimal("90.0"))
    assert row["last_dead_error"] == "no"
    there_are = "select count(*) from stepbase.row_triggers"
    assert row["row_triggers"] == await history.fetchval(there_are)


async def test_the_service_may_look_and_others_may_not(history: asyncpg.Connection) -> None:
    await history.execute("set local role service_role")

    for view in ("run_overview", "run_timeline", "throughput_by_minute", "outbox_health"):
        assert await history.fetch(f"select * from stepbase.{view}")


async def test_waiting_runs_has_a_line_for_each_thing(history: asyncpg.Connection) -> None:
    await history.execute(
        "update stepbase.steps set op = 'Sleep' where run_id = 'R3';"
        "update stepbase.queue set job = 'h1' where job = 'sleep'"
    )
    await history.executemany(
        """
        insert into stepbase.steps (run_id, hash, pos, name, op, status, started_at)
        values ('R3', $1, 0, $2, $3, 'waiting', $4)
        """,
        [
            ("h2", "refund", "WaitForEvent", _ago(50)),
            ("h3", "flaky", "StepPlanned", _ago(40)),
            ("h4", "turn", "StepPlanned", _ago(30)),
        ],
    )
    await history.execute(
        """
        insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at, attempt, owner)
          select 'R3', job, kind, step, is_ready, $1, due, attempt, owner
            from (values ('h2', 'wait', null, false, $1::timestamptz + interval '2 hours', 0, null),
                         ('h3', 'step', 'h3', false, $1::timestamptz + interval '1 minute', 2, null),
                         ('h4', 'step', 'h4', true, null, 0, null),
                         ('main', 'edge', null, false, timestamptz 'infinity', 0, null),
                         ('called', 'step', null, false, $1 + interval '1 minute', 0, 'engine'))
              as q (job, kind, step, is_ready, due, attempt, owner)
        """,
        _NOW,
    )
    await history.execute(
        """
        insert into stepbase.pauses (run_id, hash, kind, event_name, path, own_events, expires_at)
          values ('R3', 'h2', 'event', 'order/refunded', '', '{}', $1),
                 ('R3', 'c1', 'cancel', 'order/cancelled', '', '{}', $1)
        """,
        _NOW,
    )

    rows = await history.fetch(
        "select step, waits_for, what, since, until from stepbase.waiting_runs order by until"
    )

    assert [tuple(row) for row in rows] == [
        ("flaky", "retry", None, _ago(40), _ago(-60)),
        ("nap", "sleep", None, _ago(60), _ago(-3600)),
        ("refund", "event", "order/refunded", _ago(50), _ago(-7200)),
        ("turn", "turn", None, _ago(30), None),
    ]


async def test_slow_steps_are_those_of_the_last_hour(history: asyncpg.Connection) -> None:
    await history.execute(
        """
        insert into stepbase.steps (run_id, hash, pos, name, op, status, attempt, started_at, ended_at)
          select 'R2', hash, 0, name, op, status, attempt, at, at + took::interval
            from (values ('h1', 'charge', 'StepRun', 'failed', 1, '1.5 seconds'),
                         ('h2', 'nap', 'Sleep', 'done', 0, '1 day'))
                   as s (hash, name, op, status, attempt, took),
                 (select $1::timestamptz as at) as t
        """,
        _ago(250),
    )

    slow = "select * from stepbase.slow_steps"
    rows = await history.fetch(slow)
    later = (_NOW + timedelta(minutes=57)).isoformat()
    await history.execute("select set_config('stepbase.fake_now', $1, false)", later)

    assert [tuple(row) for row in rows] == [
        ("shop-award", "charge", 2, Decimal(1000), Decimal(1450), Decimal(1500), 1)
    ]
    assert await history.fetch(slow) == []


async def test_failing_steps_are_those_of_the_last_day(history: asyncpg.Connection) -> None:
    # Ids as runs of that time have them: the view looks at those of the last 30 days.
    first = await history.fetchval("select stepbase.ulid_floor($1)", _ago(300))
    await history.execute("update stepbase.runs set run_id = $1 || run_id", first)
    await history.execute("update stepbase.steps set run_id = $1 || run_id", first)
    await history.execute("update stepbase.attempts set run_id = $1 || run_id", first)
    await history.execute(
        """
        insert into stepbase.attempts (run_id, hash, attempt, at, error)
          values ($1 || 'R3', 'h1', 0, $2, '{"name": "Third"}'), ($1 || 'R1', 'h1', 1, $3, '{}')
        """,
        first,
        _ago(10),
        _NOW - timedelta(hours=25),
    )

    rows = await history.fetch(
        "select step, failed_attempts, runs, still_live, last_at, last_error from stepbase.failing_steps"
    )

    assert [tuple(row) for row in rows] == [
        ("charge", 1, 1, 0, _ago(299.4), '{"name": "Error"}'),
        ("nap", 1, 1, 1, _ago(10), '{"name": "Third"}'),
        (None, 1, 1, 0, _ago(241), "{}"),
    ]


async def test_event_overview_says_what_an_event_led_to(history: asyncpg.Connection) -> None:
    await history.execute(
        "insert into stepbase.not_started (event_id, function_id, reason, at)"
        " values ('E1', $1, 'rate_limited', now())",
        _FUNCTION,
    )

    rows = await history.fetch(
        "select id, event_id, name, started, not_started from stepbase.event_overview order by id"
    )

    assert [tuple(row) for row in rows] == [
        ("E1", "mine", "order/paid", "shop-award Completed", "shop-award rate_limited"),
        ("E2", None, "order/paid", "shop-award Failed, shop-award Running", None),
    ]


async def test_reported_runs_say_what_they_wait_for(history: asyncpg.Connection) -> None:
    await history.execute("delete from stepbase.queue where run_id = 'R3'")
    await history.execute("update stepbase.runs set recorded_at = $1 where run_id = 'R3'", _ago(50))
    waits = "select waits from stepbase.run_overview where run_id = 'R3'"
    silent = await history.fetchval(waits)
    await history.execute(
        """
        insert into stepbase.recorded_waits (run_id, hash, kind, what, due_at)
          values ('R3', 'h1', 'sleep', null, $1), ('R3', 'h9', 'event', 'order/refunded', $2)
        """,
        _NOW + timedelta(hours=1),
        _NOW + timedelta(hours=2),
    )
    rows = await history.fetch(
        "select step, waits_for, what, until from stepbase.waiting_runs order by until"
    )

    assert silent == "last reported at 2027-03-01 11:59:10 UTC"
    assert await history.fetchval(waits) == (
        "asleep until 2027-03-01 13:00:00 UTC, waits for order/refunded until 2027-03-01 14:00:00 UTC"
    )
    assert [tuple(row) for row in rows] == [
        ("nap", "sleep", None, _ago(-3600)),
        (None, "event", "order/refunded", _ago(-7200)),
    ]


async def test_ulid_floor_is_where_the_ids_of_a_moment_begin(db: asyncpg.Connection) -> None:
    for seconds in (0, 1, 1_795_451_384.936, 281_474_976_710.655):
        floor = await db.fetchval("select stepbase.ulid_floor(to_timestamp($1))", seconds)
        assert floor == ulid(round(seconds * 1000), bytes(10))[:10]


async def test_table_sizes_name_every_table(db: asyncpg.Connection) -> None:
    names = {row["name"] for row in await db.fetch("select * from stepbase.table_sizes")}

    assert {"runs", "steps", "events", "attempts", "queue", "ledger", "outbox"} <= names
