"""The requests an app makes of its server: events, registration, fetching big state.

One `Exchange` describes a request; `send` and `asend` carry it. httpx is loaded with the first one.
Clients are kept (one per process for sync code, one per event loop), so connections are reused.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from stepbase import standin

if TYPE_CHECKING:
    import asyncio

    import httpx

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request to the server."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0 and the reason as body if there was no answer at all."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_client: "httpx.Client | None" = None
_pid = 0
_clients: "WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient]" = WeakKeyDictionary()


def send(exchange: Exchange) -> Answer:
    """Carry a request, blocking."""
    global _client, _pid
    stand_in = standin.current.get()
    if stand_in is not None:
        carried: Answer = stand_in.carry(exchange)
        return carried
    import httpx

    if (
        _client is None or _pid != os.getpid()
    ):  # a forked worker must not share its parent's connections
        _pid = os.getpid()
        _client = httpx.Client(timeout=TIMEOUT_SECONDS)
    try:
        return _answer(_client.send(_request(_client, exchange)))
    except httpx.RequestError as error:
        return _no_answer(exchange, error)


async def asend(exchange: Exchange) -> Answer:
    """Carry a request on the running event loop."""
    stand_in = standin.current.get()
    if stand_in is not None:
        carried: Answer = stand_in.carry(exchange)
        return carried
    import asyncio

    import httpx

    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None:
        client = _clients[loop] = httpx.AsyncClient(timeout=TIMEOUT_SECONDS)
    try:
        return _answer(await client.send(_request(client, exchange)))
    except httpx.RequestError as error:
        return _no_answer(exchange, error)


async def aclose() -> None:
    """Close the running loop's connections; for hosts that shut down, and for tests."""
    import asyncio

    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.aclose()


def close() -> None:
    """Close the process's connections of sync code."""
    global _client
    if _client is not None:
        _client.close()
        _client = None


def _request(client: "httpx.Client | httpx.AsyncClient", exchange: Exchange) -> "httpx.Request":
    return client.build_request(
        exchange.method, exchange.url, headers=dict(exchange.headers), content=exchange.body
    )


def _answer(response: Any) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content)


def _no_answer(exchange: Exchange, error: Exception) -> Answer:
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return Answer(0, {}, f"no answer from {exchange.url}: {reason}".encode())
