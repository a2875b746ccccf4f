"""`/fn`: an app declares its functions, is asked for them, or is removed."""

import json
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from stepbase import clock
from stepbase.engine import operate, syncing
from stepbase.engine.api.answers import MAX_BODY, Json, body_of, error, too_large
from stepbase.engine.registry import Registry
from stepbase.engine.settings import Settings
from stepbase.engine.store import Store
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol import names
from stepbase.protocol.sync import decode_register


async def post_register(request: Request) -> Response:
    """Store an app's functions (vectors `02-register…`, `api-register-variants.json`)."""
    settings: Settings = request.app.state.settings
    registry: Registry = request.app.state.registry
    expected = request.headers.get(names.EXPECTED_SERVER_KIND)
    if expected and expected != settings.server_kind:
        return error(
            400,
            f"Expected server kind {settings.server_kind}, got {expected}: the app runs in "
            f"{expected} mode; set or unset INNGEST_DEV on its side",
        )
    body = await body_of(request, MAX_BODY)
    if body is None:
        return too_large(MAX_BODY)
    raw: object = None
    try:
        raw = json.loads(body)
        answer = await syncing.register(registry, decode_register(raw))
    except (ValueError, RecursionError) as problem:
        return error(400, f"Invalid request: {problem}")
    except ProtocolError as problem:
        await registry.note_error(problem.code, str(problem), url=_url_in(raw))
        return error(problem.status, str(problem))
    except StoreError as problem:
        return error(503 if problem.is_transient else 500, str(problem))
    # Tells our SDK that what only this engine reads is not wasted.
    return Json(answer, headers={names.OURS: names.ENGINE})


def _url_in(raw: object) -> str | None:
    url = raw.get("url") if isinstance(raw, dict) else None
    return url if isinstance(url, str) and "\x00" not in url else None


async def delete_app(request: Request) -> Response:
    """Archive the apps at `?url=`, or the one named `?app=`; 404 if there is none.

    Its functions start nothing more until it registers again. Runs that go on are left alone, unless
    `cancel=true` asks for their end.
    """
    store: Store = request.app.state.store
    registry: Registry = request.app.state.registry
    query = request.query_params
    url, app = query.get("url"), query.get("app")
    if not url and not app:
        return error(400, "expected ?url=<the app's serve URL> or ?app=<its id>")
    if query.get("cancel", "false") not in ("true", "false"):
        return error(400, f"cancel must be true or false, got {query['cancel']!r:.60}")
    removed = await registry.remove(url or None, app or None)
    if not removed:
        return error(404, f"there is no app {app or f'at {url}'!s:.300}")
    cancelled = 0
    if query.get("cancel") == "true":
        functions = [f for f in registry.functions.by_id.values() if f.app_name in removed]
        # All of them, also those of engines whose clocks are ahead.
        until = clock.utcnow() + timedelta(minutes=10)
        cancelled = await operate.cancel_many(store, functions, None, until, None)
    return Json({"ok": True, "removed": removed, "cancelled": cancelled})


async def put_sync(request: Request) -> Response:
    """Ask the app at `{"url"}` for its functions, and relay its answer."""
    state = request.app.state
    body = await body_of(request, MAX_BODY)
    if body is None:
        return too_large(MAX_BODY)
    try:
        url = str(json.loads(body)["url"])
        status, answer = await syncing.sync(state.caller, state.registry, url)
    except ProtocolError as problem:
        return error(problem.status, str(problem))
    except (ValueError, TypeError, KeyError):
        return error(400, 'expected {"url": "<the app\'s serve URL>"}')
    except OSError as problem:
        return error(502, str(problem))
    return Response(answer, status_code=status, media_type="application/json")
