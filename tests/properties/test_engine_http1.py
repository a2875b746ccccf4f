"""The engine's HTTP client against a server that sends what hypothesis makes up."""

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepbase.engine import http1

MAX_BODY = 2000
KNOWN = (http1.NotSentError, http1.BrokenReplyError)
OK = b"HTTP/1.1 200 OK\r\nx: keep-me\r\ncontent-length: 1\r\n\r\n1"


@contextlib.asynccontextmanager
async def server(*scripts: list[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer the n-th request (on any connection) with the n-th script of writes, then close."""
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                got.append(head + await reader.readexactly(length))
                script = scripts[min(len(got), len(scripts)) - 1]
                for piece in script:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if b"keep-me" not in script[0]:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/x?y=1", got
    finally:
        listening.close()


@dataclass
class Hosts:
    """Many servers that answer and keep the connection, and what they see of it."""

    urls: list[str] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and wait for the end of the connection."""
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"{}")
            writer.write(OK)
            await reader.read()
        self.ended += 1
        writer.close()


@contextlib.asynccontextmanager
async def hosts(count: int) -> AsyncIterator[Hosts]:
    """Listen on this many ports."""
    made = Hosts()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            listening = await asyncio.start_server(made.answer, "127.0.0.1", 0)
            stack.callback(listening.close)
            made.urls.append(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/")
        yield made


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until this is so."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.005)


def traced() -> int:
    """Return how many bytes are allocated now."""
    return tracemalloc.get_traced_memory()[0]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at some places."""
    at = sorted({p % (len(data) + 1) for p in places})
    bounds = [0, *at, len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False) if a < b] or [b""]


def chunked(body: bytes, places: list[int]) -> bytes:
    """Encode a body in chunks."""
    pieces = [piece for piece in cut(body, places) if piece]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


places = st.lists(st.integers(0, 5000), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    body=st.binary(max_size=MAX_BODY),
    places=places,
    form=st.sampled_from(["length", "chunked", "close"]),
)
async def test_any_framing_in_any_pieces_gives_the_body(
    body: bytes, places: list[int], form: str
) -> None:
    head = b"HTTP/1.1 206 Partial\r\nX-Inngest-SDK: a:v1\r\n"
    if form == "length":
        data = head + b"content-length: %d\r\n\r\n" % len(body) + body
    elif form == "chunked":
        data = head + b"transfer-encoding: chunked\r\n\r\n" + chunked(body, places)
    else:
        data = head + b"\r\n" + body
    async with server(cut(data, places)) as (url, got):
        client = http1.Client(max_body=MAX_BODY)
        response = await client.request("POST", url, b"{}", {"a": "b"}, timeout=5)
        client.close()

    assert (response.status, response.headers["x-inngest-sdk"], response.body) == (
        206,
        "a:v1",
        body,
    )
    assert got[0].startswith(b"POST /x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert got[0].endswith(b"content-length: 2\r\n\r\n{}")


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=300),
    places=places,
    prefix=st.sampled_from(
        [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n"]
    ),
)
async def test_garbage_is_an_answer_or_one_of_two_errors(
    data: bytes, places: list[int], prefix: bytes
) -> None:
    async with server(cut(prefix + data, places)) as (url, _):
        client = http1.Client(max_body=MAX_BODY)
        with contextlib.suppress(*KNOWN):
            await client.request("POST", url, b"{}", {}, timeout=5)
        client.close()


async def test_body_over_the_limit_is_cut() -> None:
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
    async with server([data]) as (url, _):
        client = http1.Client(max_body=MAX_BODY)
        response = await client.request("POST", url, b"", {}, timeout=5)

    assert MAX_BODY < len(response.body)


async def test_endless_headers_are_refused() -> None:
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(b"h%d: %b\r\n" % (i, b"v" * 900) for i in range(100))
    async with server([data + b"\r\n"]) as (url, _):
        client = http1.Client(max_body=MAX_BODY)
        with pytest.raises(http1.BrokenReplyError, match="headers exceed"):
            await client.request("POST", url, b"", {}, timeout=5)


async def test_kept_connection_that_was_closed_is_replaced() -> None:
    async with server([OK], [b""], [OK]) as (url, got):
        client = http1.Client(max_body=MAX_BODY)
        for _ in range(2):
            response = await client.request("POST", url, b"{}", {}, timeout=5)
            assert response.body == b"1"
        client.close()

    assert len(got) == 3


async def test_connections_to_many_hosts_are_closed_when_they_have_idled() -> None:
    async with hosts(20) as far:
        client = http1.Client(max_body=MAX_BODY, idle_seconds=0.05)
        for url in far.urls:
            await client.request("POST", url, b"{}", {}, timeout=5)
            assert client.kept
        await eventually(lambda: not client.kept and far.ended == 20)


async def test_connections_that_many_hosts_close_are_forgotten() -> None:
    async with hosts(20) as far:
        client = http1.Client(max_body=MAX_BODY, idle_seconds=60)
        for url in far.urls:
            await client.request("POST", url, b"{}", {}, timeout=5)
        assert client.kept == 20
        for writer in far.writers:
            writer.close()
        await eventually(lambda: not client.kept)


async def test_kept_connection_does_not_hold_its_last_answer() -> None:
    size = 2_000_000
    head = b"HTTP/1.1 200 OK\r\nx: keep-me\r\nlong: %b\r\ncontent-length: %d\r\n\r\n"
    data = head % (b"v" * 60_000, size) + b"x" * size
    async with server([data]) as (url, _):
        client = http1.Client(max_body=size, idle_seconds=60)
        tracemalloc.start()
        try:
            before = traced()
            response = await client.request("POST", url, b"{}", {}, timeout=5)
            assert (len(response.body), client.kept) == (size, 1)
            assert traced() - before > size
            del response
            await eventually(lambda: traced() - before < 50_000)
            assert client.kept
        finally:
            tracemalloc.stop()
            client.close()


async def test_connection_that_brings_a_second_answer_is_not_kept() -> None:
    async with server([OK + b"HTTP/1.1 200 OK\r\nx: y"]) as (url, _):
        client = http1.Client(max_body=MAX_BODY)
        await client.request("POST", url, b"{}", {}, timeout=5)

        assert not client.kept


async def test_connection_closed_without_an_answer_is_not_sent() -> None:
    async with server([b""]) as (url, _):
        client = http1.Client(max_body=MAX_BODY)
        with pytest.raises(http1.NotSentError):
            await client.request("POST", url, b"{}", {}, timeout=5)


async def test_answer_that_ends_in_the_middle_is_broken() -> None:
    async with server([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12"]) as (url, _):
        client = http1.Client(max_body=MAX_BODY)
        with pytest.raises(http1.BrokenReplyError, match="middle"):
            await client.request("POST", url, b"{}", {}, timeout=5)


async def test_informational_answer_is_passed_over() -> None:
    data = b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with server([data]) as (url, _):
        client = http1.Client(max_body=MAX_BODY)
        response = await client.request("POST", url, b"{}", {}, timeout=5)

    assert (response.status, response.body) == (200, b"ok")


@pytest.mark.parametrize(
    "url", ["ftp://x/", "/relative", "http://", "http://a b/", "http://a/\r\nx: y", "http://é/"]
)
async def test_urls_that_cannot_be_called_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        await http1.Client(max_body=1).request("POST", url, b"", {}, timeout=1)


async def test_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        await http1.Client(max_body=1).request(
            "GET", "http://127.0.0.1:9/", b"", {"a": "b\r\nc: d"}, timeout=1
        )
