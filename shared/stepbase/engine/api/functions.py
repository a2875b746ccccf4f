"""`/v1/functions`: pausing a function and letting it go on. Ours: Inngest has this in its console only."""

from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine.api.answers import error, wrapped
from stepbase.engine.registry import Registry
from stepbase.engine.store import Store
from stepbase.protocol.jsontext import dumps


async def post_pause(request: Request) -> Response:
    """Make no more calls of a function; events go on starting runs, which wait."""
    return await _set(request, is_paused=True)


async def post_resume(request: Request) -> Response:
    """Go on with what waited."""
    return await _set(request, is_paused=False)


async def _set(request: Request, *, is_paused: bool) -> Response:
    store: Store = request.app.state.store
    registry: Registry = request.app.state.registry
    slug = request.path_params["slug"]
    if not await store.pause_function(slug, is_paused=is_paused):
        return error(404, f"there is no function {slug!r}: expected the id it was synced with")
    await registry.reload()
    return wrapped(dumps({"id": slug, "is_paused": is_paused}))
