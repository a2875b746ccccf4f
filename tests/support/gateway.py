"""A gateway on a free port, in a thread of the test's process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from stepbase.local.gateway.app import Gateway
from stepbase.local.gateway.auth import Authenticator, Keys
from stepbase.local.gateway.database import Database
from stepbase.local.serving import listen


class RunningGateway:
    """Where it is and what opens it."""

    def __init__(self, url: str, keys: Keys) -> None:
        self.url = url
        self.keys = keys


@contextmanager
def running_gateway(
    dsn: str,
    *,
    schemas: tuple[str, ...] = ("public",),
    most: int | None = 1000,
    jwks_url: str | None = None,
    patience: float = 10.0,
    size: int = 10,
) -> Iterator[RunningGateway]:
    """Serve `dsn` until the block ends."""
    keys = Keys.generate()
    sock = listen("127.0.0.1", 0)
    started = threading.Event()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        database = Database(dsn, schemas, patience=patience, size=size)
        app = Gateway(database, Authenticator(keys, jwks_url), schemas=schemas, most=most)
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        servers.append(server)
        # Connections wait in the listening socket until the server takes them.
        started.set()
        await server.serve(sockets=[sock])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    try:
        yield RunningGateway(f"http://127.0.0.1:{sock.getsockname()[1]}", keys)
    finally:
        servers[0].should_exit = True
        thread.join()
