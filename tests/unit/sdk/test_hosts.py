"""Hosts turn requests into ours and back, and nothing else."""

import asyncio
import io
import types
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from tests.support.sdk_calls import call_body
from tests.support.sdk_hosts import HOSTS, open_host

from stepbase import App, Event, asgi, serve, wsgi
from stepbase.protocol import names
from stepbase.sdk import background

MOST = names.MAX_REQUEST_BYTES

app = App("hosted")


@app.function("f", on="a/b")
async def f(event: Event[dict[str, Any]]) -> str:
    return event.name


def scope(**fields: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/x",
        "query_string": b"fnId=hosted-f&stepId=step",
        "headers": [(b"Host", b"h"), (b"X-Odd", b"caf\xe9")],
        **fields,
    }


async def ask(
    messages: list[dict[str, Any]], given: dict[str, Any]
) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await asgi(app)(given, receive, send)
    return sent


async def test_a_body_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    body = call_body()
    pieces: list[dict[str, Any]] = [
        {"type": "http.request", "body": body[:10], "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": body[10:]},
    ]

    start, answer = await ask(pieces, scope())

    assert (start["status"], answer["body"]) == (200, b'"case/start"')
    assert (b"content-length", b"12") in start["headers"]


async def test_a_client_that_goes_away_leaves_half_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    start, _ = await ask(
        [
            {"type": "http.request", "body": b'{"ctx":', "more_body": True},
            {"type": "http.disconnect"},
        ],
        scope(),
    )

    assert start["status"] == 400


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"headers": [(b"host", b"h:1")]}, "http://h:1/x"),
        ({"headers": [], "server": ("10.0.0.1", 80)}, "http://10.0.0.1:80/x"),
        ({"headers": [], "server": ("/run/sock", None)}, "http:///run/sock/x"),
        ({"headers": []}, "http://127.0.0.1/x"),
        ({"headers": [(b"host", b"h")], "scheme": "https", "root_path": "/r"}, "https://h/r/x"),
        ({"headers": [(b"host", b"h")], "root_path": "/r", "path": "/r/x"}, "http://h/r/x"),
    ],
)
def test_the_url_is_as_the_host_saw_it(fields: dict[str, Any], url: str) -> None:
    from stepbase.hosts.asgi import to_request

    assert to_request(scope(**fields), b"").url == url


async def test_the_lifespan_is_followed() -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    sent = await ask(messages, {"type": "lifespan"})

    assert [each["type"] for each in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_only_http_is_answered() -> None:
    with pytest.raises(RuntimeError, match="answers HTTP, not websocket"):
        await ask([], {"type": "websocket"})


def test_the_target_is_a_plain_function_that_carries_its_app() -> None:
    main = serve(app)

    assert isinstance(main, types.FunctionType)
    assert main.__name__ == "main"
    assert main.app is app
    assert asgi(app).app is app


@pytest.mark.parametrize("host", HOSTS)
async def test_every_path_and_method_reaches_the_app(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    ask_host = open_host(host, app, tmp_path)

    for path in ("/", "/api/inngest", "/a/b"):
        described = await ask_host("GET", path=path)
        called = await ask_host(
            "POST", path=path, query="fnId=hosted-f&stepId=step", body=call_body()
        )
        assert (described.status, described.body["function_count"]) == (200, 1)
        assert (called.status, called.body) == (200, "case/start")
    background.stop()


def test_async_handlers_share_one_background_loop() -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first, second = background.run(loop()), background.run(loop())
    background.stop()
    third = background.run(loop())
    background.stop()
    background.stop()

    assert first is second is not third
    assert first.is_closed() and third.is_closed()


@pytest.mark.parametrize("host", HOSTS)
async def test_a_request_that_is_too_large_is_refused(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    reach = open_host(host, app, tmp_path)

    refused = await reach("POST", query="fnId=hosted-f&stepId=step", body=b" " * (MOST + 1))
    taken = await reach("POST", query="fnId=hosted-f&stepId=step", body=call_body().ljust(MOST))

    assert (refused.status, refused.body["code"]) == (413, "body_too_large")
    assert (taken.status, taken.body) == (200, "case/start")


async def test_a_body_without_end_is_read_no_further_than_it_may_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", "ab" * 16)  # nobody has to have a key to send one
    read = []
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        read.append(1024 * 1024)
        return {"type": "http.request", "body": b" " * read[-1], "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await asgi(app)(scope(), receive, send)

    assert sent[0]["status"] == 413 and sum(read) <= MOST + 1024 * 1024


def test_a_stream_without_end_is_read_no_further_than_it_may_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", "ab" * 16)
    read = []
    started: list[str] = []

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            assert 0 <= size <= MOST + 1
            read.append(min(size, 1024 * 1024))
            return b" " * read[-1]

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"REQUEST_METHOD": "POST", "wsgi.input": Endless(), "wsgi.input_terminated": True}

    def start_response(status: str, headers: object, _: object = None) -> Any:
        started.append(status)

    list(wsgi(app)(environ, start_response))

    assert started[0].startswith("413") and sum(read) == MOST + 1
