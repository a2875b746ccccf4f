"""Syncs in band: an engine with keys takes an app's functions from the answer, if that is signed."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from tests.conftest import Connect
from tests.engine.conftest import StartEngine

from stepbase.protocol import signing
from stepbase.protocol.jsontext import dumps_bytes

KEY = "signkey-test-" + "0123456789abcdef" * 2
OTHER = "signkey-test-" + "fedcba9876543210" * 2
IN_BAND = {"x-inngest-sync-kind": "in_band"}


@dataclass
class AnsweringApp:
    """Answers syncs with what the test says, and keeps their headers."""

    url: str = ""
    body: object = None
    key: str | None = KEY
    headers: dict[str, str] = field(default_factory=lambda: dict(IN_BAND))
    asked: list[dict[str, str]] = field(default_factory=list)

    async def put(self, request: web.Request) -> web.Response:
        """Answer the engine."""
        self.asked.append({name.lower(): value for name, value in request.headers.items()})
        body, headers = dumps_bytes(self.body), dict(self.headers)
        if self.key is not None:
            headers["x-inngest-signature"] = signing.sign(body, self.key, int(time.time()))
        return web.Response(body=body, headers=headers)

    def functions(self, *slugs: str) -> dict[str, Any]:
        """Return the answer that has these functions."""
        return {
            "app_id": "app",
            "framework": "stub",
            "sdk_language": "py",
            "sdk_version": "1.2.3",
            "url": self.url,
            "functions": [
                {
                    "id": slug,
                    "name": slug,
                    "triggers": [{"event": slug}],
                    "steps": {
                        "step": {
                            "id": "step",
                            "name": "step",
                            "runtime": {
                                "type": "http",
                                "url": f"{self.url}?fnId={slug}&stepId=step",
                            },
                        }
                    },
                }
                for slug in slugs
            ],
        }


@pytest.fixture
async def app() -> AsyncIterator[AnsweringApp]:
    app, site = AnsweringApp(), web.Application()
    site.router.add_put("/api/inngest", app.put)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    app.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/inngest"
    app.body = app.functions("app-f", "app-g")
    yield app
    await runner.cleanup()


async def test_functions_in_a_signed_answer_are_stored(
    start_engine: StartEngine, app: AnsweringApp, connect: Connect
) -> None:
    async with start_engine(token=KEY, signing_keys=(KEY,)) as (client, _):
        answers = [await client.request("PUT", "/fn/sync", {"url": app.url}) for _ in range(2)]

    assert [(status, answer["modified"]) for status, answer in answers] == [
        (200, True),
        (200, False),
    ]
    assert app.asked[0]["x-inngest-sync-kind"] == "in_band"
    db = await connect()
    [row] = await db.fetch("select name, url, sdk from stepbase.apps")
    assert tuple(row) == ("app", app.url, "py:v1.2.3")
    rows = await db.fetch("select slug from stepbase.functions order by slug")
    assert [row["slug"] for row in rows] == ["app-f", "app-g"]


@pytest.mark.parametrize("key", [None, OTHER])
async def test_functions_in_an_answer_of_somebody_else_are_refused(
    start_engine: StartEngine, app: AnsweringApp, connect: Connect, key: str | None
) -> None:
    app.key = key
    async with start_engine(token=KEY, signing_keys=(KEY,)) as (client, _):
        status, answer = await client.request("PUT", "/fn/sync", {"url": app.url})

    assert status == 401
    assert "not with this engine's signature" in answer["error"]
    assert await (await connect()).fetch("select 1 from stepbase.apps") == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("no object", "expected a JSON object"),
        ({"url": "http://a.example"}, "App ID required"),
        ({"app_id": "a", "url": "http://a.example", "functions": [{}]}, "id"),
    ],
)
async def test_functions_that_are_none_are_refused(
    start_engine: StartEngine, app: AnsweringApp, body: object, message: str
) -> None:
    app.body = body
    async with start_engine(token=KEY, signing_keys=(KEY,)) as (client, _):
        status, answer = await client.request("PUT", "/fn/sync", {"url": app.url})

    assert status == 400
    assert message in answer["error"]


async def test_an_engine_without_keys_asks_for_a_registration(
    start_engine: StartEngine, app: AnsweringApp
) -> None:
    app.headers, app.body = {}, {"message": "registered elsewhere"}
    async with start_engine() as (client, _):
        answer = await client.request("PUT", "/fn/sync", {"url": app.url})

    assert answer == (200, {"message": "registered elsewhere"})
    assert "x-inngest-sync-kind" not in app.asked[0]


@pytest.mark.parametrize("key", [None, KEY])
async def test_functions_that_an_engine_without_keys_did_not_ask_for_are_not_stored(
    start_engine: StartEngine, app: AnsweringApp, connect: Connect, key: str | None
) -> None:
    app.key = key
    async with start_engine() as (client, _):
        answer = await client.request("PUT", "/fn/sync", {"url": app.url})

    assert answer == (200, app.body)
    assert await (await connect()).fetch("select 1 from stepbase.apps") == []


async def test_apps_an_engine_was_told_of_are_asked_in_band(
    start_engine: StartEngine, app: AnsweringApp
) -> None:
    settings: dict[str, Any] = {"sdk_urls": (app.url,), "poll_seconds": 0.05}
    async with start_engine(signing_keys=(KEY,), **settings) as (_, engine):
        async with asyncio.timeout(20):
            while "app-f" not in engine.registry.functions.by_slug:
                await asyncio.sleep(0.01)
