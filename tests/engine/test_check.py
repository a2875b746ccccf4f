"""`stepbase engine check`: a set-up that works, and each way in which one does not."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from aiohttp import web
from click.testing import CliRunner
from tests.conftest import Connect, migration_files
from tests.support.server import Server

from stepbase import clock
from stepbase.cli.main import main
from stepbase.database import session
from stepbase.engine.app import running
from stepbase.engine.check import State, check
from stepbase.engine.settings import Settings
from stepbase.errors import StoreError
from stepbase.local import migrate
from stepbase.local.postgres import Cluster

KEY, OTHER = "ab" * 16, "cd" * 16


async def found(dsn: str, **settings: Any) -> dict[str, tuple[str, str]]:
    """Check, and return state and text by what was looked at."""
    findings = await check(Settings(database_url=dsn, **settings))
    return {each.what: (each.state.value, each.text) for each in findings}


class FakeApp:
    """An app that says of itself what a test says."""

    def __init__(self) -> None:
        self.status, self.about = 200, {"function_count": 1, "mode": "dev"}
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        return web.json_response(self.about, status=self.status)


@pytest.fixture
async def app(database: str) -> AsyncIterator[FakeApp]:
    """An app with one function and its failure handler, registered."""
    fake = FakeApp()
    site = web.Application()
    site.router.add_get("/api/inngest", fake.answer)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/inngest"
    connection = await asyncpg.connect(database)
    await connection.execute(
        "with app as (insert into stepbase.apps (app_id, name, url, checksum, synced_at)"
        f"   values (gen_random_uuid(), 'shop', '{fake.url}', 'c', now()) returning app_id)"
        " insert into stepbase.functions (function_id, app_id, slug, name, config)"
        "   select gen_random_uuid(), app.app_id, slug, slug, '{}'"
        "     from app, unnest(array['shop-f', 'shop-f-failure']) as slug"
    )
    await connection.close()
    yield fake
    await runner.cleanup()


async def test_a_set_up_that_works(database: str, app: FakeApp) -> None:
    seen = await found(database)

    assert {what: state for what, (state, _) in seen.items()} == {
        "keys": "warning",
        "database": "ok",
        "session": "ok",
        "clock": "ok",
        "schema": "ok",
        "rights": "ok",
        "app shop": "ok",
    }
    assert seen["app shop"][1] == f"{app.url}: 1 function"


def test_the_command_says_it_in_lines_or_json(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)

    fine = CliRunner().invoke(main, ["engine", "check"])
    assert fine.exit_code == 0, fine.output
    assert "warning  apps: none is registered" in fine.output
    broken = CliRunner().invoke(
        main, ["engine", "check", "--json", "--database-url", "postgresql://127.0.0.1:1/x"]
    )
    assert broken.exit_code == 1
    listed = json.loads(broken.output)
    assert [(each["what"], each["state"]) for each in listed] == [
        ("keys", "warning"),
        ("database", "broken"),
    ]
    assert "cannot be reached" in listed[1]["text"]
    monkeypatch.delenv("DATABASE_URL")
    assert CliRunner().invoke(main, ["engine", "check"]).exit_code == 2


@pytest.mark.parametrize(
    ("settings", "state", "says"),
    [
        ({"signing_keys": ("xyz",), "event_keys": ("e",)}, "broken", "hex"),
        ({"signing_keys": (KEY,)}, "broken", "INNGEST_EVENT_KEY is not"),
        ({"signing_keys": (KEY,), "event_keys": ("e",)}, "ok", "signed"),
    ],
)
async def test_keys(database: str, settings: dict[str, Any], state: str, says: str) -> None:
    seen = (await found(database, **settings))["keys"]

    assert seen[0] == state and says in seen[1], seen


@pytest.mark.parametrize(
    ("about", "status", "settings", "state", "says"),
    [
        ({"function_count": 3, "mode": "dev"}, 200, {}, "warning", "serves 3 functions, 1 are"),
        ({"function_count": 1, "mode": "cloud"}, 200, {}, "broken", "set INNGEST_DEV=1 there"),
        ({}, 403, {}, "broken", "refuses us (HTTP 403)"),
        ({}, 404, {}, "broken", "is that its serve URL?"),
        (
            {"function_count": 1, "mode": "cloud"},
            200,
            {"signing_keys": (KEY,), "event_keys": ("e",)},
            "broken",
            "does not accept our signature",
        ),
        (
            {"function_count": 1, "mode": "cloud", "authentication_succeeded": True},
            200,
            {"signing_keys": (KEY,), "event_keys": ("e",)},
            "ok",
            "1 function",
        ),
    ],
)
async def test_apps(
    database: str,
    app: FakeApp,
    about: dict[str, Any],
    status: int,
    settings: dict[str, Any],
    state: str,
    says: str,
) -> None:
    app.about, app.status = about, status

    seen = (await found(database, **settings))["app shop"]

    assert seen[0] == state and says in seen[1], seen


async def test_an_app_that_is_away_or_not_registered(database: str, app: FakeApp) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("update stepbase.apps set url = 'http://127.0.0.1:1/api/inngest'")
    await connection.close()

    seen = await found(database, sdk_urls=(app.url,))

    assert seen["app shop"][0] == "broken" and "does not answer" in seen["app shop"][1]
    assert seen[f"app at {app.url}"] == ("warning", "not registered under this URL")


async def test_a_database_without_the_schema(cluster: Server) -> None:
    name = await cluster.create()
    try:
        seen = await found(cluster.dsn(name))
        assert seen["schema"][0] == "broken" and "stepbase db apply" in seen["schema"][1]
        assert "rights" not in seen
    finally:
        await cluster.drop(name)


async def test_a_schema_of_another_version(database: str, connect: Connect) -> None:
    await (await connect()).execute("update stepbase.schema_version set version = 99")

    assert (await found(database))["schema"][1].startswith("version 99, this engine knows 1")


async def test_a_role_with_too_few_rights(database: str, connect: Connect) -> None:
    owner = await connect()
    role = f"weak_{urlsplit(database).path[1:]}"
    parts = urlsplit(database)
    as_role = urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
    await owner.execute(f"create role {role} login")
    try:
        assert "may not use it" in (await found(as_role))["schema"][1]
        await owner.execute(f"grant usage on schema stepbase to {role}")
        state, text = (await found(as_role))["rights"]
        assert state == "broken" and "more: connect as the schema's owner" in text
        await owner.execute(
            f"grant all on all tables in schema stepbase to {role};"
            f"grant execute on all functions in schema stepbase to {role}"
        )
        assert "row level security" in (await found(as_role))["rights"][1]
    finally:
        await owner.execute(f"drop owned by {role}; drop role {role}")


@pytest.mark.parametrize(("hours", "state"), [(0.01, "warning"), (1, "broken"), (-1, "broken")])
async def test_clocks_that_differ(
    database: str, monkeypatch: pytest.MonkeyPatch, hours: float, state: str
) -> None:
    real = clock.utcnow
    monkeypatch.setattr(clock, "utcnow", lambda: real() + timedelta(hours=hours))

    seen = (await found(database))["clock"]

    assert seen[0] == state and ("behind" if hours > 0 else "ahead") in seen[1]


# -- a pooler that gives each transaction whatever session is free ---------------------------------


@asynccontextmanager
async def deaf_pooler(port: int) -> AsyncIterator[int]:
    """Pass everything on but notifications, which is what a transaction pooler does to them."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readexactly(5)
                rest = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
                if head[:1] != b"A":
                    writer.write(head + rest)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            copy(reader, back_writer), answers(back_reader, writer), return_exceptions=True
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[Cluster]:
    """A server that a proxy can reach."""
    with Cluster(port=0, durable=False) as cluster:
        asyncio.run(migrate.apply_files(cluster.dsn(), migration_files()))
        yield cluster


async def test_a_transaction_pooler_is_refused(
    tcp_server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_PROBE_SECONDS", 0.3)
    assert tcp_server.port is not None
    async with deaf_pooler(tcp_server.port) as port:
        dsn = tcp_server.dsn().replace(f":{tcp_server.port}/", f":{port}/") + "?sslmode=disable"
        state, text = (await found(dsn))["session"]
        with pytest.raises(StoreError, match="not the transaction pooler"):
            async with running(Settings(database_url=dsn)):
                pass

    assert state == State.BROKEN and "the session pooler (port 5432)" in text
