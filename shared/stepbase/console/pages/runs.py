"""Runs: the list, one run as a timeline, and the parts of a run that are large."""

from datetime import datetime, timedelta
from uuid import UUID

from starlette.requests import Request

from stepbase import clock
from stepbase.console import search, timeline, words
from stepbase.console.page import Desk, Page, not_found
from stepbase.console.reads import Row
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
    shown = {
        "run": overview,
        "details": details,
        "timeline": drawn,
        "is_live": overview["ended_at"] is None,
        "function": function,
        "event": _cut(details["payload"]),
        "output": _cut(overview["output"]),
        "error": _error(overview["error"]),
        "causes": causes,
        "chain": chain,
    }
    data = {
        "run": search.as_json(dict(overview)),
        "steps": [search.as_json(dict(row)) for row in steps],
        "failed_attempts": [search.as_json(dict(row)) for row in causes],
        "related": [search.as_json(dict(row)) for row in chain],
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
    elif query.get("attempt", "").isdigit():
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


def _error(text: str | None) -> Row | dict[str, object] | None:
    return None if text is None else words.error(text)


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
# The run that invoked this one, those it invoked, the one it repeats and those that repeat it.
_CHAIN = """
select x.relation, r.run_id, f.slug as function, r.status, r.created_at
  from (
    select 'invoked by' as relation, m.parent_run as id from stepbase.runs m where m.run_id = $1
    union all
    select 'repeats', m.original_run_id from stepbase.runs m where m.run_id = $1
    union all
    select 'invoked', c.run_id from (
      select c.run_id from stepbase.runs c where c.parent_run = $1 limit 50) c
  ) x
  join stepbase.runs r on r.run_id = x.id
  left join stepbase.functions f on f.function_id = r.function_id
  order by r.run_id
"""
