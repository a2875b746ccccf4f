"""`step.fetch` and `step.ai` of our own SDK through a real engine, and where it refuses to go."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine, serving_app
from tests.support.engine_client import EngineClient
from tests.support.raw_http import Asked, RawServer, raw_server, response

from stepbase import App, Event, Step, StepError, SyncStep

KEY = "sk-very-secret"
app = App("asking")


@app.function("fetch-async", on="asking/fetch.async", retries=1)
async def fetch_async(event: Event[dict[str, Any]], step: Step) -> Any:
    answer = await step.fetch("f", event.data["url"], method="POST", json={"n": 1})
    return [answer.status, answer.headers["x-t"], answer.json()]


@app.function("fetch-sync", on="asking/fetch.sync", retries=1)
def fetch_sync(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    answer = step.fetch("f", event.data["url"], method="POST", json={"n": 1})
    return [answer.status, answer.headers["x-t"], answer.json()]


@app.function("ask", on="asking/ask", retries=1)
async def ask(event: Event[dict[str, Any]], step: Step) -> Any:
    try:
        return await step.ai.infer(
            "a", format="anthropic", url=event.data["url"], auth_key=KEY, model="m", body={}
        )
    except StepError as error:
        return error.message


@app.function("group", on="asking/group", retries=1)
async def group(event: Event[dict[str, Any]], step: Step) -> Any:
    async def double() -> int:
        return 4

    url = event.data["url"]
    first, second, third = await asyncio.gather(
        step.fetch("one", url), step.run("two", double), step.fetch("three", url)
    )
    return [first.body, second, third.body]


@app.function("beside", on="asking/beside", retries=20)
async def beside(event: Event[dict[str, Any]], step: Step) -> Any:
    async def mark() -> str:
        MARKS.append("x")
        return "marked"

    answer, marked = await asyncio.gather(
        step.fetch("one", event.data["url"]), step.run("mark", mark)
    )
    return [answer.body, marked]


MARKS: list[str] = []


@app.function("race", on="asking/race", retries=1)
async def race(event: Event[dict[str, Any]], step: Step) -> Any:
    answer = await step.race(
        step.fetch("one", event.data["url"]), step.wait_for_event("never", "none", timeout="1h")
    )
    assert answer is not None and not isinstance(answer, Event)
    return answer.body


def synced(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AbstractAsyncContextManager[EngineClient]:
    """An engine that has synced the app above."""
    return serving_app(app, start_engine, monkeypatch, **settings)


def reply(asked: Asked) -> bytes | None:
    """Answer, or redirect to the rest of the path."""
    if asked.path.startswith("/redirect"):
        return response(307, "", f"location: {asked.path.removeprefix('/redirect')}")
    return response(200, '{"ok": true}', "x-t: 1")


@pytest.fixture
async def web() -> AsyncIterator[RawServer]:
    async with raw_server(reply) as server:
        yield server


async def result(client: EngineClient, name: str, url: str) -> Any:
    [event_id] = await client.send({"name": f"asking/{name}", "data": {"url": url}})
    run = await client.result(event_id)
    return run["output"]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_the_engine_fetches_for_a_handler(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, web: RawServer, kind: str
) -> None:
    async with synced(start_engine, monkeypatch) as client:
        assert await result(client, f"fetch.{kind}", f"{web.url}/x?y=1") == [200, "1", {"ok": True}]
        redirected = await result(client, f"fetch.{kind}", f"{web.url}/redirect/x")

    assert redirected == [200, "1", {"ok": True}]
    assert [(a.method, a.path, a.body) for a in web.asked] == [
        ("POST", path, b'{"n":1}') for path in ("/x?y=1", "/redirect/x", "/x")
    ]


async def test_requests_of_a_group_stand_beside_its_steps(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, web: RawServer
) -> None:
    async with synced(start_engine, monkeypatch) as client:
        output = await result(client, "group", web.url)

    assert output == ['{"ok": true}', 4, '{"ok": true}']
    assert len(web.asked) == 2


async def test_a_request_that_wins_a_race_ends_it(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, web: RawServer, connect: Connect
) -> None:
    async with synced(start_engine, monkeypatch) as client:
        assert await result(client, "race", web.url) == '{"ok": true}'

    assert len(web.asked) == 1
    steps = await (await connect()).fetch("select name, status from stepbase.steps order by name")
    assert [tuple(each) for each in steps] == [("never", "cancelled"), ("one", "done")]


async def test_a_request_holds_up_nothing_beside_it(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, web: RawServer
) -> None:
    MARKS.clear()
    async with raw_server(lambda _: response(200 if MARKS else 500, "late")) as web:
        async with synced(start_engine, monkeypatch, retry_interval=0.2) as client:
            output = await result(client, "beside", web.url)

    assert (output, MARKS) == (["late", "marked"], ["x"])


async def test_a_model_is_asked_again_and_its_key_is_kept_nowhere(
    start_engine: StartEngine,
    monkeypatch: pytest.MonkeyPatch,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = [response(500, '{"error": "busy"}'), response(503, "gone")]
    connection = await connect()
    caplog.set_level(logging.DEBUG)
    async with raw_server(lambda _: answers.pop(0)) as web:
        async with synced(start_engine, monkeypatch) as client:
            failed = await result(client, "ask", web.url)
            answers[:] = [response(500, "{}"), response(200, '{"content": "hi"}')]
            asked = await result(client, "ask", web.url)

    assert failed == "Error making AI request: unsuccessful status code: 503"
    assert asked == {"content": "hi"}
    assert [each.headers["x-api-key"] for each in web.asked] == [KEY] * len(web.asked)
    assert json.loads(web.asked[0].body) == {"model": "m"}
    assert KEY not in caplog.text
    for table in ("steps", "attempts", "runs", "queue", "events"):
        rows = await connection.fetch(f"select t::text as row from stepbase.{table} t")
        assert KEY not in " ".join(row["row"] for row in rows)


async def test_private_addresses_can_be_forbidden(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, web: RawServer
) -> None:
    async with synced(start_engine, monkeypatch, private_requests=False) as client:
        refused = await result(client, "ask", web.url)

    assert "127.0.0.1 is not on the public internet" in refused
    assert web.asked == []


def test_keys_forbid_private_addresses_unless_told_otherwise() -> None:
    from stepbase.engine.settings import Settings

    assert Settings("x").may_request_private
    assert not Settings("x", signing_keys=("ab",)).may_request_private
    assert Settings("x", signing_keys=("ab",), private_requests=True).may_request_private
