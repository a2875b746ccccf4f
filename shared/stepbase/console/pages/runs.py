"""Runs: the list, one run as a timeline, and the parts of a run that are large."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from starlette.requests import Request

from stepbase import clock
from stepbase.console import search, timeline, words
from stepbase.console.page import Desk, Page, not_found
from stepbase.console.reads import Row
from stepbase.console.remedy import remedy
from stepbase.history.search import Wanted
from stepbase.protocol.ids import is_ulid

_SINCE = {"10m": timedelta(minutes=10), "1h": timedelta(hours=1), "1d": timedelta(days=1),
          "7d": timedelta(days=7)}  # fmt: skip
_FAILURES = 500


async def runs(desk: Desk, request: Request) -> Page:
    """List runs by status, function, event, time and text, newest first."""
    query = request.query_params
    text = query.get("text", "").strip()
    functions = {f.config.slug: f for f in desk.engine.registry.functions.by_id.values()}
    chosen = functions.get(query.get("function", ""))
    wanted = Wanted(
        status=query.get("status", ""),
        function=chosen.function_id if chosen else None,
        event=query.get("event", "").strip(),
        text=text,
        since=_since(query.get("since", "")),
        before=query.get("before", ""),
    )
    found = await _found(desk, wanted)
    shown = {
        "found": found,
        "functions": sorted(functions),
        "statuses": ("live", *words.LIVE, *words.ENDED),
        "sinces": tuple(_SINCE),
        "asked": {
            key: query.get(key, "") for key in ("status", "function", "event", "since", "text")
        },
        "is_first": not wanted.before,
        "is_any": wanted == Wanted(),
        "older_url": str(request.url.include_query_params(before=found.older or "").query),
    }
    data = {
        "runs": [search.as_json(dict(row)) for row in found.runs],
        "before": found.older,
        "looked_back_to": found.until,
    }
    return Page("runs.html", "Runs", shown, data)


async def _found(desk: Desk, wanted: Wanted) -> search.Found:
    """Find runs; a text that is a run's id finds that run."""
    if is_ulid(wanted.text.upper()):
        rows = await desk.reads.all(search.OVERVIEW, [wanted.text.upper()])
        if rows:
            return search.Found(rows, None)
    return await search.find_runs(desk.reads, wanted)


def _since(said: str) -> datetime | None:
    return clock.utcnow() - _SINCE[said] if said in _SINCE else None


async def run(desk: Desk, request: Request) -> Page:
    """Show one run: what happened when, what it was given and gave back, where it came from."""
    run_id = request.path_params["run_id"]
    rows = await desk.reads.all(search.OVERVIEW, [run_id])
    if not rows:
        return not_found(
            f"There is no run {run_id}",
            "Its id may be mistyped, it may have been pruned (docs/operating.md, Retention), or it belongs"
            " to another database.",
        )
    overview = rows[0]
    details = await desk.reads.one(_RUN, run_id)
    assert details is not None, "the overview found it"
    steps = await desk.reads.all("select * from stepbase.get_trace($1)", run_id)
    failures = await desk.reads.all(
        "select * from stepbase.get_attempts($1, $2)", run_id, _FAILURES
    )
    function = desk.engine.registry.functions.by_id.get(UUID(str(overview["function_id"])))
    drawn = timeline.draw(
        dict(overview), list(map(dict, steps)), list(map(dict, failures)), clock.utcnow()
    )
    causes = await desk.reads.all(_FAILURE_TEXTS, run_id)
    chain = await desk.reads.all(_CHAIN, run_id)
    sent = await desk.reads.all(_SENT, run_id)
    shown = {
        "run": overview,
        "details": details,
        "timeline": drawn,
        "is_live": overview["ended_at"] is None,
        "function": function,
        "event": _cut(details["payload"]),
        "output": _cut(overview["output"]),
        "error": None if overview["error"] is None else words.error(overview["error"]),
        "failed_step": _failed_step(overview, causes),
        "stuck": _stuck(overview, causes),
        "hint": _hint(overview, causes),
        "queued": _queued(overview),
        "causes": causes,
        "chain": chain,
        "sent": sent,
    }
    data = {
        "run": search.as_json(dict(overview)),
        "steps": [search.as_json(dict(row)) for row in steps],
        "failed_attempts": [search.as_json(dict(row)) for row in causes],
        "related": [search.as_json(dict(row)) for row in chain],
        "sent": [search.as_json(dict(row)) for row in sent],
        "event": details["payload"],
    }
    return Page("run.html", f"Run {run_id}", shown, data)


