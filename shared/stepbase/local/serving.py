"""Serves an ASGI application on a port, says when it is ready, and stops cleanly on a signal."""

import json
import logging
import socket
import sys
from typing import Any

import uvicorn

from stepbase.local.errors import PortTakenError

_GRACE_SECONDS = 5


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a socket bound to `port` (0: any free one).

    Raises:
        PortTakenError: naming the port and the `option` that chooses another.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    # A restart must not wait until the last connections of its predecessor are forgotten.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        # Two sockets may be bound to one port; only one may listen.
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise PortTakenError(
            f"port {port} on {host} cannot be used ({error.strerror}); "
            f"stop what listens there or choose another with {option}"
        ) from error
    return sock


def announce(name: str, port: int, **more: object) -> None:
    """Print the line a supervisor waits for."""
    sys.stdout.write(json.dumps({"ready": name, "port": port, **more}) + "\n")
    sys.stdout.flush()


def serve(app: Any, name: str, host: str, port: int, option: str = "--port") -> None:
    """Serve `app` until SIGINT or SIGTERM; prints `{"ready": name, "port": N}` once it answers.

    Raises:
        PortTakenError: before anything was started.
    """
    sock = listen(host, port, option)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    _Server(config, name, sock.getsockname()[1]).run(sockets=[sock])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, name: str, port: int) -> None:
        super().__init__(config)
        self._name = name
        self._port = port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            announce(self._name, self._port)
