"""A keep-alive HTTP/1.1 client for calls to functions, on httptools' parser.

Why not a library: calls are the engine's hot path, and the full-featured client spent more than a
third of the engine's CPU there (docs/decisions/0004-http-client.md has the figures). This one does what
calls need and nothing else: one request at a time on a connection, a body known beforehand, TLS by
asyncio, limits on headers and bodies. No redirects, cookies, proxies or decompression: none is asked
for, so none may come.

Parsing is llhttp's, through httptools; what is written here is bounded by `Limits` and fuzzed
(tests/properties/test_engine_http1.py).
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from urllib.parse import urlsplit

import httptools

from stepbase import clock

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 4.0
"""Connections are not used again after this; uvicorn and gunicorn close theirs after 5 or 2 seconds."""
MAX_HEADER_BYTES = 64 * 1024

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_Key = tuple[str, int, bool]
"""Host, port and TLS: what a connection can be used again for."""


class NotSentError(OSError):
    """The connection could not be made, or was closed before the answer began."""


class BrokenReplyError(Exception):
    """The answer began, and is not HTTP, is too large, or ends in the middle."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; header names are lower case, of repeated ones the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: the connection's address, and what goes on the request line."""

    host: str
    port: int
    is_tls: bool
    path: str
    authority: str

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Take a URL apart.

        Raises:
            ValueError: If it is not an absolute http or https URL, or could split the request.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected an absolute http(s) URL, got {url!r:.200}")
        if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
            raise ValueError(f"the URL has characters that must be percent-encoded: {url!r:.200}")
        is_tls = parts.scheme == "https"
        query = f"?{parts.query}" if parts.query else ""
        return cls(
            host=parts.hostname,
            port=parts.port or (443 if is_tls else 80),
            is_tls=is_tls,
            path=(parts.path or "/") + query,
            authority=parts.netloc.rpartition("@")[2],
        )


_target = lru_cache(maxsize=1024)(Target.parse)


