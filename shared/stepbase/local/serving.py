"""Serves an ASGI application on a port, says when it is ready, and stops cleanly on a signal."""

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn

from stepbase.local.errors import PortTakenError

_GRACE_SECONDS = 5


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a listening socket on `port` (0: any free one).

    Raises:
        PortTakenError: naming the port and the `option` that chooses another.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves Nagle's algorithm on, and answers whose head and
    # body are written apart wait 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A restart must not wait until the last connections of its predecessor are forgotten.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise PortTakenError(
            f"port {port} on {host} cannot be used ({os.strerror(error.errno or 0)}): "
            f"stop what listens there, or choose another with {option}"
        ) from error
    return sock


def inherited(fd: int) -> socket.socket:
    """Return the listening socket that this process was started with."""
    return socket.socket(fileno=fd)


class Service:
    """One application on one listening socket; prints `{"ready": name, "port": N}` when it answers.

    `more` goes into that line.
    """

    def __init__(
        self, app: Any, name: str, sock: socket.socket, more: Mapping[str, object] | None = None
    ) -> None:
        self._sock = sock
        self._ready = {"ready": name, "port": sock.getsockname()[1], **(more or {})}
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            lifespan="on",
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = _Server(config, self._ready)

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop`; closes the socket."""
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._server.run(sockets=[self._sock])

    def stop(self) -> None:
        """Let `run` finish what it is answering and return; callable from any thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Mapping[str, object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            sys.stdout.write(json.dumps(self._ready) + "\n")
            sys.stdout.flush()
