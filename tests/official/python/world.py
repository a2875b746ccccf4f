"""What the cases share: one engine, the app served by uvicorn, and ways to look at both."""

import asyncio
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import fastapi
import inngest
from tests.official.cases import Cases
from tests.support.engine_client import EngineClient
from tests.support.real_hosts import serving_asgi

from stepbase.engine.server import serving
from stepbase.engine.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it still writes pydantic as before version 2
    import inngest.fast_api

APP = "official"
SERVED = "/api/inngest"
RETRY_SECONDS = 0.05
"""Between attempts, instead of the schedule of minutes."""
PATIENCE = 45
"""Seconds after which a case gives up waiting."""

Handler = Callable[[Any], Any]
Data = dict[str, Any]

seen: defaultdict[str, list[Any]] = defaultdict(list)
"""What functions note while they run, under keys of their own."""


class Gate:
    """Holds calls in the app's thread until `count` of them are there, or a case opens it."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count
        self._opened: Future[None] = Future()
        self.arrived = 0

    async def passed(self) -> None:
        """Wait here."""
        self.arrived += 1
        if self.arrived == self._count:
            self.open()
        opened = asyncio.wrap_future(self._opened)
        await asyncio.wait_for(asyncio.shield(opened), PATIENCE)

    def open(self) -> None:
        """Let all go on."""
        self._opened.set_result(None)


def data_of(ctx: inngest.Context | inngest.ContextSync) -> Any:
    """Return the data of a run's event, whatever it is."""
    return ctx.event.data


@dataclass(frozen=True)
class World:
    """The running engine, as the cases use it.

    Attributes:
        engine: Its API.
        client: The app's own client.
        session: For requests to apps.
        host: The origin of the app.
        database: A connection, for what no API tells or sets.
    """

    engine: EngineClient
    client: inngest.Inngest
    session: aiohttp.ClientSession
    host: str
    database: asyncpg.Connection
    _turn: asyncio.Lock

    async def send(self, name: str, data: Data | None = None, **fields: Any) -> str:
        """Send an event with the official client; return its id."""
        [event_id] = await self.client.send(inngest.Event(name=name, data=data or {}, **fields))
        return event_id

    async def send_all(self, name: str, *data: Data) -> list[str]:
        """Send events in one request; return their ids."""
        return await self.client.send([inngest.Event(name=name, data=each) for each in data])

    async def run(self, name: str, data: Data | None = None, **fields: Any) -> Any:
        """Send an event and wait for its one run to end; return it."""
        return await self.engine.result(await self.send(name, data, **fields))

    async def output(self, name: str, data: Data | None = None, **fields: Any) -> Any:
        """Send an event, and return what its one run returned."""
        return completed(await self.run(name, data, **fields))

    async def started(self, event_id: str) -> str:
        """Wait until an event has a run; return the run's id."""
        runs: list[Data] = []

        async def has_run() -> bool:
            runs.extend(await self.engine.runs_of(event_id))
            return bool(runs)

        await self.until(has_run)
        run_id: str = runs[0]["run_id"]
        return run_id

    async def waits(self, run_id: str, *kinds: str) -> None:
        """Wait until a run has a job of each kind: "wait", "sleep", "invoke"."""

        async def has() -> bool:
            _, answer = await self.engine.request("GET", f"/v1/runs/{run_id}/jobs")
            return {job["kind"] for job in answer["data"]} >= set(kinds)

        await self.until(has)

    async def status(self, event_id: str) -> str:
        """Return the status of an event's one run."""
        [run] = await self.engine.runs_of(event_id)
        status: str = run["status"]
        return status

    async def sql(self, query: str, *arguments: object) -> list[Any]:
        """Ask the database."""
        async with self._turn:
            return await self.database.fetch(query, *arguments)

    async def not_started(self, event_id: str) -> list[str]:
        """Return why an event started no run."""
        rows = await self.sql(
            "select reason from stepbase.not_started where event_id = $1", event_id
        )
        return [row["reason"] for row in rows]

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = holds()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.02)

    async def finished_event(self, run_id: str, name: str = "finished") -> Any:
        """Wait for a function to be told of the end of a run; return the event's data."""
        key = f"inngest/function.{name} {run_id}"
        await self.until(lambda: key in seen)
        [data] = seen[key]
        return data

    async def sync(self, host: str, path: str = SERVED) -> Any:
        """Have the engine ask an app to register itself; return what it answers."""
        status, answer = await self.engine.request("PUT", "/fn/sync", {"url": host + path})
        assert status == 200, answer
        return answer

    async def ask(self, method: str, host: str, **options: Any) -> tuple[int, Any]:
        """Ask an app itself; return the status and what it answers."""
        async with self.session.request(method, host + SERVED, **options) as response:
            return response.status, await response.json(content_type=None)


