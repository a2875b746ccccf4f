"""Keep-alive replies: real hosts answer by streams, the engine reads what is in them."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.engine.conftest import StartEngine
from tests.support.real_hosts import SERVED, serving_asgi
from tests.support.sdk_calls import call_body

from stepbase import App, NonRetriableError, Step, StepError, SyncStep, asgi, clock
from stepbase.protocol import signing
from stepbase.sdk import background, http, streaming

KEY = "signkey-test-" + "ab" * 16
app = App("streams")
failed: set[str] = set()


def slow(kind: str) -> str:
    """Fail once, then take a while."""
    if kind not in failed:
        failed.add(kind)
        raise ValueError("not yet")
    time.sleep(0.1)
    return "slow"


def refuse() -> str:
    raise NonRetriableError("never")


@app.function("async", on="streams/async")
async def afunction(step: Step) -> list[str]:
    first = await step.run("first", lambda: slow("async"))
    try:
        return [first, await step.run("second", refuse)]
    except StepError as error:
        return [first, error.message]


@app.function("sync", on="streams/sync")
def function(step: SyncStep) -> list[str]:
    first = step.run("first", lambda: slow("sync"))
    try:
        return [first, step.run("second", refuse)]
    except StepError as error:
        return [first, error.message]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spaces often, and every function's first attempt fails anew."""
    monkeypatch.setattr(streaming, "PAUSE_SECONDS", 0.02)
    failed.clear()
    yield
    background.stop()
    http.close()


@pytest.fixture(params=SERVED)
async def origin(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Where the app is served, in cloud mode and by streams."""
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    with SERVED[request.param](app, tmp_path, True) as origin:
        monkeypatch.setenv("INNGEST_SERVE_ORIGIN", origin)
        monkeypatch.setenv("INNGEST_SERVE_PATH", "/api/inngest")
        yield origin


async def test_the_engine_reads_what_is_in_the_stream(
    origin: str, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_engine(KEY, signing_keys=(KEY,), event_keys=("test",)) as (client, _):
        monkeypatch.setenv("INNGEST_BASE_URL", client.url)
        async with httpx.AsyncClient() as web:
            synced = await web.put(f"{origin}/api/inngest")
        assert (synced.status_code, synced.json()["ok"]) == (200, True)
        sent = await client.send({"name": "streams/async"}, {"name": "streams/sync"})
        runs = [await client.result(each) for each in sent]

    assert [(run["status"], run["output"]) for run in runs] == [
        ("Completed", ["slow", "never"]),
        ("Completed", ["slow", "never"]),
    ]


def signed(body: bytes) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "x-inngest-signature": signing.sign(body, KEY, clock.now_s()),
    }


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_stream_is_spaces_and_then_a_signed_response(origin: str, kind: str) -> None:
    failed.add(kind)
    body = call_body()

    async with httpx.AsyncClient() as web:
        answer = await web.post(
            f"{origin}/api/inngest?fnId=streams-{kind}&stepId=step",
            content=body,
            headers=signed(body),
        )

    assert answer.status_code == 201
    assert answer.headers["x-inngest-sdk"].startswith("stepbase")
    assert "x-inngest-signature" not in answer.headers
    assert answer.content.startswith(b"  ")
    inside = json.loads(answer.content)
    assert inside["status"] == 206
    assert json.loads(inside["body"])[0]["data"] == "slow"
    given = inside["headers"]["x-inngest-signature"]
    assert signing.verify(given, inside["body"].encode(), [KEY], clock.now_s()) == KEY


async def test_what_is_no_call_of_a_function_is_answered_at_once(origin: str) -> None:
    body = call_body()

    async with httpx.AsyncClient() as web:
        described = await web.get(f"{origin}/api/inngest")
        unsigned = await web.post(f"{origin}/api/inngest?fnId=streams-sync", content=body)
        probed = await web.post(f"{origin}/api/inngest?probe=trust", headers=signed(b""))
        unknown = await web.post(
            f"{origin}/api/inngest?fnId=streams-none", content=body, headers=signed(body)
        )

    assert [each.status_code for each in (described, unsigned, probed, unknown)] == [
        200,
        401,
        200,
        500,
    ]


def gated(started: threading.Event, go: threading.Event, ended: threading.Event) -> App:
    """Return an app whose step waits, and tells when it has ended."""
    waiting = App("waits")

    def work() -> str:
        started.set()
        assert go.wait(10)
        ended.set()
        return "done"

    @waiting.function("async", on="a/b")
    async def afunction(step: Step) -> str:
        return await step.run("work", lambda: asyncio.to_thread(work))

    @waiting.function("sync", on="a/b")
    def function(step: SyncStep) -> str:
        return step.run("work", work)

    return waiting


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("host", SERVED)
async def test_a_client_that_goes_away_ends_nothing(
    host: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    started, go, ended = threading.Event(), threading.Event(), threading.Event()
    body = call_body()
    query = f"fnId=waits-{kind}&stepId=step"
    with SERVED[host](gated(started, go, ended), tmp_path, True) as origin:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(origin).port)
        head = f"POST /?{query} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        assert b" 201 " in await reader.readline()
        assert await asyncio.to_thread(started.wait, 10)
        writer.transport.abort()
        go.set()
        assert await asyncio.to_thread(ended.wait, 10)

        async with httpx.AsyncClient() as web:
            again = await web.post(f"{origin}/?{query}", content=body)

    assert json.loads(again.json()["body"])[0]["data"] == "done"
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_a_host_that_is_cancelled_takes_the_call_with_it() -> None:
    ended: list[str] = []

    async def work() -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    chunks = streaming.akeep_alive(work())
    assert await anext(chunks) == b" "
    assert await anext(chunks) == b" "
    await chunks.aclose()
    await asyncio.sleep(0)

    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("variable", "option", "status"),
    [
        ("force", None, 201),
        ("allow", None, 201),
        ("true", None, 201),
        ("false", None, 200),
        ("", None, 200),
        ("", True, 201),
        ("force", False, 200),
    ],
)
async def test_the_option_decides_before_the_variable(
    variable: str, option: bool | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("INNGEST_STREAMING", variable)
    quick_app = App("quick")

    @quick_app.function("f", on="a/b")
    async def f() -> int:
        return 7

    with serving_asgi(asgi(quick_app, streaming=option)) as origin:
        async with httpx.AsyncClient() as web:
            answer = await web.post(f"{origin}/?fnId=quick-f&stepId=step", content=call_body())

    assert answer.status_code == status
    assert answer.json() == 7 if status == 200 else json.loads(answer.json()["body"]) == 7
