"""Any WSGI server: gunicorn, waitress, or mounted in Flask or Django."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from wsgiref.util import request_uri

from stepbase.hosts.body import beginning
from stepbase.protocol import names
from stepbase.sdk.app import App
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request, Stream

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

WSGIApp = Callable[["WSGIEnvironment", "StartResponse"], Iterable[bytes]]


class WsgiEndpoint:
    """A WSGI application that serves one app; `app` is the `App`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.app = endpoint.app
        self._endpoint = endpoint

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer one request."""
        response = self._endpoint.handle(_request(environ))
        headers = list(response.headers.items())
        if not isinstance(response, Stream):
            headers.append(("content-length", str(len(response.body))))
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
        return response.chunks if isinstance(response, Stream) else [response.body]


def wsgi(
    app: App,
    *,
    serve_origin: str | None = None,
    serve_path: str | None = None,
    streaming: bool | None = None,
) -> WsgiEndpoint:
    """Return a WSGI application that serves the app at whatever path it is mounted.

    Async handlers run on an event loop of their own, which all calls of the process share.

    Args:
        serve_origin: Public origin, needed in cloud mode; `INNGEST_SERVE_ORIGIN` overrides it.
        serve_path: Public path; `INNGEST_SERVE_PATH` overrides it.
        streaming: Whether long calls are kept alive by a stream; `INNGEST_STREAMING` decides if not given.
    """
    return WsgiEndpoint(
        Endpoint(
            app,
            framework="wsgi",
            serve_origin=serve_origin,
            serve_path=serve_path,
            streaming=streaming,
        )
    )


def _request(environ: dict[str, Any]) -> Request:
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    return Request(
        method=environ["REQUEST_METHOD"],
        url=request_uri(environ, include_query=False),
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        body=_body(environ),
        raw=environ,
    )


def _body(environ: dict[str, Any]) -> bytes:
    """Read the body; of unknown length only where the server says that it has an end."""
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    most = names.MAX_REQUEST_BYTES + 1
    if length:
        return beginning(stream, min(int(length), most))
    return beginning(stream, most) if environ.get("wsgi.input_terminated") else b""
