"""`POST /fn/register`: an app declares its functions; `PUT /fn/sync` asks an app to do so."""

import json
import logging
import uuid

from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine.api.answers import Json, error
from stepbase.engine.caller import Caller
from stepbase.engine.registry import Registry, not_honoured
from stepbase.engine.settings import Settings
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol import names
from stepbase.protocol.sync import decode_register

_log = logging.getLogger("stepbase.engine.api")


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
    try:
        wanted = decode_register(json.loads(await request.body()))
        app_id, modified = await registry.register(wanted)
    except (ValueError, RecursionError) as problem:
        return error(400, f"Invalid request: {problem}")
    except ProtocolError as problem:
        return error(problem.status, str(problem))
    except StoreError as problem:
        return error(503 if problem.is_transient else 500, str(problem))
    ignored = {f.slug: asked for f in wanted.functions if (asked := not_honoured(f))}
    if ignored:
        _log.warning("options are stored but not honoured yet", extra={"functions": ignored})
    message = "; ".join(f"{slug}: {', '.join(each)}" for slug, each in ignored.items())
    return Json(
        {
            "ok": True,
            "modified": modified,
            **({"message": f"not honoured by this engine yet: {message}"} if ignored else {}),
            # Names this answer only; nothing is looked up by it.
            "sync_id": str(uuid.uuid4()),  # noqa: TID251
            "app_id": str(app_id),
        },
        # Tells our SDK that the options only this engine has are not wasted.
        headers={"x-stepbase": "engine"},
    )


async def put_sync(request: Request) -> Response:
    """Ask the app at `{"url"}` to register itself, and relay its answer."""
    caller: Caller = request.app.state.caller
    try:
        url = json.loads(await request.body())["url"]
        status, body = await caller.sync(str(url))
    except (ValueError, TypeError, KeyError):
        return error(400, 'expected {"url": "<the app\'s serve URL>"}')
    except OSError as problem:
        return error(502, str(problem))
    return Response(body, status_code=status, media_type="application/json")
