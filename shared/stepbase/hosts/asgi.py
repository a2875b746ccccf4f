"""Any ASGI server: uvicorn, hypercorn, or a route of Starlette or FastAPI."""

from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing, suppress
from typing import Any

from stepbase.hosts.body import arrived
from stepbase.protocol import names
from stepbase.sdk import http
from stepbase.sdk.app import App
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request, Stream
from stepbase.supabase import client

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class AsgiEndpoint:
    """An ASGI application that serves one app; `app` is the `App`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.app = endpoint.app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"a serve endpoint answers HTTP, not {scope['type']}")
        body = await arrived(receive, names.MAX_REQUEST_BYTES + 1)
        response = await self._endpoint.ahandle(to_request(scope, body))
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        if isinstance(response, Stream):
            await _send_stream(start, response.chunks, send)
            return
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send(start)
        await send({"type": "http.response.body", "body": response.body})


def asgi(
    app: App,
    *,
    serve_origin: str | None = None,
    serve_path: str | None = None,
    streaming: bool | None = None,
) -> AsgiEndpoint:
    """Return an ASGI application that serves the app at whatever path it is mounted.

    Args:
        serve_origin: Public origin, needed in cloud mode; `INNGEST_SERVE_ORIGIN` overrides it.
        serve_path: Public path; `INNGEST_SERVE_PATH` overrides it.
        streaming: Whether long calls are kept alive by a stream; `INNGEST_STREAMING` decides if not given.
    """
    return AsgiEndpoint(
        Endpoint(
            app,
            framework="asgi",
            serve_origin=serve_origin,
            serve_path=serve_path,
            streaming=streaming,
        )
    )


async def _send_stream(start: Message, chunks: AsyncGenerator[bytes, None], send: Send) -> None:
    """Send a stream; when the client has gone the call runs to its end all the same."""
    async with aclosing(chunks):
        with suppress(OSError):
            await send(start)
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        async for _ in chunks:
            pass


def to_request(scope: Scope, body: bytes) -> Request:
    """Return the request that an HTTP scope and its body are."""
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    name, port = scope.get("server") or ("127.0.0.1", None)
    host = headers.get("host") or (f"{name}:{port}" if port else name)
    path, root = scope["path"], scope.get("root_path", "")
    if not path.startswith(root):
        path = root + path  # servers before ASGI 3's clarification left the root path out
    return Request(
        method=scope["method"],
        url=f"{scope.get('scheme', 'http')}://{host}{path}",
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        body=body,
        raw=scope,
    )


async def lifespan(receive: Receive, send: Send) -> None:
    """Follow the server's start and stop; closes what calls have kept open."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await http.aclose()
            await client.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return
