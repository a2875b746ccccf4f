"""app.send and app.send_sync over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.fake_api import FakeApi, Received, fake_api

from stepbase import App, Event, SendError
from stepbase.sdk import http

app = App("sender")


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApi]:
    with fake_api() as running:
        monkeypatch.setenv("INNGEST_DEV", running.url)
        yield running
        await http.aclose()
        http.close()


async def send(kind: str, event: Any) -> list[str]:
    if kind == "async":
        return await app.send(event)
    return await asyncio.to_thread(app.send_sync, event)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_failed_try_is_repeated_with_the_same_seed(api: FakeApi, kind: str) -> None:
    def answer(_: Received) -> tuple[int, object]:
        return (503, {}) if len(api.received) == 1 else (200, {"ids": ["01A"], "status": 200})

    api.answer = answer

    assert await send(kind, Event("a/b", {"n": 1})) == ["01A"]

    first, second = api.received
    assert first.content == second.content
    seed = "x-inngest-event-id-seed"
    assert first.headers[seed] == second.headers[seed]
    assert first.path == "/e/NO_EVENT_KEY_SET"


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_server_that_is_away_is_an_error_that_says_where(
    api: FakeApi, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepbase.sdk.ask.FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setenv("INNGEST_DEV", "http://127.0.0.1:1")

    with pytest.raises(SendError, match=r"no answer from http://127\.0\.0\.1:1/e/"):
        await send(kind, [Event("a/b")])
