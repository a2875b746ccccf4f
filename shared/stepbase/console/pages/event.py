"""One event: what it started, woke and cancelled, and why functions that listen to it did not start."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.requests import Request

from stepbase.console import reasons, search, words
from stepbase.console.page import Desk, Page, not_found
from stepbase.console.pages.events import fits, listeners
from stepbase.console.reads import Row
from stepbase.engine.starts import Function
from stepbase.protocol.redact import redact

_WALKED = 5_000


async def event(desk: Desk, request: Request) -> Page:
    """Show an event, the runs that have it, and why functions that listen to it did not start."""
    wanted = request.path_params["event_id"]
    row = await desk.reads.one(_EVENT, wanted)
    if row is None:
        return not_found(
            f"There is no event {wanted}",
            "Events that no run belongs to are deleted after a week; the outbox has those that still wait.",
        )
    runs = await desk.reads.all(_RUNS, row["id"])
    woken = await desk.reads.all(
        _WOKEN, row["id"], row["event_id"] or row["id"], row["received_at"], _cancelled_by(desk, row), _WALKED
    )  # fmt: skip
    absent = await _not_started(desk, row, {run["function"] for run in runs})
    by_slug = desk.engine.registry.functions.by_slug
    paused = sorted(
        {
            run["function"]
            for run in runs
            if run["ended_at"] is None and run["function"] in by_slug
            if by_slug[run["function"]].is_paused
        }
    )
    shown = {
        "event": row,
        "payload": words.cut(words.pretty(row["payload"])),
        "runs": runs,
        "failed": [run for run in runs if run["error"] and run["status"] == "Failed"][:5],
        "woken": woken,
        "walked": _WALKED,
        "absent": absent,
        "paused": paused,
        "is_heard": bool(listeners(desk, row["name"])),
    }
    data = {
        "event": search.as_json(row),
        "runs": [search.as_json(each) for each in runs],
        "woken": [search.as_json(each) for each in woken],
        "not_started": [each for each in absent if each["reason"] != "silent"],
        "no_run": [
            {"slug": each["slug"], "why": each["why"]}
            for each in absent
            if each["reason"] == "silent"
        ],
        "paused": paused,
    }
    return Page("event.html", f"Event {row['name']}", shown, data)


async def payload(desk: Desk, request: Request) -> Page:
    """Show the whole payload of an event."""
    row = await desk.reads.one(_EVENT, request.path_params["event_id"])
    if row is None:
        return not_found("There is no such event", "It may have been deleted since.")
    shown = {"back": f"/events/{row['id']}", "name": row["name"], "text": row["payload"]}
    return Page("part.html", row["name"], shown, row["payload"])


async def _not_started(desk: Desk, row: Row, started: set[str]) -> list[dict[str, Any]]:
    """Return the functions that listen but have no run of their own, each with its reason."""
    functions = listeners(desk, row["name"])
    waiting = await desk.reads.all(_BUFFERED, row["id"], [each.function_id for each in functions])
    kept = await desk.reads.all(_NOT_STARTED, row["id"], row["event_id"])
    by_slug = desk.engine.registry.functions.by_slug
    found = []
    for each in [*kept, *waiting]:
        function = by_slug.get(each["slug"])
        config: Mapping[str, object] = redact(function.config.raw) if function else {}
        found.append(
            _absent(each["slug"], each["reason"], reasons.of_rule(each["reason"], config), each)
        )
    known = started | {each["slug"] for each in found}
    payload = json.loads(row["payload"])
    for function in functions:
        if function.config.slug not in known:
            found.append(
                _absent(function.config.slug, "silent", _why_silent(function, row["name"], payload))
            )
    return found


def _absent(
    slug: str, reason: str, why: str, row: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    of = row or {}
    due: datetime | None = of.get("due_at")
    return {"slug": slug, "reason": reason, "why": why, "run_id": of.get("run_id"), "due_at": due}


def _why_silent(function: Function, name: str, payload: Mapping[str, object]) -> str:
    fitting = [each for each in function.config.triggers if fits(each.event, name)]
    conditions = [each.expression for each in fitting if each.expression]
    return reasons.of_silence(conditions, len(conditions) < len(fitting), payload)


def _cancelled_by(desk: Desk, row: Row) -> Sequence[object]:
    return [
        each.function_id
        for each in desk.engine.registry.functions.by_id.values()
        if any(cancel.event == row["name"] for cancel in each.config.cancels)
    ]


_EVENT = """
select e.id, e.event_id, e.name, e.ts, e.received_at, e.source, e.payload::text as payload
  from stepbase.events e where e.id = $1
"""
_RUNS = """
select o.* from (select x.run_id from stepbase.runs x where x.event_id = $1 limit 200) r
  cross join lateral (
    select * from stepbase.run_overview y where y.run_id = r.run_id offset 0) o
  order by o.run_id
"""
# Of a duplicate: the run that an event of the same id had started.
_NOT_STARTED = """
select n.slug, n.reason, n.at, null::timestamptz as due_at,
       coalesce(n.run_id, case when n.reason = 'duplicate' then (
         select d.run_id from stepbase.dedupe d where d.function_id = n.function_id and d.key = $2
       ) end) as run_id
  from stepbase.get_not_started($1) n
"""
_BUFFERED = """
select f.slug, case b.kind when 'debounce' then 'debouncing' else 'gathering' end as reason, b.due_at,
       null::text as run_id
  from (
    select x.* from stepbase.buffers x
      where x.function_id = any ($2::uuid[]) and not x.is_closed limit 5000
  ) b
  join stepbase.functions f on f.function_id = b.function_id
  where $1 = any (b.event_ids) order by f.slug
"""
# Runs made before the event and alive when it came, whose wait it ended or which it cancelled: a wait keeps
# the event as its result, a cancelled run ends with the transaction that stored the event, or soon after.
_WOKEN = r"""
select r.run_id, f.slug as function, o.status, w.what, w.step
  from (
    select x.run_id, x.function_id, x.status, x.ended_at, x.error from stepbase.runs x
      where x.run_id < $1 order by x.run_id desc limit $5
  ) r
  cross join lateral (
    (select 'woken' as what, s.name as step from stepbase.steps s
       where s.run_id = r.run_id and s.op = 'WaitForEvent' and s.status = 'done'
         and s.memo::text like '%' || $2::text || '%' and s.memo::text not like '%\u0000%'
         and s.memo ->> 'id' = $2
       limit 1)
    union all
    select 'cancelled', null
      where r.status = 'Cancelled' and r.function_id = any ($4::uuid[])
        and r.ended_at between $3 and $3::timestamptz + interval '2 seconds'
        and r.error::text like '%cancel_on%'
  ) w
  cross join lateral (select y.status from stepbase.runs y where y.run_id = r.run_id offset 0) o
  left join stepbase.functions f on f.function_id = r.function_id
  where r.ended_at is null or r.ended_at >= $3
  order by r.run_id desc limit 100
"""
