"""Functions: those of an app, one that is invoked, one that is paused and let go on.

Pausing is ours: Inngest has it in its console only.
"""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine.api.answers import NO_ENV, Json, body_of, error, wrapped
from stepbase.engine.intake import Intake, Sent
from stepbase.engine.registry import Registry
from stepbase.engine.starts import Function
from stepbase.engine.store import Store
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol import names
from stepbase.protocol.event import decode_event
from stepbase.protocol.ids import app_uuid
from stepbase.protocol.jsontext import dumps, find_unstorable, loads


async def post_pause(request: Request) -> Response:
    """Make no more calls of a function; events go on starting runs, which wait."""
    return await _set(request, is_paused=True)


async def post_resume(request: Request) -> Response:
    """Go on with what waited."""
    return await _set(request, is_paused=False)


async def post_invoke(request: Request) -> Response:
    """Start a function with `{"data"?, "user"?, "id"?}`: `{"id", "status": 200}`, of the event it starts by.

    404 for a function that is not in use. Start rules hold as for any event.
    """
    registry: Registry = request.app.state.registry
    intake: Intake = request.app.state.intake
    slug = request.path_params["slug"]
    body = await body_of(request, names.MAX_EVENT_BYTES)
    if body is None:
        return error(413, f"an event may have {names.MAX_EVENT_BYTES} bytes")
    try:
        raw = loads(body) if body.strip() else {}
        if not isinstance(raw, dict):
            raise ProtocolError('expected {"data"?: {…}, "user"?: {…}, "id"?: "…"}')
        unstorable = find_unstorable(raw, "body")
        if unstorable is not None:
            raise ProtocolError(unstorable)
        event = decode_event({**raw, "name": names.EVENT_FUNCTION_INVOKED}, is_internal=True)
    except (ValueError, RecursionError, ProtocolError) as problem:
        return error(400, str(problem))
    event = replace(event, data={**event.data, "_inngest": {"fn_id": slug}})
    if slug not in registry.functions.invocable:
        await registry.reload()
    if slug not in registry.functions.invocable:
        return error(404, f"there is no function {slug!r:.300}: expected the id it was synced with")
    try:
        [event_id] = await intake.accept([Sent(event)])
    except StoreError as problem:
        return error(503 if problem.is_transient else 400, str(problem))
    return Json({"id": event_id, "status": 200})


async def get_functions(request: Request) -> Response:
    """Return the functions of an app that are in use (vector `api-rest.json`); 404 for no such app."""
    store: Store = request.app.state.store
    registry: Registry = request.app.state.registry
    app = request.path_params["app"]
    if app not in {row["name"] for row in await store.list_apps()}:
        return error(404, f"there is no app {app!r:.300}")
    await registry.reload()
    known = registry.functions.by_id.values()
    found = [each for each in known if each.app_name == app and not each.is_archived]
    return Json([_described(each) for each in sorted(found, key=lambda each: each.config.slug)])


def _described(function: Function) -> dict[str, object]:
    config = function.config
    options = {
        key: value
        for key, value in config.raw.items()
        if key not in ("id", "name", "triggers", "steps")
    }
    triggers = [
        {
            "event": each.event,
            "expression": each.expression,
            "cron": each.cron,
            "jitter": each.jitter,
        }
        for each in config.triggers
    ]
    return {
        "internal_id": str(function.function_id),
        "env_id": NO_ENV,
        "app_id": str(app_uuid(function.app_name)),
        "id": config.slug,
        "name": config.name,
        "is_paused": function.is_paused,
        "config": {
            **options,
            "id": str(function.function_id),
            "fv": function.version,
            "name": config.name,
            "slug": config.slug,
            "triggers": [
                {key: value for key, value in each.items() if value is not None}
                for each in triggers
            ],
            "steps": [{"id": "step", "name": "step", "uri": config.url, "retries": config.retries}],
        },
    }


async def _set(request: Request, *, is_paused: bool) -> Response:
    store: Store = request.app.state.store
    registry: Registry = request.app.state.registry
    slug = request.path_params["slug"]
    if not await store.pause_function(slug, is_paused=is_paused):
        return error(404, f"there is no function {slug!r}: expected the id it was synced with")
    await registry.reload()
    return wrapped(dumps({"id": slug, "is_paused": is_paused}))
