"""Apps named on the command line are asked to register, at start and again; what has changed is noticed."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.stub_host import StubHost

from stepbase.cli.main import main


class RegisteringApp:
    """Registers what the test says when it is asked to, with the engine it is told of."""

    def __init__(self) -> None:
        self.registration: dict[str, object] = {}
        self.engine: str | None = None
        self.answers: list[dict[str, Any]] = []
        self.url = ""
        self.turned_away = asyncio.Event()
        self._answered = asyncio.Condition()

    async def put(self, request: web.Request) -> web.Response:
        """Answer the engine's question."""
        if self.engine is None:
            self.turned_away.set()
            return web.json_response({"error": "no engine yet"}, status=500)
        async with aiohttp.ClientSession() as session:
            target = f"{self.engine}/fn/register"
            try:
                async with session.post(target, json=self.registration) as response:
                    answer = await response.json()
            except aiohttp.ClientError:  # it is being stopped
                return web.json_response({}, status=500)
        async with self._answered:
            self.answers.append(answer)
            self._answered.notify_all()
        return web.json_response(answer, status=response.status)

    async def answered(self, count: int) -> None:
        """Wait until it has registered so many times."""
        async with asyncio.timeout(20), self._answered:
            await self._answered.wait_for(lambda: len(self.answers) >= count)


@pytest.fixture
async def registering() -> AsyncIterator[RegisteringApp]:
    app, site = RegisteringApp(), web.Application()
    site.router.add_put("/api/inngest", app.put)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    app.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/inngest"
    yield app
    await runner.cleanup()


async def test_an_app_is_synced_when_it_answers_and_when_it_has_changed(
    start_engine: StartEngine,
    registering: RegisteringApp,
    host: StubHost,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "stepbase.engine.discovery")
    connection = await connect()
    first, second = host.function("app-f"), host.function("app-g", triggers=[{"cron": "0 0 1 1 *"}])
    registering.registration = host.registration(first, second)
    settings = {"sdk_urls": (registering.url, registering.url), "poll_seconds": 0.05}
    async with start_engine(**settings) as (client, _):
        await registering.turned_away.wait()
        registering.engine = client.url
        await registering.answered(3)
        assert [each["modified"] for each in registering.answers[:3]] == [True, False, False]

        registering.registration = host.registration(first)
        seen = len(registering.answers)
        await registering.answered(seen + 2)

    assert sum(each["modified"] for each in registering.answers) == 2
    rows = await connection.fetch("select slug, archived_at from stepbase.functions order by slug")
    assert [(r["slug"], r["archived_at"] is None) for r in rows] == [
        ("app-f", True),
        ("app-g", False),
    ]
    assert await connection.fetchval("select count(*) from stepbase.crons") == 0
    # However often it is asked, that it does not answer is said once, perhaps again when all ends.
    said = [r.message for r in caplog.records if r.name == "stepbase.engine.discovery"]
    assert said[:2] == ["app not synced", "app answers again"]
    assert len(said) <= 3


async def test_without_polling_an_app_is_synced_once(
    start_engine: StartEngine, registering: RegisteringApp, host: StubHost
) -> None:
    registering.registration = host.registration(host.function("app-f"))
    other = host.url  # answers 405
    urls = (registering.url, other)
    async with start_engine(sdk_urls=urls, poll_seconds=0) as (client, engine):
        registering.engine = client.url
        await registering.answered(1)
        assert await client.send({"name": "none"})
        assert engine.failure is not None and not engine.failure.done()

    assert len(registering.answers) == 1


def test_a_url_that_is_none_is_refused_at_start() -> None:
    done = CliRunner().invoke(main, ["engine", "--database-url", "x", "-u", "localhost:8000"])

    assert done.exit_code == 2
    assert "expected an absolute http(s) URL, got 'localhost:8000'" in done.output