class _Connection(asyncio.Protocol):
    """One connection: one request at a time, its answer handed to a future.

    Args:
        on_lost: Told of the connection when it has ended.
    """

    def __init__(self, max_body: int, on_lost: Callable[["_Connection"], None]) -> None:
        self._max_body = max_body
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self.idle_since = 0.0
        self.is_open = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is not a subclass
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._on_lost(self)
        if self._answer is None or self._answer.done():
            return
        if self._parser is not None and self._has_begun and not self._is_framed:
            # Neither a length nor chunks: the end of the connection is the end of the body.
            self._finish()
        elif self._has_begun:
            self._fail(BrokenReplyError("the connection closed in the middle of the answer"))
        else:
            self._fail(NotSentError(f"the connection closed before an answer: {exc or 'EOF'}"))

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done() or self._parser is None:
            # Bytes nobody asked for: this connection cannot be trusted any more.
            self.close()
            return
        self._has_begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenReplyError(f"the answer is not HTTP: {error}"))

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():
            # Another answer behind the one asked for; what is left of it would come before the next.
            self.close()
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._fail(BrokenReplyError(f"the answer's headers exceed {MAX_HEADER_BYTES} bytes"))
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # set before bytes are fed
        self._status = self._parser.get_status_code()
        self._is_framed = (
            "content-length" in self._headers
            or "chunked" in self._headers.get("transfer-encoding", "").lower()
            or self._status in (204, 304)
        )
        if self._is_head and self._status >= 200:
            # Whatever length is announced, no body follows, which the parser cannot know.
            self._finish()

    def on_body(self, body: bytes) -> None:
        if self._answer is None or self._answer.done():
            return
        if not self._body_bytes and self._status == 201:
            body = body.lstrip()  # keep-alive spaces of a stream
        self._body.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > self._max_body:
            # Enough to know that it is too much: the reply is refused by its size.
            self._finish(reuse=False)

    def on_message_complete(self) -> None:
        if self._status >= 200:
            assert self._parser is not None  # as above
            self._finish(reuse=self._is_framed and self._parser.should_keep_alive())

    # ours

    def _finish(self, *, reuse: bool = False) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Response(self._status, self._headers, b"".join(self._body)))
            # The connection is kept, its answer is not.
            self._headers, self._body = {}, []
        if not reuse:
            self.close()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    def close(self) -> None:
        """Close at once."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    async def send(self, data: bytes, timeout: float) -> Response:
        """Write a request and return its answer; raises TimeoutError after `timeout` seconds."""
        self._is_head = data.startswith(b"HEAD ")
        assert self._transport is not None  # connected before it is handed out
        self._parser = httptools.HttpResponseParser(self)
        self._has_begun = False
        self._is_framed = True
        self._status = 0
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        # By hand: `asyncio.timeout` costs several times as much.
        timer = loop.call_later(max(0.0, timeout), self._fail, TimeoutError())
        self._transport.write(data)
        try:
            return await self._answer
        finally:
            timer.cancel()
            if not self._answer.done():
                self.close()
            self._answer = self._parser = None


class Client:
    """Sends requests over kept-alive connections; how many at once is the caller's business.

    Args:
        max_body: Bytes of an answer to read; a longer one comes back cut, just above this size.
        resolve: Looks up (host, port) and returns the addresses to try; None: the system's way.
        idle_seconds: How long an unused connection may be used again; before twice this, it is closed.
    """

    def __init__(
        self,
        *,
        max_body: int,
        resolve: Resolve | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._max_body = max_body
        self._resolve = resolve
        self._idle_seconds = idle_seconds
        # Each host's as an ordered set, the one used last at the end.
        self._idle: dict[_Key, dict[_Connection, None]] = {}
        self._pruning: asyncio.TimerHandle | None = None  # set while `_idle` has anything
        self._tls: ssl.SSLContext | None = None

    @property
    def kept(self) -> int:
        """How many connections are kept for a next request."""
        return sum(map(len, self._idle.values()))

    async def request(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], *, timeout: float
    ) -> Response:
        """Send a request and return its answer, whatever its status.

        A kept connection that turns out to be closed is replaced once, without a word: the other
        side closes idle ones at any time.

        Raises:
            ValueError: If the URL or a header cannot be sent.
            NotSentError: If nothing answers; the request may have arrived all the same.
            BrokenReplyError: If the answer is not HTTP, or ends in the middle.
            TimeoutError: After `timeout` seconds.
        """
        target = _target(url)
        data = _encode(method, target, body, headers)
        key = (target.host, target.port, target.is_tls)
        ends = clock.monotonic() + timeout
        kept = self._take(key)
        if kept is not None:
            with contextlib.suppress(NotSentError):
                return await self._exchange(kept, key, data, ends)
        async with asyncio.timeout(timeout):
            fresh = await self._connect(target)
        return await self._exchange(fresh, key, data, ends)

    async def _exchange(
        self, connection: _Connection, key: _Key, data: bytes, ends: float
    ) -> Response:
        response = await connection.send(data, ends - clock.monotonic())
        if connection.is_open:
            connection.idle_since = clock.monotonic()
            self._idle.setdefault(key, {})[connection] = None
            if self._pruning is None:
                self._prune_later()
        return response

    def _take(self, key: _Key) -> _Connection | None:
        """Return the connection used last, if it may still be used."""
        idle = self._idle.get(key)
        oldest = clock.monotonic() - self._idle_seconds
        while idle:
            connection, _ = idle.popitem()
            if connection.is_open and connection.idle_since >= oldest:
                return connection
            connection.close()
        return None

    def _prune_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._pruning = loop.call_later(self._idle_seconds, self._prune)

    def _prune(self) -> None:
        """Close what has idled too long, of all hosts: once in a while, so that calls need not look."""
        self._pruning = None
        oldest = clock.monotonic() - self._idle_seconds
        for key, idle in list(self._idle.items()):
            for connection in list(takewhile(lambda each: each.idle_since <= oldest, idle)):
                del idle[connection]
                connection.close()
            if not idle:
                del self._idle[key]
        if self._idle:
            self._prune_later()

    async def _connect(self, target: Target) -> _Connection:
        if target.is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._resolve is None:
                    return await self._open(target, target.host)
                addresses = await self._resolve(target.host, target.port)
                for address in addresses[:-1]:
                    with contextlib.suppress(OSError):
                        return await self._open(target, address)
                return await self._open(target, addresses[-1])
        except OSError as error:
            raise NotSentError(f"cannot connect to {target.authority}: {error}") from error

    async def _open(self, target: Target, address: str) -> _Connection:
        key = (target.host, target.port, target.is_tls)

        def forget(connection: _Connection) -> None:
            self._idle.get(key, {}).pop(connection, None)

        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._max_body, forget),
            address,
            target.port,
            ssl=self._tls if target.is_tls else None,
            server_hostname=target.host if target.is_tls else None,
        )
        return connection

    def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        if self._pruning is not None:
            self._pruning.cancel()
            self._pruning = None


def _encode(method: str, target: Target, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target.path} HTTP/1.1", f"host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {len(body)}", "", ""]
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) - 1:
        raise ValueError("a header contains a line break")
    return text.encode("latin-1") + body
