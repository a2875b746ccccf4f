"""What operators ask: runs made again, runs cancelled in bulk, and how things are (`GET /metrics`)."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from stepbase import clock
from stepbase.engine import expr, metrics, operate
from stepbase.engine.api.answers import MAX_BODY, NO_ENV, body_of, error, too_large, wrapped
from stepbase.engine.registry import Registry
from stepbase.engine.retry import parse_instant
from stepbase.engine.starts import Function
from stepbase.engine.store import Store
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol import names
from stepbase.protocol.ids import is_ulid
from stepbase.protocol.jsontext import dumps

_MOST_COUNTED = 100_000
_REFUSED = {
    "unknown": (404, "run {run} is not known here"),
    "live": (409, "run {run} has not ended: cancel it first, or let it end"),
    "no step": (404, "run {run} has no step {step!r}"),
    "gone": (409, "the function of run {run} is no longer registered"),
}


async def post_rerun(request: Request) -> Response:
    """Make a run again: wholly, or from a step, which may get another input.

    `{}` or `{"from_step": {"id": "<step id or hash>", "input"?: […]}}` → `{"data": {"run_id"}}`. 404 for an
    unknown run or step, 409 for a run that has not ended or whose function is gone.
    """
    run_id = request.path_params["run_id"]
    if not is_ulid(run_id):
        return error(400, f"Invalid run ID: {run_id}")
    body = await body_of(request, names.MAX_STEP_OUTPUT_BYTES)
    if body is None:
        return too_large(names.MAX_STEP_OUTPUT_BYTES)
    try:
        again = _again(run_id, body)
    except (ValueError, RecursionError) as problem:
        return error(400, str(problem))
    state = request.app.state
    new_run, outcome = await operate.rerun(state.store, state.registry, again, state.new_id)
    if outcome in _REFUSED:
        status, text = _REFUSED[outcome]
        return error(status, text.format(run=run_id, step=again.step))
    return wrapped(dumps({"run_id": new_run}))


def _again(run_id: str, body: bytes) -> operate.Again:
    raw = json.loads(body) if body.strip() else {}
    from_step = raw.get("from_step") if isinstance(raw, dict) else raw
    if from_step is None:
        return operate.Again(run_id)
    step = from_step.get("id") if isinstance(from_step, dict) else None
    if not isinstance(step, str) or not step:
        raise ValueError('expected {"from_step": {"id": "<step id>", "input"?: […]}}')
    given = from_step.get("input")
    if given is not None and not isinstance(given, list):
        raise ValueError("'from_step.input' must be a list: the step's arguments in order")
    return operate.Again(run_id, step, given)


async def post_cancellations(request: Request) -> Response:
    """Cancel runs in bulk, those of one function or of an app, before it answers.

    `{app_id, function_id?, started_after?, started_before, if?}` → Inngest Cloud's object, with how many
    runs it ended in `cancelled`. May be sent again: what has ended stays as it is.
    """
    store: Store = request.app.state.store
    registry: Registry = request.app.state.registry
    body = await body_of(request, MAX_BODY)
    if body is None:
        return too_large(MAX_BODY)
    try:
        raw = json.loads(body)
        after, before = _instant(raw, "started_after"), _instant(raw, "started_before")
        if before is None:
            raise ValueError("started_before is required")
        if before > clock.utcnow():
            raise ValueError("started_before must be in the past")
        if after is not None and after >= before:
            raise ValueError("started_after must be before started_before")
        condition = expr.compile_expression(raw["if"]) if raw.get("if") else None
        functions = _functions(registry, raw["app_id"], raw.get("function_id"))
    except (ValueError, RecursionError, ProtocolError) as problem:
        return error(400, str(problem))
    except (TypeError, KeyError, AttributeError):
        return error(400, 'expected {"app_id", "function_id", "started_before", …}')
    if not functions:
        return error(404, f"app {raw['app_id']!r} has no function {raw.get('function_id')!r}")
    count = await operate.cancel_many(store, functions, after, before, condition)
    made: dict[str, object] = {
        "id": request.app.state.new_id(),
        "environment_id": NO_ENV,
        "app_id": raw["app_id"],
        "function_id": raw.get("function_id"),
        "started_after": raw.get("started_after"),
        "started_before": raw["started_before"],
        "if": raw.get("if"),
        "cancelled": count,
    }
    return wrapped(dumps({key: value for key, value in made.items() if value is not None}))


def _instant(raw: Mapping[str, object], name: str) -> datetime | None:
    text = raw.get(name)
    if text is None:
        return None
    instant = parse_instant(text) if isinstance(text, str) else None
    if instant is None:
        raise ValueError(f"{name} must be an ISO 8601 time, got {text!r:.60}")
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _functions(registry: Registry, app: str, function: str | None) -> Sequence[Function]:
    """Return the functions that are meant: one by its id in the app or its slug, or all of the app."""
    return [
        each
        for each in registry.functions.by_id.values()
        if each.app_name == app
        and (function is None or each.config.slug in (function, f"{app}-{function}"))
    ]


async def get_metrics(request: Request) -> Response:
    """Say how things are, in Prometheus' text form; without the database it says only that."""
    state = request.app.state
    store: Store = state.store
    engine_metrics: metrics.Metrics = state.metrics
    try:
        measured = await store.measures(_MOST_COUNTED)
    except StoreError:
        measured = None
    text = engine_metrics.render(state.worker.in_flight, measured)
    return Response(text, media_type=metrics.CONTENT_TYPE)
