"""The first page: how things are, and what needs attention first."""

from datetime import timedelta

from starlette.requests import Request

from stepbase import clock
from stepbase.console import search
from stepbase.console.chart import columns, line
from stepbase.console.page import Desk, Page
from stepbase.console.pages.backlog import is_overdue
from stepbase.console.reads import Row
from stepbase.history.search import Wanted

_MINUTES = 60
_LATEST = 8


async def home(desk: Desk, request: Request) -> Page:
    """Show the last hour, the backlog, and what is wrong."""
    numbers = await desk.reads.one(_NUMBERS)
    assert numbers is not None, "one row of sums"
    minutes = await desk.reads.all(_MINUTES_SQL)
    failing = await desk.reads.all("select * from stepbase.failing_functions limit 8")
    outbox = await desk.reads.one("select * from stepbase.outbox_health")
    assert outbox is not None, "one row of sums"
    apps = await desk.reads.all(_APPS_WITH_ERRORS)
    latest = (await search.find_runs(desk.reads, Wanted())).runs[:_LATEST]
    now = clock.utcnow().replace(second=0, microsecond=0)
    slots = [now - timedelta(minutes=i) for i in reversed(range(_MINUTES))]
    by_minute = {row["minute"]: row for row in minutes}
    ended = [_value(by_minute, slot, "runs_ended") for slot in slots]
    failed = [_value(by_minute, slot, "runs_failed") for slot in slots]
    latency = [_value(by_minute, slot, "p95_ms") for slot in slots]
    shown = {
        "numbers": numbers,
        "failing": failing,
        "outbox": outbox,
        "is_overdue": is_overdue(outbox),
        "apps": apps,
        "throughput": columns(slots, ended, failed),
        "latency": line(slots, latency),
        "latest": latest,
    }
    data = {
        "numbers": dict(numbers),
        "minutes": [dict(row) for row in minutes],
        "failing_functions": [dict(row) for row in failing],
        "outbox": dict(outbox),
        "apps_with_errors": [dict(row) for row in apps],
        "latest_runs": [search.as_json(dict(row)) for row in latest],
    }
    return Page("home.html", "Home", shown, data)


def _value(rows: dict[object, Row], slot: object, column: str) -> float:
    row = rows.get(slot)
    return float(row[column] or 0) if row is not None else 0.0


# Counted no further than the page says: "20,000 or more".
_NUMBERS = """
select r.ready, r.oldest_ready_ms, t.timers, t.called, t.sleeping, t.waiting, t.retrying
  from (
    select count(*) as ready, extract(epoch from stepbase.now() - min(x.score)) * 1000 as oldest_ready_ms
      from (
        select q.score from stepbase.queue q
          where q.ready and q.lane is null order by q.score limit 20000
      ) x
  ) r, (
    select count(*) as timers, count(*) filter (where x.owner is not null) as called,
           count(*) filter (where x.owner is null and x.kind = 'sleep') as sleeping,
           count(*) filter (where x.owner is null and x.kind in ('wait', 'invoke')) as waiting,
           count(*) filter (where x.owner is null and x.attempt > 0) as retrying
      from (
        select q.kind, q.owner, q.attempt from stepbase.queue q
          where not q.ready order by q.due_at limit 20000
      ) x
  ) t
"""
_MINUTES_SQL = """
select date_trunc('minute', r.ended_at) as minute, count(*) as runs_ended,
       count(*) filter (where r.status = 'Failed') as runs_failed,
       percentile_disc(0.95) within group (
         order by extract(epoch from r.ended_at - r.created_at) * 1000)
         filter (where r.status = 'Completed') as p95_ms
  from (
    select * from stepbase.runs x
      where x.ended_at > stepbase.now() - interval '60 minutes'
        and (x.status = 'Failed' or x.status <> 'Failed')
      order by x.ended_at desc limit 200000
  ) r
  group by 1
"""
_APPS_WITH_ERRORS = """
select a.name, a.url, a.error, a.synced_at from stepbase.apps a
  where a.error is not null and a.archived_at is null order by a.name
"""
