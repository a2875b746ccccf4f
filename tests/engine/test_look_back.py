"""Waits that look back, of our own SDK through a real engine, in both kinds of handlers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.engine.conftest import StartEngine, serving_app
from tests.support.engine_client import EngineClient

from stepbase import App, EngineOptions, Event, EventData, Step, SyncStep

app = App("looks")


class Go(EventData, name="looks/go"):
    n: int
    word: str


def sent(data: dict[str, Any]) -> list[Go]:
    """What is sent before the waits begin, the oldest first."""
    return [Go(n=data["n"] + 1, word="other"), *(Go(n=data["n"], word=word) for word in "abc")]


@app.function("async", on="looks/start.async")
async def handler(event: Event[dict[str, Any]], step: Step) -> list[str | None]:
    for n, each in enumerate(sent(event.data)):
        await step.send_event(f"send-{n}", each)
    first = await step.wait_for_event("first", Go, match="data.n", timeout="1m", look_back="1m")
    last = await step.wait_for_event(
        "last",
        Go,
        if_="async.data.n == event.data.n && async.data.word > 'b'",
        timeout="1m",
        look_back="1m",
    )
    none = await step.wait_for_event("none", Go, match="data.n", timeout="1s")
    return [None if found is None else found.data.word for found in (first, last, none)]


@app.function("sync", on="looks/start.sync", engine=EngineOptions(look_back="1m"))
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> list[str | None]:
    for n, each in enumerate(sent(event.data)):
        step.send_event(f"send-{n}", each)
    first = step.wait_for_event("first", Go, match="data.n", timeout="1m")
    condition = "async.data.n == event.data.n && async.data.word > 'b'"
    last = step.wait_for_event("last", Go, if_=condition, timeout="1m")
    none = step.wait_for_event("none", Go, if_="async.data.word == 'z'", timeout="1s")
    return [None if found is None else found.data.word for found in (first, last, none)]


@pytest.fixture
async def engine(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EngineClient]:
    """An engine that has synced the app above."""
    async with serving_app(app, start_engine, monkeypatch) as client:
        yield client


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_events_that_came_before_end_waits_once_each(engine: EngineClient, kind: str) -> None:
    [event_id] = await engine.send({"name": f"looks/start.{kind}", "data": {"n": 7}})

    run = await engine.result(event_id)

    assert (run["status"], run["output"]) == ("Completed", ["a", "c", None])
