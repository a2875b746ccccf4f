"""A platform that runs staged folders as their Dockerfiles say, behind one origin, as Supabase would.

`/compute/v1/<name>/…` and `/<name>/…` reach the folder's `/`; `/functions/v1/<name>/…` does when there is an
Edge Function of that name. What runs is what `find` returns at the time of the request; a new build replaces
the process.
"""

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Found = tuple[Mapping[str, bytes], Mapping[str, str]]
"""A build: its files, and the variables (secrets) that the platform gives it."""


@dataclass
class Platform:
    """Attributes:
    url: Its origin.
    find: Says what is deployed under a name, or None.
    has_edge: Says whether there is an Edge Function of that name.
    on_request: Called with method and path before a request is passed on.
    asked: Every request: method and path.
    """

    folder: Path
    url: str = ""
    find: Callable[[str], Found | None] = lambda _: None
    has_edge: Callable[[str], bool] = lambda _: False
    on_request: Callable[[str, str], None] = lambda *_: None
    asked: list[str] = field(default_factory=list)
    _running: dict[str, tuple[object, int, "subprocess.Popen[bytes]"]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def port_of(self, name: str) -> int | None:
        """Return the port of the process that runs what is deployed, starting it if need be."""
        with self._lock:
            found = self.find(name)
            if found is None:
                return None
            files, secrets = found
            key = (hash(tuple(sorted(files.items()))), tuple(sorted(secrets.items())))
            known = self._running.get(name)
            if known is not None and known[0] == key:
                return known[1]
            if known is not None:
                stop(known[2])
            folder = self.folder / f"{name}-{len(self.asked)}"
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            process, port = start(folder, secrets)
            self._running[name] = (key, port, process)
            return port

    def close(self) -> None:
        """Stop all processes; a request that is still on its way starts no other."""
        with self._lock:
            self.find = lambda _: None
            for _, _, process in self._running.values():
                stop(process)


def variables(dockerfile: str) -> dict[str, str]:
    """Return what the ENV lines of a Dockerfile set."""
    joined = dockerfile.replace("\\\n", " ")
    words = [
        w for line in joined.splitlines() if line.startswith("ENV ") for w in shlex.split(line[4:])
    ]
    return dict(word.partition("=")[::2] for word in words)


def command_of(dockerfile: str) -> list[str]:
    """Return the words of a Dockerfile's CMD (the last one is the image's)."""
    lines = [line for line in dockerfile.splitlines() if line.startswith("CMD [")]
    found: list[str] = json.loads(lines[-1].removeprefix("CMD "))
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def start(
    folder: Path, secrets: Mapping[str, str], programs: Path | None = None, port: int = 0
) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a staged folder by its Dockerfile's command, and wait until its port is bound.

    Args:
        programs: Where the command is found; this process's own environment if not given.
        port: The port, if it must be a certain one.
    """
    dockerfile = (folder / "Dockerfile").read_text()
    port = port or free_port()
    path = str(programs or Path(sys.executable).parent)
    environment = {**variables(dockerfile), **secrets, "PORT": str(port), "HOST": "127.0.0.1"}
    command, *words = command_of(dockerfile)
    process = subprocess.Popen(
        [f"{path}/{command}", *words],
        cwd=folder,
        env={"PATH": f"{path}:/usr/bin:/bin", "PYTHONPATH": str(folder), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        assert process.poll() is None, f"{folder} does not start"
        threading.Event().wait(0.005)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop a process as a platform does."""
    process.send_signal(signal.SIGTERM)
    process.wait(20)


_OF_THE_CONNECTION = ("content-length", "transfer-encoding", "connection", "date", "server")
_PATH = re.compile(r"/(?P<kind>compute/v1/|functions/v1/)?(?P<name>[\w-]+)(?P<rest>/.*|\?.*)?")


@contextmanager
def platform(folder: Path) -> Iterator[Platform]:
    """Run one for a while; `folder` is where builds are unpacked."""
    found = Platform(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            found.asked.append(f"{self.command} {self.path}")
            found.on_request(self.command, self.path)
            match = _PATH.fullmatch(self.path)
            port = None
            if match and (match["kind"] != "functions/v1/" or found.has_edge(match["name"])):
                port = found.port_of(match["name"])
            if match is None or port is None:
                self._reply(404, {}, b'{"message":"not found"}')
                return
            rest = match["rest"] or "/"
            connection = http.client.HTTPConnection("127.0.0.1", port)
            kept = {
                k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")
            }
            try:
                connection.request(self.command, rest if rest[0] == "/" else f"/{rest}", body, kept)
                answer = connection.getresponse()
                self._reply(answer.status, dict(answer.getheaders()), answer.read())
            finally:
                connection.close()

        def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "date",
                    "server",
                ):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_HEAD = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test output clean."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Be silent about clients that have been killed."""
            if not isinstance(sys.exc_info()[1], ConnectionError | OSError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        found.close()


def files_of(folder: Path) -> dict[str, bytes]:
    """Return a folder's files by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def environment_of_tests() -> dict[str, str]:
    """Return what a child of a test needs of the environment."""
    kept = ("LANG", "TMPDIR", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ}
