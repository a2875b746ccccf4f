"""Functions and apps: what is registered, how it does, when it fires next."""

import contextlib
from collections.abc import Mapping
from datetime import datetime

from starlette.requests import Request

from stepbase.console import difference, search, words
from stepbase.console.page import Desk, Page, not_found
from stepbase.engine.schedule import next_instant
from stepbase.history.catalog import APPS, FUNCTIONS, LAST_RUNS
from stepbase.history.search import Wanted
from stepbase.protocol.redact import redact

_LOOKED_AT = 2_000
_THEN = 4


async def functions(desk: Desk, request: Request) -> Page:
    """List functions with their triggers and how their last runs went."""
    rows = await desk.reads.all(FUNCTIONS, 200)
    crons = {row["slug"]: row["next_at"] for row in await desk.reads.all(_NEXT)}
    by_slug = desk.engine.registry.functions.by_slug
    shown = [
        {
            **row,
            "triggers": words.triggers_in_words(redact(by_slug[row["slug"]].config.raw)),
            "success": words.success_rate(row["completed"], row["failed"]),
            "next_at": crons.get(row["slug"]),
        }
        for row in rows
        if row["slug"] in by_slug
    ]
    data = {"functions": [search.as_json(row) for row in shown]}
    return Page("functions.html", "Functions", {"functions": shown}, data)


async def function(desk: Desk, request: Request) -> Page:
    """Show one function: its configuration in words, its schedule, its last runs and failures."""
    slug = request.path_params["slug"]
    row = await desk.reads.one(_FUNCTION, slug, _LOOKED_AT)
    if row is None:
        return not_found(
            f"There is no function {slug}",
            "Its app may have been synced without it, or not at all.",
        )
    known = desk.engine.registry.functions.by_id.get(row["function_id"])
    raw = redact(known.config.raw) if known else {}
    crons = [
        {**each, "then": _later(each["spec"], each["scheduled_at"])}
        for each in await desk.reads.all(_CRONS, row["function_id"])
    ]
    wanted = Wanted(function=row["function_id"])
    found = await search.find_runs(desk.reads, wanted)
    failed = await search.find_runs(
        desk.reads, Wanted(status="Failed", function=row["function_id"])
    )
    shown = {
        "function": row,
        "is_cut": row["ended"] + row["live"] >= _LOOKED_AT,
        "looked_at": _LOOKED_AT,
        "success": words.success_rate(row["completed"], row["failed"]),
        "events": _events_of(raw),
        "triggers": words.triggers_in_words(raw),
        "options": words.options_in_words(raw),
        "crons": crons,
        "runs": list(found.runs)[:15],
        "failed": list(failed.runs)[:5],
    }
    data = {
        "function": search.as_json(dict(row)),
        "config": raw,
        "crons": [search.as_json(each) for each in crons],
        "options": words.options_in_words(raw),
        "failed": [search.as_json(dict(each)) for each in list(failed.runs)[:5]],
        "runs": [search.as_json(dict(each)) for each in found.runs],
    }
    return Page("function.html", slug, shown, data)


def _later(spec: str, instant: datetime | None) -> list[datetime]:
    """Return the instants of a schedule after its next one."""
    found: list[datetime] = []
    with contextlib.suppress(ValueError):  # a time zone that this machine does not know
        while instant is not None and len(found) < _THEN:
            instant = next_instant(spec, instant)
            found += [instant] if instant is not None else []
    return found


def _events_of(config: Mapping[str, object]) -> list[str]:
    triggers = config.get("triggers")
    listed = triggers if isinstance(triggers, list) else []
    return [each["event"] for each in listed if isinstance(each, dict) and each.get("event")]


async def apps(desk: Desk, request: Request) -> Page:
    """List apps: where they are served, what serves them, and what the last sync said."""
    rows = await desk.reads.all(APPS)
    shown = [
        {
            **row,
            "difference": difference.of_app(row),
            "remedy": difference.remedy(row["error_code"], row["url"]) if row["error"] else None,
        }
        for row in rows
    ]
    data = [
        {
            **{key: row[key] for key in row if key not in ("previous", "current", "difference")},
            "last_change": row["difference"].data(),
        }
        for row in shown
    ]
    return Page("apps.html", "Apps", {"apps": shown}, {"apps": data})


_FUNCTION = f"""
select f.function_id, f.slug, f.name, a.name as app, a.url, f.paused_at, f.archived_at, f.version, s.*
  from stepbase.functions f join stepbase.apps a on a.app_id = f.app_id
  {LAST_RUNS.format(limit="$2")}
  where f.slug = $1
"""
_CRONS = """
select c.spec, c.jitter, c.scheduled_at, nullif(c.next_at, '-infinity') as next_at
  from stepbase.crons c where c.function_id = $1 order by c.n
"""
_NEXT = """
select f.slug, min(nullif(c.next_at, '-infinity')) as next_at
  from stepbase.crons c join stepbase.functions f on f.function_id = c.function_id
  where f.archived_at is null group by f.slug limit 1000
"""
