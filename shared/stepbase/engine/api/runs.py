"""`/v1` and `/v0`: events, their runs, run state, cancellation."""

import json
from datetime import UTC, datetime

import asyncpg
from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine.api.answers import NO_ENV, Json, RawJson, error, iso, wrapped
from stepbase.engine.item import open_edits
from stepbase.engine.retry import parse_instant
from stepbase.engine.rules import WHY_NOT_STARTED
from stepbase.engine.store import Store
from stepbase.protocol.call import members
from stepbase.protocol.ids import is_ulid, ulid_ms
from stepbase.protocol.jsontext import dumps

_CANCELLED = dumps({"name": "Cancelled", "message": "cancelled through the API"})


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def get_events(request: Request) -> Response:
    """List events, newest first: `limit` (≤ 100), `cursor`, `name`, `received_after`, `received_before`."""
    query = request.query_params
    try:
        limit = min(100, max(1, int(query.get("limit", "20"))))
    except ValueError:
        return error(400, f"limit must be a number, got {query.get('limit')!r}")
    bounds = {}
    for name in ("received_after", "received_before"):
        text = query.get(name)
        bounds[name] = parse_instant(text) if text else None
        if text and bounds[name] is None:
            return error(400, f"{name} must be an ISO 8601 time, got {text!r}")
    rows = await _store(request).list_events(
        limit,
        query.get("cursor"),
        query.get("name"),
        bounds["received_after"],
        bounds["received_before"],
    )
    return wrapped("[" + ",".join(_event(row) for row in rows) + "]")


async def get_event(request: Request) -> Response:
    """Return one event by its internal id."""
    event_id = request.path_params["event_id"]
    if not is_ulid(event_id):
        return error(400, f"Invalid event ID: {event_id}")
    row = await _store(request).get_event(event_id)
    return wrapped(_event(row)) if row else error(404, "Event not found")


async def get_event_runs(request: Request) -> Response:
    """Return the runs an event started; never cached here, unlike on the real server."""
    event_id = request.path_params["event_id"]
    if not is_ulid(event_id):
        return error(400, f"Invalid event ID: {event_id}")
    rows = await _store(request).get_runs(event_id=event_id)
    return wrapped("[" + ",".join(_run(row) for row in rows) + "]")


async def get_not_started(request: Request) -> Response:
    """Return why an event started no run of its own of some functions. Ours: nobody else says."""
    event_id = request.path_params["event_id"]
    if not is_ulid(event_id):
        return error(400, f"Invalid event ID: {event_id}")
    rows = await _store(request).get_not_started(event_id)
    reasons = [
        {
            "function_id": str(row["function_id"]),
            "function": row["slug"],
            "reason": row["reason"],
            "message": WHY_NOT_STARTED[row["reason"]],
            "run_id": row["run_id"],
            "at": iso(row["at"]),
        }
        for row in rows
    ]
    return wrapped(dumps(reasons))


async def get_run(request: Request) -> Response:
    """Return one run."""
    run_id = request.path_params["run_id"]
    if not is_ulid(run_id):
        return error(400, f"Invalid run ID: {run_id}")
    rows = await _store(request).get_runs(run_id=run_id)
    return wrapped(_run(rows[0])) if rows else error(404, f"run {run_id} is not known here")


async def get_jobs(request: Request) -> Response:
    """Return what a run waits for; nothing once it has ended."""
    run_id = request.path_params["run_id"]
    if not is_ulid(run_id):
        return error(400, f"Invalid run ID: {run_id}")
    rows = await _store(request).get_jobs(run_id)
    if not rows and not await _store(request).get_runs(run_id=run_id):
        return error(404, f"run {run_id} is not known here")
    jobs = [
        {
            "JobID": row["job"],
            "at": iso(row["at"]),
            "position": 0,
            "kind": row["kind"],
            "attempt": row["attempt"],
        }
        for row in rows
    ]
    return wrapped(dumps(jobs))


async def delete_run(request: Request) -> Response:
    """Cancel a run: 204; 404 for an unknown one. One that has ended stays as it is (204)."""
    run_id = request.path_params["run_id"]
    if not is_ulid(run_id):
        return error(400, f"Invalid run ID: {run_id}")
    store = _store(request)
    if not await store.cancel([run_id], _CANCELLED) and not await store.get_runs(run_id=run_id):
        return error(404, f"run {run_id} is not known here")
    return Response(status_code=204)


async def get_batch(request: Request) -> Response:
    """Return a live run's events: what a call with `use_api` leaves out."""
    run_id = request.path_params["run_id"]
    row = await _store(request).get_state(run_id)
    if row is None:
        return error(410, f"runtime state is no longer available for runID: {run_id}")
    return RawJson(f"[{','.join(row['more_events'] or [row['event']])}]")


async def get_actions(request: Request) -> Response:
    """Return a live run's memos by hashed step id."""
    run_id = request.path_params["run_id"]
    row = await _store(request).get_state(run_id)
    if row is None:
        return error(410, f"runtime state is no longer available for runID: {run_id}")
    hashes = row["hashes"] or ()
    memos = zip(hashes, row["memos"] or (), strict=True)
    return RawJson("{" + members((*memos, *open_edits(row["edits"], hashes))) + "}")


async def get_health(request: Request) -> Response:
    """Say that the process is up; 503 once it takes no more work and only waits for its calls to end."""
    if request.app.state.worker.is_stopping:
        return Json({"status": 503, "message": "draining"}, 503)
    return Json({"status": 200, "message": "OK"})


def _event(row: asyncpg.Record) -> str:
    payload = json.loads(row["payload"])
    if not payload.get("user"):
        payload.pop("user", None)
    return dumps(
        {
            "internal_id": row["id"],
            "account_id": NO_ENV,
            "environment_id": NO_ENV,
            "source": row["source"],
            "source_id": None,
            "received_at": iso(row["received_at"]),
            **payload,
        }
    )


def _run(row: asyncpg.Record) -> str:
    """Write a run; `output` is its result, or the error object of one that failed."""
    created = row["started_at"] or datetime.fromtimestamp(ulid_ms(row["run_id"]) / 1000, UTC)
    known = {
        "run_id": row["run_id"],
        "run_started_at": iso(created),
        "function_id": str(row["function_id"]),
        "function_version": row["fn_version"],
        "environment_id": NO_ENV,
        "event_id": row["event_id"],
        "original_run_id": row["original_run_id"],
        "status": row["status"],
        "ended_at": iso(row["ended_at"]) if row["ended_at"] else None,
    }
    if row["original_run_id"] is None:
        del known["original_run_id"]
    text = dumps(known)
    if row["ended_at"] is None:
        return text
    output = row["output"] or row["error"] or "null"
    return f'{text[:-1]},"output":{output}}}'
