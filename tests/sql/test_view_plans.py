"""The views that people open stay look-ups when tables are large: none reads a large table whole."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect

RUNS = 30_000
_BIG = {"events", "runs", "steps", "attempts", "queue", "recorded_waits", "not_started"}

# Two months of runs, one a few minutes; each with an event, two steps, and now and then a failed attempt.
# Every tenth is asleep.
_FILL = f"""
insert into stepbase.functions (function_id, app_id, slug, name, config)
  select md5('f' || n)::uuid, gen_random_uuid(), 'shop-f' || n, 'f', '{{}}' from generate_series(1, 20) n;
create temporary table t as
  select n, stepbase.ulid_floor(at) || lpad(n::text, 16, '0') as id, at, n % 10 = 0 as asleep
    from generate_series(1, {RUNS}) n
    cross join lateral (select now() - (interval '60 days' * n / {RUNS}) as at) x;
insert into stepbase.events (id, event_id, name, payload, ts, received_at)
  select id, 'u' || n, 'app/e' || n % 50, '{{"data":{{}}}}', at, at from t;
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, created_at, started_at, ended_at, error)
  select id, md5('f' || 1 + n % 20)::uuid, 1, id,
         case when asleep then 'Running' when n % 100 = 1 then 'Failed' else 'Completed' end, at, at,
         case when not asleep then at + interval '1 second' end,
         case when n % 100 = 1 then '{{"name": "E"}}'::json end
    from t;
insert into stepbase.steps (run_id, hash, pos, name, op, status, started_at, ended_at)
  select id, 'h' || k, k, 'step' || k, 'StepRun', 'done', at, at + interval '1 second'
    from t cross join generate_series(1, 2) k;
insert into stepbase.attempts (run_id, hash, attempt, at, error)
  select id, 'h1', 0, at, '{{"name": "E"}}' from t where n % 3 = 0;
insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
  select id, 'main', 'sleep', 'h2', false, at, now() + interval '1 minute' * n from t where asleep;
insert into stepbase.recorded_waits (run_id, hash, kind, due_at)
  select id, 'h9', 'sleep', now() + interval '1 minute' * n from t where asleep;
insert into stepbase.not_started (event_id, function_id, reason, at)
  select id, md5('f1')::uuid, 'rate_limited', at from t where n % 2 = 0;
analyze
"""

_OPENED = {
    "the newest runs": "select * from stepbase.run_overview order by run_id desc limit 20",
    "the newest runs of a function": """
        select * from stepbase.run_overview where function_id = md5('f7')::uuid order by run_id desc limit 20
    """,
    "runs of the last hour": """
        select * from stepbase.run_overview
        where run_id > stepbase.ulid_floor(now() - interval '1 hour') order by run_id desc
    """,
    "one run": "select * from stepbase.run_overview where run_id = (select max(id) from t)",
    "a run's timeline": "select * from stepbase.run_timeline where run_id = (select max(id) from t)",
    "what a run waits for": "select * from stepbase.waiting_runs where run_id = (select max(id) from t)",
    "what is due soon": """
        select * from stepbase.waiting_runs where until < now() + interval '1 hour' order by until
    """,
    "the newest events": "select * from stepbase.event_overview order by id desc limit 20",
    "events of a name": """
        select * from stepbase.event_overview where name = 'app/e7' order by id desc limit 20
    """,
    "failing functions": "select * from stepbase.failing_functions",
    "failing steps": "select * from stepbase.failing_steps where last_at > now() - interval '1 day'",
    "slow steps": "select * from stepbase.slow_steps",
    "throughput": "select * from stepbase.throughput_by_minute",
}


@pytest.fixture
async def full(connect: Connect) -> AsyncIterator[asyncpg.Connection]:
    """A database with two months of runs."""
    db = await connect()
    await db.execute(_FILL)
    yield db


async def test_what_people_open_reads_no_large_table_whole(full: asyncpg.Connection) -> None:
    """failing_steps may read the attempts of 30 days: failures are few, and run ids say when they were."""
    read_whole = {}
    for name, sql in _OPENED.items():
        plan = json.loads(await full.fetchval(f"explain (analyze, format json) {sql}"))[0]
        whole = sorted({node["Relation Name"] for node in nodes(plan["Plan"]) if is_whole(node)})
        if whole:
            read_whole[name] = whole

    assert read_whole == {}


def is_whole(node: dict[str, Any]) -> bool:
    """Say whether a node read most of a large table."""
    rows = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
    return node.get("Relation Name") in _BIG and (
        node["Node Type"] in ("Seq Scan", "Parallel Seq Scan") or rows > RUNS * 0.6
    )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's nodes."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)
