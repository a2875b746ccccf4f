"""What the cases share: two engines, the apps in one Node process, a web server, and ways to look at all."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from tests.official.cases import Cases
from tests.support import typescript
from tests.support.engine_client import EngineClient
from tests.support.raw_http import Asked, RawServer, raw_server, response

from stepbase.engine.server import serving
from stepbase.engine.settings import Settings

APP = Path(__file__).parent / "app"
KEY = "signkey-test-" + "ab" * 16
NEW_KEY = "signkey-test-" + "cd" * 16
EVENT_KEY = "an-event-key"
APPS = ("inngest", "plain", "streams", "marking", "encrypting", "edge")
"""Serve paths that are synced before the cases begin."""

case: "Cases[World]" = Cases("typescript")
"""The cases; every module of this folder adds its own."""


@dataclass(frozen=True)
class World:
    """The running engines and apps, as the cases use them.

    Attributes:
        engine: The API of the engine in dev mode, on `database`.
        cloud: The API of the one with keys.
        node: Where the apps are served, and say what their functions did.
        web: Answers what functions request.
    """

    engine: EngineClient
    cloud: EngineClient
    node: str
    web: RawServer
    database: str
    settings: Settings
    _session: aiohttp.ClientSession
    _numbers: "count[int]" = field(default_factory=count)

    def key(self) -> str:
        """Return a name that only the asking case has, for `data.k` of its events."""
        return f"k{next(self._numbers)}"

    async def send(self, name: str, client: str = "main", **data: Any) -> str:
        """Send an event by the SDK; return its internal id."""
        [event_id] = await self.send_all({"name": name, "data": data}, client=client)
        return event_id

    async def send_all(self, *events: dict[str, Any], client: str = "main") -> list[str]:
        """Send events by the SDK in one request; return their internal ids."""
        ids: list[str] = (await self.ask(f"send?client={client}", list(events)))["ids"]
        return ids

    async def run(self, function: str, **data: Any) -> dict[str, Any]:
        """Send a function its event, and wait for the run to end."""
        return await self.engine.result(await self.send(f"ts/{function}", **data))

    async def output(self, function: str, **data: Any) -> Any:
        """Send a function its event, and return what the run returned."""
        run = await self.run(function, **data)
        assert run["status"] == "Completed", run
        return run["output"]

    async def run_id(self, event_id: str) -> str:
        """Return the one run of an event, ended or not."""
        [run] = await self.engine.runs_of(event_id)
        return str(run["run_id"])

    async def notes(self, topic: str) -> list[Any]:
        """Return what was noted so far."""
        return [note["what"] for note in await self.noted(topic, 0)]

    async def noted(self, topic: str, wanted: int = 1) -> list[dict[str, Any]]:
        """Wait for so many notes; return all with their time in ms."""
        async with asyncio.timeout(60):
            notes: list[dict[str, Any]] = await self.ask(f"notes?topic={topic}&wanted={wanted}")
        return notes

    async def calls(self, run_id: str) -> list[str]:
        """Return the step ids of the calls made for a run."""
        found: list[str] = await self.ask(f"calls?run={run_id}")
        return found

    async def checkpoints(self, run_id: str) -> list[list[str]]:
        """Return the steps of each checkpoint of a run."""
        return await self.notes(f"checkpoints {run_id}")

    async def open(self, gate: str) -> None:
        """Let those through who wait at a gate, and all who come later."""
        await self.ask(f"open?gate={gate}")

    async def beat(self) -> None:
        """Let time pass by as much as a run takes: what may start at once has been looked at."""
        for _ in range(2):
            await self.run("noted", k="beat")

    async def ask(self, what: str, body: object = None) -> Any:
        """Ask the Node process something of `server.mjs`."""
        async with self._session.post(f"{self.node}/{what}", data=json.dumps(body)) as answer:
            text = await answer.text()
            assert answer.status == 200, text
            return json.loads(text)

    async def serve(
        self, method: str, app: str, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Make a request without a signature to an app; return status and body."""
        url = f"{self.node}/api/{app}"
        body = json.dumps({"url": url}) if method != "GET" else None
        async with self._session.request(method, url, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Connect to the database of the engine in dev mode."""
        connection = await asyncpg.connect(self.database)
        try:
            yield connection
        finally:
            await connection.close()


def reply(asked: Asked) -> bytes:
    """Answer as the web: what was asked, a model, or an error."""
    if asked.path == "/broken":
        return response(503, "sorry")
    if asked.path == "/v1/traces":
        return response(200, "{}")
    if asked.path != "/v1/chat/completions":
        shown = [asked.method, asked.path, asked.body.decode(), asked.headers.get("x-asked")]
        return response(200, json.dumps(shown), "x-t: 1")
    asking = json.loads(asked.body)
    if not asking["messages"]:
        return response(400, '{"error": "no messages"}')
    said = [asking["model"], asking["messages"][0]["content"], asked.headers["authorization"]]
    message = {"role": "assistant", "content": said}
    return response(200, json.dumps({"choices": [{"message": message}]}))


@asynccontextmanager
async def _traced(settings: Settings, web: RawServer) -> AsyncIterator[int]:
    """Start an engine that sends its spans to the web server; yields its port."""
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", web.url)
            _, port, _ = await stack.enter_async_context(serving(settings))
        yield port


@asynccontextmanager
async def world(database: str, cloud_database: str) -> AsyncIterator[World]:
    """Start the engines and the apps, and sync them."""
    settings = Settings(
        database_url=database,
        port=0,
        retry_interval=0.05,
        max_calls=128,
        lease=timedelta(seconds=60),
        sweep_seconds=0.5,
    )
    cloud_settings = Settings(
        database_url=cloud_database,
        port=0,
        signing_keys=(KEY,),
        event_keys=(EVENT_KEY,),
        is_traced=True,
    )
    async with (
        serving(settings) as (_, port, _),
        raw_server(reply) as web,
        _traced(cloud_settings, web) as cloud_port,
        aiohttp.ClientSession() as session,
    ):
        engine = EngineClient(session, f"http://127.0.0.1:{port}")
        cloud = EngineClient(session, f"http://127.0.0.1:{cloud_port}", KEY)
        environment = {
            "ENGINE": engine.url,
            "CLOUD": cloud.url,
            "SIGNING_KEY": NEW_KEY,
            "SIGNING_KEY_FALLBACK": KEY,
            "EVENT_KEY": EVENT_KEY,
        }
        with typescript.running(environment, APP) as node:
            origin = str(node.client.base_url).rstrip("/")
            made = World(engine, cloud, origin, web, database, settings, session)
            for app in APPS:
                status, answer = await made.serve("PUT", app)
                assert status == 200, answer
            yield made
