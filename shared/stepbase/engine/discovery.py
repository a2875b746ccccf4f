"""Apps the engine was told of: asked to register at start, and again and again, so that a deploy is noticed.

Nothing is looked for: only the URLs that were given are asked. An app that answers as before changes
nothing, one that leaves a function out has it archived (`register_app`).
"""

import asyncio
import logging
from collections.abc import Sequence

from stepbase.engine import syncing
from stepbase.engine.caller import Caller
from stepbase.engine.registry import Registry
from stepbase.errors import ProtocolError, StoreError

_log = logging.getLogger("stepbase.engine.discovery")

_FIRST_PAUSE = 0.5


class Discovery:
    """Asks apps to register.

    Args:
        interval: Seconds between two questions to an app that answers; 0: until it has answered once.
    """

    def __init__(
        self, caller: Caller, registry: Registry, urls: Sequence[str], interval: float
    ) -> None:
        self._caller = caller
        self._registry = registry
        self._urls = urls
        self._interval = interval

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            for url in dict.fromkeys(self._urls):
                group.create_task(self._keep(url))
            # With no more to ask there is still nothing wrong.
            group.create_task(asyncio.Event().wait())

    async def _keep(self, url: str) -> None:
        pause = _FIRST_PAUSE
        told: str | None = None
        while True:
            reason = await self._ask(url)
            if reason is None and not self._interval:
                return
            if reason is not None and reason != told:
                _log.warning("app not synced", extra={"url": url, "reason": reason})
            elif reason is None and told is not None:
                _log.info("app answers again", extra={"url": url})
            told = reason
            if reason is None:
                pause = _FIRST_PAUSE
                await asyncio.sleep(self._interval)
            else:
                # It is perhaps being started: soon at first, then as often as one that answers.
                await asyncio.sleep(pause)
                pause = min(pause * 2, max(self._interval, 5.0))

    async def _ask(self, url: str) -> str | None:
        """Ask once; return what went wrong, or None."""
        try:
            status, body = await syncing.sync(self._caller, self._registry, url)
        except (OSError, ValueError, ProtocolError, StoreError) as error:
            return str(error)
        return None if status == 200 else f"{status}: {body[:300].decode(errors='replace')}"
