"""Function folders called as a server calls them, in front of a real database and gateway."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from tests.support import mini_server
from tests.support.gateway import running_gateway
from tests.support.mini_server import Run
from tests.support.sdk_calls import Reply
from tests.support.sdk_hosts import ask_asgi

from stepbase import asgi
from stepbase.local import folders
from stepbase.sdk import background, http
from stepbase.supabase import client

_ROOT = Path(__file__).parents[2] / "functions"

Drive = Callable[..., Awaitable[Run]]
"""`await drive("currency-award", event, run_id=…)` calls a function until its run has ended."""

Deliver = Callable[[], Awaitable[list[dict[str, object]]]]
"""Takes what the outbox holds, as a relay would; returns the events."""


@pytest.fixture
async def shop(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database behind the functions; what it commits they see."""
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


@pytest.fixture
async def drive(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Drive]:
    """Run functions of the app "currency" to their end."""
    with running_gateway(database, size=4) as gateway:
        monkeypatch.setenv("INNGEST_DEV", "1")
        monkeypatch.setenv("SUPABASE_URL", gateway.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
        app = folders.load(_ROOT / "currency").app
        ask = ask_asgi(asgi(app))  # type: ignore[arg-type]  # a folder's app is an object to its loader

        async def post(query: str, body: bytes) -> Reply:
            return await ask("POST", query=query, body=body)

        async def finish(slug: str, event: object, **options: object) -> Run:
            return await mini_server.finish(post, slug, event, **options)  # type: ignore[arg-type]  # passed through

        yield finish
        await http.aclose()
        http.close()
        background.stop()
        await client.aclose()
        client.close()


@pytest.fixture
def deliver(shop: asyncpg.Connection) -> Deliver:
    """Take the outbox's events, oldest first."""

    async def take() -> list[dict[str, object]]:
        rows = await shop.fetch(
            "select id, payload from stepbase.outbox_take(100, 'relay', $1)", timedelta(minutes=1)
        )
        await shop.execute("select stepbase.outbox_ack($1, 'relay')", [row["id"] for row in rows])
        return [{"user": {}, **json.loads(row["payload"])} for row in rows]

    return take
