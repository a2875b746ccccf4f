"""The hosts an app can be served by, each as one function that answers a request, in process."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import functions_framework
import functions_framework.aio
from tests.support.sdk_calls import Reply
from werkzeug.test import Client

from stepbase import App, asgi, serve, wsgi

TARGETS: dict[str, Any] = {}
"""What the generated `main.py` files export, by name."""

HOSTS = ("asgi", "wsgi", "functions-framework", "functions-framework --asgi")


class Ask(Protocol):
    """Sends one request to a host."""

    async def __call__(
        self,
        method: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        path: str = "/api/inngest",
    ) -> Reply: ...


def open_host(name: str, app: App, folder: Path, **options: Any) -> Ask:
    """Serve an app with the host of that name; `folder` takes the generated main.py."""
    if name == "asgi":
        return ask_asgi(asgi(app, **options))
    if name == "wsgi":
        return ask_werkzeug(Client(wsgi(app, **options)))
    if name == "functions-framework":
        return ask_werkzeug(framework_app(app, folder, **options).test_client())
    return ask_asgi(framework_app(app, folder, is_asgi=True, **options))


def framework_app(app: App, folder: Path, *, is_asgi: bool = False, **options: Any) -> Any:
    """Return the application that functions-framework makes of an app's target."""
    key = str(folder)
    TARGETS[key] = serve(app, **options)
    source = folder / "main.py"
    source.write_text(f"from tests.support.sdk_hosts import TARGETS\n\nmain = TARGETS[{key!r}]\n")
    return framework_of(source, is_asgi=is_asgi)


def framework_of(source: Path, *, is_asgi: bool = False) -> Any:
    """Return the application that functions-framework makes of a file's `main`."""
    create = functions_framework.aio.create_asgi_app if is_asgi else functions_framework.create_app
    with _clean_framework():
        return create("main", str(source))  # type: ignore[no-untyped-call]  # not typed


def _clean_framework() -> AbstractContextManager[Any]:
    """Keep the framework's environment variables and its module named `main` from staying."""
    sys.modules.pop("main", None)
    return mock.patch.dict("os.environ")


def ask_asgi(application: Callable[[Any, Any, Any], Awaitable[None]]) -> Ask:
    """Ask an ASGI application directly."""

    async def ask(
        method: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        path: str = "/api/inngest",
    ) -> Reply:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        given = {"host": "testserver", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
        }
        await application(scope, receive, send)
        start, *rest = sent
        return Reply(
            start["status"],
            {k.decode().lower(): v.decode() for k, v in start["headers"]},
            b"".join(each.get("body", b"") for each in rest),
        )

    return ask


def ask_werkzeug(client: Client) -> Ask:
    """Ask a WSGI application through werkzeug's test client."""

    async def ask(
        method: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        path: str = "/api/inngest",
    ) -> Reply:
        response = await asyncio.to_thread(
            client.open,
            path,
            base_url="http://testserver",
            method=method,
            query_string=query,
            headers=dict(headers or {}),
            data=body,
            buffered=True,
        )
        lowered = {k.lower(): v for k, v in response.headers.items()}
        return Reply(response.status_code, lowered, response.data)

    return ask
