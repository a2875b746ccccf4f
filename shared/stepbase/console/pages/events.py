"""Events: what came, newest first."""

from collections.abc import Sequence

from starlette.requests import Request

from stepbase.console import search
from stepbase.console.page import Desk, Page
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
