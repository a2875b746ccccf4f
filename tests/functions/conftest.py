"""Function folders in a lab, in front of a real database and gateway."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support.gateway import running_gateway

from stepbase import Event
from stepbase.sdk.event import from_payload
from stepbase.supabase import client
from stepbase.testing import Lab, load_app

_ROOT = Path(__file__).parents[2] / "functions"

Deliver = Callable[[], Awaitable[list[Event[Any]]]]
"""Takes what the outbox holds, as a relay would; returns the events."""


@pytest.fixture
async def shop(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database behind the functions; what it commits they see."""
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


@pytest.fixture
async def lab(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    """A lab of the app "currency" that calls the SQL functions of the database."""
    with running_gateway(database, size=4) as gateway:
        monkeypatch.setenv("SUPABASE_URL", gateway.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
        async with Lab(load_app(_ROOT / "currency"), real_rpc=True) as lab:
            yield lab
        await client.aclose()


@pytest.fixture
def deliver(shop: asyncpg.Connection) -> Deliver:
    """Take the outbox's events, oldest first."""

    async def take() -> list[Event[Any]]:
        rows = await shop.fetch(
            "select id, payload from stepbase.outbox_take(100, 'relay', $1)", timedelta(minutes=1)
        )
        await shop.execute("select stepbase.outbox_ack($1, 'relay')", [row["id"] for row in rows])
        payloads = [json.loads(row["payload"]) for row in rows]
        return [from_payload(each, each["data"]) for each in payloads]

    return take
