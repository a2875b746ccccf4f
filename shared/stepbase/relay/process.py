"""The relay as a process: everything put together, readiness line, graceful stop."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable

from stepbase.relay.api import EventApi
from stepbase.relay.metrics import Metrics
from stepbase.relay.outbox import Outbox
from stepbase.relay.relay import Relay
from stepbase.relay.serving import build, listen, serving
from stepbase.relay.settings import Settings

_log = logging.getLogger("stepbase.relay")


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Relay, int | None]]:
    """Put a relay together; yields it, and the port its metrics are served at.

    Raises:
        OSError: If that port is taken.
        StoreError: If the database is away or has no fitting schema, or the outbox is another project's.
    """
    async with contextlib.AsyncExitStack() as stack:
        listening = None
        if settings.metrics_port is not None:
            listening = stack.enter_context(listen(settings.host, settings.metrics_port))
        # One for each batch in flight, one to take the next, one for who looks.
        outbox = await Outbox.open(
            settings.database_url,
            settings.project,
            take_over=settings.take_over,
            size=settings.in_flight + 2,
        )
        stack.push_async_callback(outbox.close)
        api = await stack.enter_async_context(EventApi(settings))
        metrics = Metrics()
        relay = Relay(settings, outbox, api, metrics)
        if listening is not None:
            await stack.enter_async_context(serving(build(relay, outbox, metrics), listening))
        yield relay, listening.getsockname()[1] if listening is not None else None


async def main(settings: Settings, on_stop: Callable[[Callable[[], None]], None]) -> None:
    """Relay until stopped.

    Args:
        on_stop: Told whom to call when the process is asked to end.

    Raises:
        OSError: If the port of the metrics is taken.
        StoreError: See `running`, or what a relay cannot go on with.
    """
    # It tells of each request with its URL, and the key is in that.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    async with running(settings) as (relay, port):
        on_stop(relay.stop)
        _log.info("relay starts", extra={"project": settings.project, "to": settings.event_origin})
        sys.stdout.write(json.dumps({"ready": "relay", "port": port}) + "\n")
        sys.stdout.flush()
        await _until_first(relay)


async def _until_first(relay: Relay) -> None:
    """Run the relay and its ear until the relay ends, or one of them fails."""
    working = asyncio.create_task(relay.run())
    listening = asyncio.create_task(relay.listen())
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        listening.cancel()
        working.cancel()
        results = await asyncio.gather(working, listening, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
