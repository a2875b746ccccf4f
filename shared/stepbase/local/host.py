"""The function host: one process that serves every function folder's app, for development.

A folder answers at `/<folder>/api/inngest`, as it would at the root of a host of its own. With
`reload`, a changed file makes the process replace itself: same pid, same listening socket, new
code. A folder that cannot be loaded then answers 503 with the reason until it is repaired.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from stepbase import config
from stepbase.hosts.asgi import asgi
from stepbase.local import folders
from stepbase.local.errors import HostError
from stepbase.local.folders import Folder
from stepbase.local.serving import Service
from stepbase.sdk.app import App
from stepbase.sdk.http import aclose

_log = logging.getLogger("stepbase.local.host")

SERVE_PATH = "/api/inngest"
LISTEN_FD = "STEPBASE_LISTEN_FD"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Host:
    """The ASGI application: hands a request to the app of its folder.

    `broken` maps folders that could not be loaded to the reason.
    """

    def __init__(self, loaded: Sequence[Folder], broken: Mapping[str, str] | None = None) -> None:
        self._apps = {folder.name: _application(folder) for folder in loaded}
        self._broken = dict(broken or {})

    @property
    def names(self) -> list[str]:
        """The folders that are served."""
        return list(self._apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's lifespan or one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        name, _, rest = scope["path"].removeprefix("/").partition("/")
        if name in self._apps and f"/{rest}" == SERVE_PATH:
            await self._apps[name](scope, receive, send)
        elif name in self._broken:
            await _answer(send, 503, {"error": self._broken[name]})
        elif scope["path"] == "/health":
            await _answer(send, 200, {"status": "ok"})
        else:
            served = [f"/{name}{SERVE_PATH}" for name in self._apps]
            await _answer(send, 404, {"error": f"nothing at {scope['path']}", "served": served})


def load(root: Path, *, tolerant: bool) -> Host:
    """Load every folder under `root`.

    Args:
        root: The folder with the function folders.
        tolerant: Serve what can be loaded; else the first failure is raised.

    Raises:
        HostError: there is no function folder, or one cannot be loaded.
    """
    paths = folders.find(root)
    if not paths:
        raise HostError(f"no function folder in {root.absolute()}: write {root}/<name>/main.py")
    loaded: list[Folder] = []
    broken: dict[str, str] = {}
    for path in paths:
        try:
            folder = folders.load(path.absolute())
        except HostError as error:
            if not tolerant:
                raise
            _log.error("function folder cannot be loaded", exc_info=error)
            broken[path.name] = str(error)
            continue
        if folder.app is None:
            _log.warning("function folder without an app, not served", extra={"path": str(path)})
        else:
            loaded.append(folder)
    return Host(loaded, broken)


def run(root: Path, sock: socket.socket) -> None:
    """Serve the folders under `root` until a signal.

    Raises:
        HostError: see `load`.
    """
    application = load(root, tolerant=False)
    Service(application, "host", sock, {"apps": application.names}).run()


def run_reloading(root: Path, sock: socket.socket, watched: Sequence[Path]) -> None:
    """Like `run`, and start anew whenever a Python file under `root` or `watched` changes."""
    fd = os.dup(sock.fileno())
    # Watching begins before loading: a change in between must not be missed.
    watch = _Watch([root, *watched])
    application = load(root, tolerant=True)
    service = Service(application, "host", sock, {"apps": application.names})
    watch.start(service.stop)
    service.run()
    if watch.changed:
        _log.info("files changed, starting anew", extra={"file": watch.changed})
        os.set_inheritable(fd, True)
        os.execve(sys.executable, sys.orig_argv, {**config.environment(), LISTEN_FD: str(fd)})


class _Watch(FileSystemEventHandler):
    """Calls back when a Python file was written, moved or removed; `changed` names it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.changed: str | None = None
        self._then: Callable[[], None] | None = None
        self._observer = Observer()
        self._observer.daemon = True
        for path in paths:
            self._observer.schedule(self, str(path), recursive=True)
        self._observer.start()

    def start(self, then: Callable[[], None]) -> None:
        """Call `then` at the first change, at once if there was one already."""
        self._then = then
        if self.changed:
            then()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in ("created", "modified", "moved", "deleted"):
            return
        for path in (os.fsdecode(event.src_path), os.fsdecode(event.dest_path)):
            if path.endswith(".py"):
                self.changed = path
                if self._then is not None:
                    self._then()


def _application(folder: Folder) -> Application:
    if not isinstance(folder.app, App):
        raise HostError(f"{folder.name}/main.py: main.app is not a stepbase App")
    return asgi(folder.app)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        if kind == "lifespan.shutdown":
            await aclose()
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _answer(send: Send, status: int, body: object) -> None:
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
