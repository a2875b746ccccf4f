"""Fixtures for tests against a real engine: its own database, HTTP on a free port, a stub host."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import aiohttp
import asyncpg
import httpx
import pytest
from tests.support.engine_client import EngineClient
from tests.support.engine_sql import Hands
from tests.support.real_hosts import serving_asgi
from tests.support.stub_host import StubHost

from stepbase import App, asgi
from stepbase.engine.app import Engine
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.sdk import background, http

StartEngine = Callable[..., AbstractAsyncContextManager[tuple[EngineClient, Engine]]]


@pytest.fixture
async def host() -> AsyncIterator[StubHost]:
    """A function host that answers as the test says."""
    stub = StubHost()
    await stub.start()
    yield stub
    await stub.stop()


@pytest.fixture
def start_engine(database: str) -> StartEngine:
    """Start engines on the test's database: `async with start_engine(lease=…) as (client, engine)`."""

    @asynccontextmanager
    async def start(
        token: str | None = None, **changes: object
    ) -> AsyncIterator[tuple[EngineClient, Engine]]:
        settings = Settings(
            database_url=database,
            port=0,
            retry_interval=0.05,
            lease=timedelta(seconds=5),
            sweep_seconds=0.5,
        )
        settings = replace(settings, **changes)  # type: ignore[arg-type]  # checked by Settings itself
        async with (
            serving(settings) as (engine, port, _),
            aiohttp.ClientSession() as session,
        ):
            yield EngineClient(session, f"http://127.0.0.1:{port}", token), engine

    return start


@pytest.fixture
async def client(start_engine: StartEngine) -> AsyncIterator[EngineClient]:
    """A client of one engine with quick retries."""
    async with start_engine() as (client, _):
        yield client


@pytest.fixture
async def hands(db: asyncpg.Connection) -> Hands:
    """Engine A's SQL functions at noon, in a transaction that is rolled back."""
    hands = Hands(db)
    await hands.at(0)
    return hands


@asynccontextmanager
async def serving_app(
    app: App, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> AsyncIterator[EngineClient]:
    """Run an engine, and an app that is served and synced with it; yields a client of the engine."""
    async with start_engine(**settings) as (client, _):
        monkeypatch.setenv("INNGEST_DEV", client.url)
        with serving_asgi(asgi(app)) as origin:
            async with httpx.AsyncClient() as web:
                synced = await web.put(f"{origin}/api/inngest")
            assert (synced.status_code, synced.json()["ok"]) == (200, True)
            yield client
    background.stop()
    http.close()
