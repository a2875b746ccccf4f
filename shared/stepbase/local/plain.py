"""Serves function folders that are no apps: whatever else functions-framework would call.

A plain function gets Flask's request, as under `functions-framework`; a coroutine function gets
Starlette's, as under `functions-framework --asgi`; what `accept_events` made is served as it is. For
development: bodies are kept in memory, and each plain call takes a thread.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from stepbase.hosts.asgi import ASGIApp, Receive, Scope, Send
from stepbase.local.errors import HostError
from stepbase.local.folders import Folder

if TYPE_CHECKING:
    from flask import Flask
    from starlette.requests import Request
    from starlette.responses import Response

_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")


def application(folder: Folder) -> ASGIApp:
    """Return what answers requests under the folder's path.

    Raises:
        HostError: its `main` cannot be called.
    """
    own = getattr(folder.target, "asgi", None)
    if own is not None:
        return cast(ASGIApp, own)
    if not callable(folder.target):
        raise HostError(
            f"{folder.name}/main.py: main is {folder.target!r:.60}, not a function of a request"
        )
    if inspect.iscoroutinefunction(folder.target):
        return _for_coroutine(folder.target)
    return _for_flask(folder.name, folder.target)


def _for_coroutine(target: Callable[["Request"], Awaitable[Any]]) -> ASGIApp:
    from starlette.requests import Request

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        response = _response(await target(Request(scope, receive, send)))
        await response(scope, receive, send)

    return serve


def _response(result: Any) -> "Response":
    """Make a response of what a coroutine function may return, as functions-framework does."""
    from starlette.responses import JSONResponse, Response

    status = 200
    if isinstance(result, tuple) and len(result) == 2:
        result, status = result
    if isinstance(result, dict | list):
        return JSONResponse(result, status)
    if isinstance(result, str | bytes):
        return Response(result, status)
    return result if isinstance(result, Response) else Response("No response returned", 500)


def _for_flask(name: str, target: Callable[[Any], Any]) -> ASGIApp:
    flask = _flask(name, target)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        request = Request(scope, receive, send)
        body = await request.body()
        content, status, headers = await asyncio.to_thread(_call, flask, request, body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return serve


def _flask(name: str, target: Callable[[Any], Any]) -> "Flask":
    from flask import Flask, request

    flask = Flask(name)

    def view(path: str) -> Any:
        return target(cast(Any, request)._get_current_object())  # the request itself, not its proxy

    flask.add_url_rule("/", "main", view, methods=_METHODS, defaults={"path": ""})
    flask.add_url_rule("/<path:path>", "main", view, methods=_METHODS)
    return flask


def _call(
    flask: "Flask", request: "Request", body: bytes
) -> tuple[bytes, int, list[tuple[bytes, bytes]]]:
    root = request.scope["root_path"]
    answer = flask.test_client(use_cookies=False).open(
        path=request.url.path.removeprefix(root) or "/",
        base_url=f"{request.url.scheme}://{request.url.netloc}{root}/",
        query_string=request.url.query,
        method=request.method,
        headers=request.headers.items(),
        data=body,
    )
    headers = [(key.lower().encode(), value.encode("latin-1")) for key, value in answer.headers]
    return answer.get_data(), answer.status_code, headers
