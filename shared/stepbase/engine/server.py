"""The engine as a process: HTTP server, readiness line, signals."""

import asyncio
import contextlib
import importlib
import ipaddress
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager

import uvicorn
from starlette.applications import Starlette

from stepbase.engine import http1
from stepbase.engine.api import app as api
from stepbase.engine.app import Engine
from stepbase.engine.settings import Settings
from stepbase.protocol import signing

_log = logging.getLogger("stepbase.engine.server")

More = Callable[[Starlette, Engine], AbstractAsyncContextManager[None]]


def check_address(settings: Settings) -> None:
    """Refuse to serve the world without keys, or anybody with a key that opens nothing.

    Raises:
        ValueError: If the address is not loopback and a key is missing, a signing key is not hex, the
            URL of an app is none, or spans are asked for that nothing installed can send.
    """
    for key in settings.signing_keys:
        signing.hash_key(key)
    for url in settings.sdk_urls:
        http1.Target.parse(url)
    if settings.is_traced:
        try:
            importlib.import_module("stepbase.engine.tracing")
        except ImportError as error:
            raise ValueError(
                "spans are asked for (OTEL_EXPORTER_OTLP_ENDPOINT), but OpenTelemetry is missing: "
                "pip install 'stepbase[engine,otel]', or unset the variable"
            ) from error
    host = settings.host
    is_loopback = host == "localhost"
    with contextlib.suppress(ValueError):
        is_loopback = ipaddress.ip_address(host).is_loopback
    if not is_loopback and not (settings.signing_keys and settings.event_keys):
        raise ValueError(
            f"refusing to bind {host} without keys: anybody could start and read runs. "
            "Set INNGEST_SIGNING_KEY and INNGEST_EVENT_KEY, or bind 127.0.0.1"
        )


@contextlib.asynccontextmanager
async def no_more(app: Starlette, engine: Engine) -> AsyncIterator[None]:
    """Put nothing more on an engine's application."""
    yield


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it: uvicorn raises them once more when it has closed, and that
    second one would break off the drain of the calls in flight."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, more: More = no_more
) -> AsyncIterator[tuple[Engine, int, uvicorn.Server]]:
    """Run an engine with its HTTP API; yields the engine, its port and the HTTP server.

    Args:
        settings: The engine's.
        more: Puts further routes on the application, for as long as the engine runs: the console.

    Raises:
        ValueError: See `check_address`.
        OSError: If the port is taken.
        StoreError: If the database is away or has no fitting schema.
    """
    check_address(settings)
    with _listening(settings.host, settings.port) as listening:
        async with Engine(settings) as engine, contextlib.AsyncExitStack() as stack:
            app = api.build(engine)
            await stack.enter_async_context(more(app, engine))
            server = _Server(
                uvicorn.Config(
                    app,
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    timeout_graceful_shutdown=5,
                    timeout_keep_alive=75,
                    server_header=False,
                )
            )
            task = asyncio.create_task(server.serve([listening]))
            try:
                while not server.started and not task.done():
                    await asyncio.sleep(0.005)
                yield engine, listening.getsockname()[1], server
            finally:
                # First the calls in flight: they may checkpoint until they end.
                try:
                    await engine.drain()
                finally:
                    server.should_exit = True
                    await task


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches off Nagle's delay only then.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    return listening


async def main(settings: Settings, more: More = no_more) -> None:
    """Serve until a signal, or until a part of the engine fails; `more` as in `serving`.

    Raises:
        Exception: What ended the engine, if it was not a signal.
    """
    async with serving(settings, more) as (engine, port, _):
        sys.stdout.write(json.dumps({"ready": "engine", "port": port}) + "\n")
        sys.stdout.flush()
        assert engine.failure is not None  # set once the engine has started
        with contextlib.suppress(asyncio.CancelledError):
            await engine.failure