def completed(run: Any) -> Any:
    """Return what a run returned."""
    assert run["status"] == "Completed", (run["status"], run.get("output"))
    return run["output"]


@asynccontextmanager
async def official_client(origin: str, **options: Any) -> AsyncIterator[inngest.Inngest]:
    """A client of the official package that talks to an engine."""
    defaults: dict[str, Any] = {
        "app_id": APP,
        "is_production": False,
        "api_base_url": origin,
        "event_api_base_url": origin,
    }
    client = inngest.Inngest(**{**defaults, **options})
    yield client
    # It has no call to close its connections.
    await client._http_client._http_client.aclose()
    client._http_client._http_client_sync.close()


case: Cases[World] = Cases("python")
"""The cases; every module of this folder adds its own."""

declaring = inngest.Inngest(app_id=APP, is_production=False)
"""Functions are declared before there is an engine to talk to."""
_functions: list[inngest.Function[Any]] = []


def function(
    fn_id: str, trigger: Any = None, **options: Any
) -> Callable[[Handler], inngest.Function[Any]]:
    """Add a function to the app; its event is `py/<id>` unless it has other triggers."""
    on = inngest.TriggerEvent(event=f"py/{fn_id}") if trigger is None else trigger
    create = declaring.create_function(fn_id=fn_id, trigger=on, **options)

    def add(handler: Handler) -> inngest.Function[Any]:
        _functions.append(create(handler))
        return _functions[-1]

    return add


@contextmanager
def app_host(
    client: inngest.Inngest,
    functions: Sequence[inngest.Function[Any]],
    port: int = 0,
    **options: Any,
) -> Iterator[str]:
    """Serve functions with FastAPI; yields the origin."""
    site = fastapi.FastAPI()
    inngest.fast_api.serve(site, client, list(functions), **options)
    with serving_asgi(site, port) as host:
        yield host


@asynccontextmanager
async def world(
    database: str, *, functions: Sequence[inngest.Function[Any]] = _functions, **changes: Any
) -> AsyncIterator[World]:
    """Start an engine and the app with the functions of all modules, and sync them.

    Args:
        functions: Other functions for the app.
        changes: Settings of the engine; with keys the app has them too.
    """
    settings = Settings(
        database_url=database,
        port=0,
        retry_interval=RETRY_SECONDS,
        drain_seconds=2,
        sweep_seconds=0.5,
        **changes,
    )
    key, event_key = next(iter(settings.signing_keys), None), next(iter(settings.event_keys), None)
    async with (
        serving(settings) as (_, port, _),
        aiohttp.ClientSession() as session,
        official_client(
            f"http://127.0.0.1:{port}",
            is_production=key is not None,
            signing_key=key,
            event_key=event_key,
            serializer=inngest.PydanticSerializer(),
        ) as client,
    ):
        connection = await asyncpg.connect(database)
        with app_host(client, functions) as host:
            engine = EngineClient(session, client.api_origin, key)
            running = World(engine, client, session, host, connection, asyncio.Lock())
            await running.sync(host)
            yield running
        await connection.close()
