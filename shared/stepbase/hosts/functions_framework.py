"""functions-framework, with its Flask server and with `--asgi`; it is not imported here.

It insists on a plain function and calls it with its own server's request. Under Flask the function
answers. Under `--asgi` plain functions are called in a thread, where nothing can be awaited, so there
it returns an ASGI application as the response: Starlette runs that on the event loop. `GET …/health` is
answered without the app.
"""

from typing import TYPE_CHECKING, Any, Protocol

from stepbase.hosts import health
from stepbase.hosts.asgi import AsgiEndpoint
from stepbase.hosts.body import beginning
from stepbase.protocol import names
from stepbase.sdk.app import App
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request, Stream

if TYPE_CHECKING:
    from flask import Response as FlaskResponse


class ServeFunction(Protocol):
    """The function-framework target that `serve` returns; `app` is the `App` it serves."""

    app: App
    __name__: str

    def __call__(self, request: Any) -> Any: ...


def serve(
    app: App,
    *,
    serve_origin: str | None = None,
    serve_path: str | None = None,
    streaming: bool | None = None,
) -> ServeFunction:
    """Return the functions-framework target that serves the app; export it as ``main``.

    Args:
        serve_origin: Public origin, needed in cloud mode; `INNGEST_SERVE_ORIGIN` overrides it.
        serve_path: Public path; `INNGEST_SERVE_PATH` overrides it.
        streaming: Whether long calls are kept alive by a stream; `INNGEST_STREAMING` decides if not given.
    """
    endpoint = Endpoint(
        app,
        framework="functions_framework",
        serve_origin=serve_origin,
        serve_path=serve_path,
        streaming=streaming,
    )
    asgi = AsgiEndpoint(endpoint)

    def main(request: Any) -> Any:
        """Answer one request of the framework."""
        if hasattr(request, "environ"):
            if health.is_asked(request.method, request.path):
                return health.body(), 200, health.HEADERS
            return _flask(endpoint, request)
        return health.asgi if health.is_asked(request.method, request.url.path) else asgi

    main.__qualname__ = "main"
    main.app = app  # type: ignore[attr-defined]  # a function that carries what it serves
    return main  # type: ignore[return-value]  # it has `app` now


def _body(request: Any) -> bytes:
    """Return the body; of one that is too large only so much as shows it."""
    most = names.MAX_REQUEST_BYTES
    if request.content_length is None or request.content_length > most:
        return beginning(request.stream, most + 1)
    body: bytes = request.get_data()
    return body


def _flask(endpoint: Endpoint, request: Any) -> "FlaskResponse":
    from flask import Response

    response = endpoint.handle(
        Request(
            method=request.method,
            url=request.base_url,
            query=request.query_string.decode("latin-1"),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=_body(request),
            raw=request,
        )
    )
    body = response.chunks if isinstance(response, Stream) else response.body
    return Response(body, response.status, response.headers)
