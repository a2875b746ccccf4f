"""The event API over HTTP: one request, one verdict; the key is in the URL and never in a message."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self

import httpx

from stepbase.protocol import names
from stepbase.relay.answer import Verdict, no_answer, read
from stepbase.relay.settings import Settings

_MOST_ANSWER: Final = 4 * 1024 * 1024


class EventApi:
    """Posts batches; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(
            # The whole request has a limit of its own below; a host that is gone should show sooner.
            timeout=httpx.Timeout(settings.timeout, connect=min(5.0, settings.timeout)),
            limits=httpx.Limits(max_connections=settings.in_flight, keepalive_expiry=60),
            follow_redirects=False,
            headers={
                "content-type": "application/json",
                "user-agent": f"stepbase-relay/{version('stepbase')}",
                **({names.ENV: settings.env} if settings.env else {}),
            },
        )

    async def __aenter__(self) -> Self:
        """Connect at the first request."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, payloads: Sequence[bytes]) -> Verdict:
        """Post events as one request; never raises for what the other side does."""
        body = b"[" + b",".join(payloads) + b"]"
        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                self._client.stream("POST", self._settings.url, content=body) as response,
            ):
                answer = await _read_some(response)
        except TimeoutError:
            return no_answer(f"no answer within {self._settings.timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = f"no answer: {type(error).__name__}: {error}"
            return no_answer(self._settings.without_key(reason))
        if answer is None:
            return no_answer(f"HTTP {response.status_code} with over {_MOST_ANSWER} bytes")
        verdict = read(
            response.status_code, answer, len(payloads), response.headers.get(names.RETRY_AFTER)
        )
        reason = self._settings.without_key(verdict.reason)
        return Verdict(verdict.outcome, verdict.accepted, reason, verdict.retry_after)


async def _read_some(response: httpx.Response) -> bytes | None:
    """Read a body, or None if it is longer than any answer of an event API."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > _MOST_ANSWER:
            return None
        parts.append(part)
    return b"".join(parts)
