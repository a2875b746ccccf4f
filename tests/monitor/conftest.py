"""Fixtures for tests of monitoring: a project's REST API, and a server other than our engine."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.support import mini_server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.mini_server import Run
from tests.support.sdk_calls import Reply
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, asgi
from stepbase.middleware import monitor
from stepbase.sdk import background, http

Play = Callable[..., Awaitable[Run]]
"""`await play(app, slug, event=…, run_id=…, answers=…)` calls a function until its run has ended."""


@pytest.fixture
async def gateway(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningGateway]:
    """The project's REST API; the functions' host knows it by its variables."""
    monkeypatch.setattr(monitor, "_lines", {})
    with running_gateway(database) as running:
        monkeypatch.setenv("INNGEST_DEV", "1")
        monkeypatch.setenv("SUPABASE_URL", running.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", running.keys.secret)
        yield running
        await http.aclose()
        http.close()
        background.stop()


@pytest.fixture
async def look(database: str, gateway: RunningGateway) -> AsyncIterator[asyncpg.Connection]:
    """A connection to what was reported."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
def play(gateway: RunningGateway) -> Play:
    """Be the server of a run, as Inngest would be."""

    async def finish(app: App, slug: str, event: Any = None, **options: Any) -> Run:
        ask = ask_asgi(asgi(app))

        async def post(query: str, body: bytes) -> Reply:
            return await ask("POST", query=query, body=body)

        return await mini_server.finish(post, slug, event, **options)

    return finish
