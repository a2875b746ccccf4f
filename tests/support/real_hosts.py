"""Real web servers around an application, each in a thread of the test's process on a free port."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from tests.support.sdk_hosts import framework_app
from werkzeug.serving import make_server

from stepbase import App, asgi, wsgi
from stepbase.local.serving import listen


@contextmanager
def serving_asgi(application: Any, port: int = 0) -> Iterator[str]:
    """Serve with uvicorn, on a free port unless one is given; yields the origin."""
    sock = listen("127.0.0.1", port)
    config = uvicorn.Config(
        application, log_config=None, lifespan="auto", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    # Connections wait in the listening socket until the server takes them.
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving_wsgi(application: Any) -> Iterator[str]:
    """Serve with werkzeug, a thread for each request; yields the origin."""
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Serve = Callable[[App, Path, bool], AbstractContextManager[str]]
"""Serves an app (the folder takes a generated main.py), streaming or not; yields the origin."""


def _framework(app: App, folder: Path, streaming: bool) -> AbstractContextManager[str]:
    return serving_wsgi(framework_app(app, folder, streaming=streaming))


def _framework_asgi(app: App, folder: Path, streaming: bool) -> AbstractContextManager[str]:
    return serving_asgi(framework_app(app, folder, is_asgi=True, streaming=streaming))


SERVED: dict[str, Serve] = {
    "asgi": lambda app, _, streaming: serving_asgi(asgi(app, streaming=streaming)),
    "wsgi": lambda app, _, streaming: serving_wsgi(wsgi(app, streaming=streaming)),
    "functions-framework": _framework,
    "functions-framework --asgi": _framework_asgi,
}
