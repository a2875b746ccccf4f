"""The function host: one process that serves every function folder, for development.

An app answers at `/<folder>/api/inngest`, as it would at the root of a host of its own, and a folder
without an app at everything under `/<folder>`. With `reload`, a changed file makes the process replace
itself: same pid, same listening socket, new code. A folder that cannot be loaded then answers 503 with
the reason until it is repaired.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from stepbase import config
from stepbase.hosts import collector
from stepbase.hosts.asgi import ASGIApp, Receive, Scope, Send, asgi, lifespan
from stepbase.local import folders, plain
from stepbase.local.errors import HostError
from stepbase.local.folders import Folder
from stepbase.local.serving import Service
from stepbase.sdk.app import App

_log = logging.getLogger("stepbase.local.host")

SERVE_PATH = "/api/inngest"
LISTEN_FD = "STEPBASE_LISTEN_FD"


class Host:
    """The ASGI application: hands a request to its folder.

    `broken` maps folders that could not be loaded to the reason.
    """

    def __init__(self, loaded: Sequence[Folder], broken: Mapping[str, str] | None = None) -> None:
        self._apps = {f.name: _application(f) for f in loaded if f.app is not None}
        self._others = {f.name: plain.application(f) for f in loaded if f.app is None}
        self._broken = dict(broken or {})

    @property
    def names(self) -> list[str]:
        """The folders with an app."""
        return list(self._apps)

    @property
    def others(self) -> list[str]:
        """The folders without one."""
        return list(self._others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's lifespan or one request."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        name, _, rest = scope["path"].removeprefix("/").partition("/")
        if name in self._apps and f"/{rest}" == SERVE_PATH:
            await self._apps[name](scope, receive, send)
        elif name in self._others:
            await self._others[name]({**scope, "root_path": f"/{name}"}, receive, send)
        elif name in self._broken:
            await _answer(send, 503, {"error": self._broken[name]})
        elif scope["path"] == "/health":
            await _answer(send, 200, {"status": "ok"})
        else:
            served = [f"/{name}{SERVE_PATH}" for name in self._apps]
            served += [f"/{name}/" for name in self._others]
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
            _check_beside(folder, loaded)
        except HostError as error:
            if not tolerant:
                raise
            _tell(path, error)
            broken[path.name] = str(error)
            continue
        loaded.append(folder)
    return Host(loaded, broken)


def _check_beside(folder: Folder, others: Sequence[Folder]) -> None:
    """Refuse an app that another folder has too."""
    app = folder.app
    if not isinstance(app, App):
        return
    for other in others:
        if isinstance(other.app, App) and other.app.id == app.id:
            raise HostError(
                f'{folder.name}/main.py: the folder {other.name} has an app "{app.id}" too, and each '
                "sync would take the other's functions away: give one of them another id"
            )


def _tell(path: Path, error: HostError) -> None:
    """Log why a folder cannot be loaded: what its own code did, without the frames that led there."""
    cause = error.__cause__
    if cause is None:
        _log.error("function folder cannot be loaded", extra={"reason": str(error)})
        return
    trace = cause.__traceback__
    while trace is not None and not _is_in(path, trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    _log.error(
        "function folder cannot be loaded",
        exc_info=(type(cause), cause, trace),
        extra={"folder": path.name},
    )


def _is_in(path: Path, file: str) -> bool:
    return Path(file).is_relative_to(path.absolute())


def run(root: Path, sock: socket.socket) -> None:
    """Serve the folders under `root` until a signal.

    Raises:
        HostError: see `load`.
    """
    application = load(root, tolerant=False)
    collector.tune()
    Service(application, "host", sock, _said(application)).run()


def run_reloading(root: Path, sock: socket.socket, watched: Sequence[Path]) -> None:
    """Like `run`, and start anew whenever a Python file under `root` or `watched` changes."""
    fd = os.dup(sock.fileno())
    # Watching begins before loading: a change in between must not be missed.
    watch = _Watch([root, *watched])
    application = load(root, tolerant=True)
    collector.tune()
    service = Service(application, "host", sock, _said(application))
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


def _said(host: Host) -> dict[str, object]:
    return {"apps": host.names, "others": host.others}


def _application(folder: Folder) -> ASGIApp:
    if not isinstance(folder.app, App):
        raise HostError(f"{folder.name}/main.py: main.app is not a stepbase App")
    return asgi(folder.app)


async def _answer(send: Send, status: int, body: object) -> None:
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