async def part(desk: Desk, request: Request) -> Page:
    """Show one large part of a run whole: its event, its output, a step's result, an attempt's error."""
    run_id, query = request.path_params["run_id"], request.query_params
    text: str | None = None
    if query.get("step"):
        row = await desk.reads.one(
            "select * from stepbase.get_memo($1, $2, null)", run_id, query["step"]
        )
        text = row["memo"] if row else None
    elif re.fullmatch(r"[0-9]{1,18}", query.get("attempt", "")):
        number = int(query["attempt"])
        row = await desk.reads.one("select * from stepbase.get_memo($1, null, $2)", run_id, number)
        text = row["memo"] if row else None
    elif query.get("of") in ("payload", "output"):
        row = await desk.reads.one(_WHOLE, run_id)
        text = row[query["of"]] if row else None
    if text is None:
        return not_found("Nothing is stored there", "A step has a result once it is over.")
    name = query.get("name", query.get("of", "part"))
    return Page("part.html", name, {"back": f"/runs/{run_id}", "name": name, "text": text}, text)


def _cut(text: str | None) -> tuple[str, bool]:
    return words.cut(words.pretty(text))


def _queued(run: Row) -> str:
    """Say how long a run waited for its first call."""
    started = run["started_at"]
    return words.between(started - run["created_at"]) if started else ""


def _failed_step(run: Row, causes: Sequence[Row]) -> Row | None:
    """Return the last failed attempt of the step that the run failed of, if it was a step."""
    if run["status"] != "Failed":
        return None
    error = words.error(run["error"] or "null")
    said = {each.message for each in (error, *error.causes)}
    own = (each for each in causes if each["hash"])
    return next((each for each in own if words.error(each["error"]).message in said), None)


def _stuck(run: Row, causes: Sequence[Row]) -> dict[str, object] | None:
    """Return the attempt after which a live run is to be tried again, if it is that it waits for."""
    if run["ended_at"] is not None or not causes or "due at" not in (run["waits"] or ""):
        return None
    last = causes[0]
    return {**last, "error": words.error(last["error"]), "next": words.waits(run["waits"])}


def _hint(run: Row, causes: Sequence[Row]) -> str:
    last = causes[0] if causes else None
    status = last["http_status"] if last else None
    error = run["error"] or (last["error"] if last else None)
    return remedy(error, status, is_live=run["ended_at"] is None)


_RUN = """
select r.original_run_id, r.parent_run, r.fn_version, r.step_count, r.state_bytes, r.deadline_at, r.event_ids,
       e.payload::text as payload, e.source, e.received_at
  from stepbase.runs r left join stepbase.events e on e.id = r.event_id
  where r.run_id = $1
"""
_WHOLE = """
select r.output::text as output, e.payload::text as payload
  from stepbase.runs r left join stepbase.events e on e.id = r.event_id where r.run_id = $1
"""
_FAILURE_TEXTS = """
select a.id, a.hash, a.attempt, a.at, a.http_status, a.error::text as error, s.name as step
  from stepbase.attempts a
  left join stepbase.steps s on s.run_id = a.run_id and s.hash = a.hash
  where a.run_id = $1 order by a.id desc limit 20
"""
# The run that invoked this one, those it invoked, the one it repeats and those that repeat it: they have its
# event.
_CHAIN = """
select x.relation, r.run_id, f.slug as function, r.status, r.created_at
  from (
    select 'invoked by' as relation, m.parent_run as id from stepbase.runs m where m.run_id = $1
    union all
    select 'repeats', m.original_run_id from stepbase.runs m where m.run_id = $1
    union all
    select 'invoked', c.run_id from (
      select c.run_id from stepbase.runs c where c.parent_run = $1 limit 50) c
    union all
    select 'repeated as', c.run_id from (
      select c.run_id from stepbase.runs m
        cross join lateral (
          select x.run_id, x.original_run_id from stepbase.runs x where x.event_id = m.event_id
            order by x.run_id desc limit 200) c
        where m.run_id = $1 and c.original_run_id = $1 limit 50) c
  ) x
  join stepbase.runs r on r.run_id = x.id
  left join stepbase.functions f on f.function_id = r.function_id
  order by r.run_id
"""
# What its steps sent, with the runs that came of it: a send gives back the ids of its events, and nothing
# else that a step gives back looks like that.
_SENT = """
select s.name as step, e.id, e.name, r.run_id, f.slug as function, r.status, r.created_at
  from (
    select k.name, k.pos, k.memo from stepbase.steps k
      where k.run_id = $1 and k.status = 'done' and k.op = 'StepRun'
        and octet_length(k.memo::text) < 20000
        and k.memo::text ~ '^\\s*{\\s*"data"\\s*:\\s*\\[\\s*"[0-9A-HJKMNP-TV-Z]{26}"'
      order by k.pos limit 50
  ) s
  cross join lateral (
    select x.value from json_array_elements_text(s.memo -> 'data') as x (value) limit 100) u
  cross join lateral (
    select x.id, x.name from stepbase.events x where x.id = u.value offset 0) e
  left join lateral (
    select x.run_id, x.function_id, x.status, x.created_at from stepbase.runs x
      where x.event_id = e.id limit 20) r on true
  left join stepbase.functions f on f.function_id = r.function_id
  order by s.pos, e.id, r.run_id limit 200
"""
