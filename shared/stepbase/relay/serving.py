"""`/health` and `/metrics` of a relay."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stepbase.errors import StoreError
from stepbase.relay.metrics import CONTENT_TYPE, Metrics
from stepbase.relay.outbox import Outbox
from stepbase.relay.relay import Relay

_PATIENCE_SECONDS = 5.0


class _Server(uvicorn.Server):
    """Leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


def build(relay: Relay, outbox: Outbox, metrics: Metrics) -> Starlette:
    """Return the web app of a relay."""

    async def health(_: Request) -> Response:
        # The process is what is asked for: a receiver or database that is away is no reason to restart it.
        state = "draining" if relay.is_stopping else "ok"
        body = {"status": state, "receiver_failures": relay.pace.failures}
        return JSONResponse(body, 503 if relay.is_stopping else 200)

    async def show_metrics(_: Request) -> Response:
        report = None
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                report = await outbox.report(most=0)
        body = metrics.render(relay.in_flight, relay.pace.failures, report)
        return Response(body, media_type=CONTENT_TYPE)

    return Starlette(routes=[Route("/health", health), Route("/metrics", show_metrics)])


@contextlib.asynccontextmanager
async def serving(app: Starlette, listening: socket.socket) -> AsyncIterator[None]:
    """Serve an app for the length of the block."""
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            server_header=False,
        )
    )
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: If the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
