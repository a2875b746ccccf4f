"""Events: what came, what each started or woke or why not."""

from collections.abc import Sequence

from starlette.requests import Request

from stepbase.console import search, words
from stepbase.console.page import Desk, Page, not_found
from stepbase.engine.starts import Function
from stepbase.history.search import escaped

_NEWEST = "~"
_PAGE = 50
_LOOKED_AT = 20_000


async def events(desk: Desk, request: Request) -> Page:
    """List events, newest first, by name and by text in their payload."""
    query = request.query_params
    name, text = query.get("name", "").strip(), query.get("text", "").strip()
    before = query.get("before", "") or _NEWEST
    sql = _BY_NAME if name else _ALL
    rows = await desk.reads.all(
        sql, before, name, f"%{escaped(text)}%" if text else "", _PAGE, _LOOKED_AT
    )
    older = rows[-1]["id"] if len(rows) == _PAGE else None
    shown = {
        "events": rows,
        "asked": {"name": name, "text": text},
        "is_first": before == _NEWEST,
        "older_url": str(request.url.include_query_params(before=older or "").query),
        "older": older,
    }
    data = {"events": [search.as_json(dict(row)) for row in rows], "before": older}
    return Page("events.html", "Events", shown, data)


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
    kept = await desk.reads.all("select * from stepbase.get_not_started($1)", row["id"])
    started = {run["function"] for run in runs} | {each["slug"] for each in kept}
    silent = [
        {"slug": function.config.slug, "why": _why_silent(function, row["name"])}
        for function in listeners(desk, row["name"])
        if function.config.slug not in started
    ]
    shown = {
        "event": row,
        "payload": words.cut(words.pretty(row["payload"])),
        "runs": runs,
        "not_started": kept,
        "silent": silent,
    }
    data = {
        "event": search.as_json(dict(row)),
        "runs": [search.as_json(dict(each)) for each in runs],
        "not_started": [search.as_json(dict(each)) for each in kept],
        "no_run": silent,
    }
    return Page("event.html", f"Event {row['name']}", shown, data)


async def payload(desk: Desk, request: Request) -> Page:
    """Show the whole payload of an event."""
    row = await desk.reads.one(_EVENT, request.path_params["event_id"])
    if row is None:
        return not_found("There is no such event", "It may have been deleted since.")
    shown = {"back": f"/events/{row['id']}", "name": row["name"], "text": row["payload"]}
    return Page("part.html", row["name"], shown, row["payload"])


def listeners(desk: Desk, name: str) -> Sequence[Function]:
    """Return the functions that events of a name start, by their slugs."""
    found = [
        each
        for each in desk.engine.registry.functions.by_id.values()
        if not each.is_archived
        and any(fits(trigger.event, name) for trigger in each.config.triggers)
    ]
    return sorted(found, key=lambda each: each.config.slug)


def fits(pattern: str | None, name: str) -> bool:
    """Say whether a trigger's event, perhaps with a star at its end, is meant by a name."""
    if not pattern:
        return False
    return name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))


def _why_silent(function: Function, name: str) -> str:
    conditions = [
        trigger.expression
        for trigger in function.config.triggers
        if fits(trigger.event, name) and trigger.expression
    ]
    if conditions:
        return f"its condition was not met: {' or '.join(conditions)}"
    return "it was synced after the event had come"


_COLUMNS = """
  e.id, e.event_id, e.name, e.ts, e.received_at, e.source, octet_length(e.payload::text) as bytes,
  (select count(*) from (select from stepbase.runs r where r.event_id = e.id limit 100) x) as runs
"""
_ALL = f"""
select {_COLUMNS} from (
  select * from stepbase.events x where x.id < $1 and $2 = '' order by x.id desc limit $5
) e where $3 = '' or e.payload::text ilike $3 order by e.id desc limit $4
"""
_BY_NAME = f"""
select {_COLUMNS} from (
  select * from stepbase.events x where x.name = $2 and x.id < $1 order by x.id desc limit $5
) e where $3 = '' or e.payload::text ilike $3 order by e.id desc limit $4
"""
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
