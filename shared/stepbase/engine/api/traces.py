"""`POST /v1/traces/userland`: spans that the TypeScript SDK exports. They are taken and not kept.

An app that wants to see them exports them itself, to where the engine sends its own: both then are one trace.
"""

from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine.api.answers import Json, error

_MAX_BYTES = 8 * 1024 * 1024


async def post_traces(request: Request) -> Response:
    """Answer 200 with an empty object, as OTLP says; 413 above 8 MiB."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _MAX_BYTES:
            return error(413, f"spans of more than {_MAX_BYTES} bytes in one request")
    return Json({})
