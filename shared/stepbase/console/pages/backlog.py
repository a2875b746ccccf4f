"""What is under way: events in the outbox, and runs that sleep or wait."""

from starlette.requests import Request

from stepbase.console import search
from stepbase.console.page import Desk, Page
from stepbase.console.reads import Row

_PAGE = 100
_LATE_SECONDS = 30


def is_overdue(health: Row) -> bool:
    """Say of `outbox_health` whether its oldest event is so late that nobody can be taking events out."""
    late = health["oldest_due_s"]
    return late is not None and bool(late > _LATE_SECONDS)


async def outbox(desk: Desk, request: Request) -> Page:
    """Show how the outbox does, its dead letters with their reasons, and what waits longest."""
    health = await desk.reads.one("select * from stepbase.outbox_health")
    assert health is not None, "one row of sums"
    dead = await desk.reads.all(_DEAD, _PAGE)
    waiting = await desk.reads.all(_WAITING_EVENTS, _PAGE)
    shown = {
        "health": health,
        "is_overdue": is_overdue(health),
        "dead": dead,
        "waiting": waiting,
    }
    data = {
        "health": dict(health),
        "dead": [search.as_json(dict(row)) for row in dead],
        "waiting": [search.as_json(dict(row)) for row in waiting],
    }
    return Page("outbox.html", "Outbox", shown, data)


async def waiting(desk: Desk, request: Request) -> Page:
    """Show the runs that sleep or wait: for what, and until when; the soonest first."""
    asleep = await desk.reads.all(_ASLEEP, _PAGE)
    waits = await desk.reads.all(_WAITS, _PAGE)
    shown = {"asleep": asleep, "waits": waits, "most": _PAGE}
    data = {
        "asleep": [search.as_json(dict(row)) for row in asleep],
        "waiting": [search.as_json(dict(row)) for row in waits],
    }
    return Page("waiting.html", "Asleep and waiting", shown, data)


_DEAD = """
select o.id, o.name, o.created_at, o.dead_at, o.tries, o.error
  from stepbase.outbox o where o.dead_at is not null order by o.dead_at desc limit $1
"""
_WAITING_EVENTS = """
select o.id, o.name, o.created_at, o.due_at, o.tries, o.error
  from stepbase.outbox o where o.dead_at is null order by o.due_at limit $1
"""
# Of the timers that end first, no more than 20,000: what waits is among them, or much else is.
_ASLEEP = """
select q.run_id, q.due_at, k.name as step, f.slug as function
  from (
    select * from (
      select x.run_id, x.step, x.job, x.kind, x.owner, x.due_at from stepbase.queue x
        where not x.ready order by x.due_at limit 20000
    ) x where x.owner is null and x.kind = 'sleep' limit $1
  ) q
  left join stepbase.steps k on k.run_id = q.run_id and k.hash = coalesce(q.step, q.job)
  left join stepbase.runs r on r.run_id = q.run_id
  left join stepbase.functions f on f.function_id = r.function_id
  order by q.due_at
"""
_WAITS = """
select p.run_id, p.kind, p.event_name, p.path, p.value, p.residual, p.expires_at, k.name as step,
       f.slug as function
  from (
    select * from (
      select x.run_id, x.job, x.kind, x.owner from stepbase.queue x
        where not x.ready order by x.due_at limit 20000
    ) x where x.owner is null and x.kind = 'wait' limit $1
  ) q
  join stepbase.pauses p on p.run_id = q.run_id and p.hash = q.job
  left join stepbase.steps k on k.run_id = p.run_id and k.hash = p.hash
  left join stepbase.runs r on r.run_id = p.run_id
  left join stepbase.functions f on f.function_id = r.function_id
  order by p.expires_at
"""
