"""A console on a real engine, with runs of every fate in its database."""

import html
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import aiohttp
import httpx
import pytest
from tests.support.engine_client import EngineClient
from tests.support.stub_host import SDK_HEADERS, Answer, StubHost, ops, step_run

from stepbase.console.site import console
from stepbase.engine.app import Engine
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.protocol.ids import hash_step_id


@dataclass(frozen=True)
class Shown:
    """A running console.

    Attributes:
        web: A browser without scripts: it keeps cookies and follows no redirect.
        api: A client of the same engine's API.
        engine: The engine.
        host: What the functions answer.
    """

    web: httpx.AsyncClient
    api: EngineClient
    engine: Engine
    host: StubHost

    async def page(self, path: str) -> str:
        """Return a page; asserts that it is one."""
        answer = await self.web.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def text(self, path: str) -> str:
        """Return what a page says, without its tags."""
        return html.unescape(re.sub(r"<[^>]*>", "", await self.page(path)))

    async def data(self, path: str) -> Any:
        """Return a page's JSON."""
        answer = await self.web.get(path + ("&" if "?" in path else "?") + "format=json")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def act(self, path: str, **form: str) -> httpx.Response:
        """Do what a form of a page does, with the token that its page holds."""
        token = (
            (await self.page("/send?name=a/b"))
            .partition('name="csrf" value="')[2]
            .partition('"')[0]
        )
        return await self.web.post(path, data={"csrf": token, **form})


StartConsole = Callable[..., Any]


@pytest.fixture
async def host() -> AsyncIterator[StubHost]:
    """A function host that answers as the test says."""
    stub = StubHost()
    await stub.start()
    yield stub
    await stub.stop()


@pytest.fixture
def start_console(database: str, host: StubHost) -> StartConsole:
    """Start engines with a console: `async with start_console(signing_keys=…) as shown`."""

    @asynccontextmanager
    async def start(token: str | None = None, **changes: Any) -> AsyncIterator[Shown]:
        settings = Settings(
            database_url=database,
            port=0,
            retry_interval=0.05,
            lease=timedelta(seconds=5),
            sweep_seconds=0.5,
        )
        settings = replace(settings, **changes)
        async with (
            serving(settings, console) as (engine, port, _),
            aiohttp.ClientSession() as session,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as web,
        ):
            url = f"http://127.0.0.1:{port}"
            yield Shown(web, EngineClient(session, url, token), engine, host)

    return start


@pytest.fixture
async def shown(start_console: StartConsole) -> AsyncIterator[Shown]:
    """A console in dev mode."""
    async with start_console() as started:
        yield started


@pytest.fixture
def make_run(shown: Shown) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Run app-f once, whose step `a` gives `data` or its edited input, or fails with `error`."""

    async def make(
        data: object = "one", *, error: dict[str, Any] | None = None, event: Any = None
    ) -> dict[str, Any]:
        hashed = hash_step_id("a")

        def answer(call: dict[str, Any]) -> Answer:
            if error is not None:
                return Answer(500, error, {**SDK_HEADERS, "x-inngest-no-retry": "true"})
            memo = call["steps"].get(hashed, {})
            if "data" in memo:
                return Answer(200, {"result": memo["data"]})
            return ops(step_run(hashed, memo.get("input", data)))

        shown.host.handlers["app-f"] = answer
        await shown.api.register(shown.host.registration(shown.host.function("app-f")))
        [event_id] = await shown.api.send({"name": "app/f", "data": event or {"id": 7}})
        return await shown.api.result(event_id)

    return make
