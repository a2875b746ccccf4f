"""Fixtures for tests against a real engine: its own database, HTTP on a free port, a stub host."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import aiohttp
import asyncpg
import pytest
from tests.support.engine_client import EngineClient
from tests.support.engine_sql import Hands
from tests.support.stub_host import StubHost

from stepbase.engine.app import Engine
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings

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
