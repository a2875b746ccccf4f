"""What the cases share: one engine, the app served by uvicorn, and ways to look at both."""

import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
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
RETRY_SECONDS = 0.05
"""Between attempts, instead of the schedule of minutes."""

Handler = Callable[[Any], Any]


@dataclass(frozen=True)
class World:
    """The running engine, as the cases use it.

    Attributes:
        engine: Its API.
        client: The app's own client.
        database: For what no API tells or sets.
    """

    engine: EngineClient
    client: inngest.Inngest
    database: str

    async def send(self, name: str, data: dict[str, Any] | None = None, **fields: Any) -> str:
        """Send an event with the official client; return its id."""
        [event_id] = await self.client.send(inngest.Event(name=name, data=data or {}, **fields))
        return event_id

    async def run(self, name: str, data: dict[str, Any] | None = None, **fields: Any) -> Any:
        """Send an event and wait for its one run to end; return it."""
        return await self.engine.result(await self.send(name, data, **fields))

    async def output(self, name: str, data: dict[str, Any] | None = None) -> Any:
        """Send an event, and return what its one run returned."""
        run = await self.run(name, data)
        assert run["status"] == "Completed", run
        return run["output"]


case: Cases[World] = Cases("python")
"""The cases; every module of this folder adds its own."""

_declaring = inngest.Inngest(app_id=APP, is_production=False)
_functions: list[inngest.Function[Any]] = []


def function(
    fn_id: str, trigger: Any = None, **options: Any
) -> Callable[[Handler], inngest.Function[Any]]:
    """Add a function to the app; its event is `py/<id>` unless it has other triggers."""
    on = inngest.TriggerEvent(event=f"py/{fn_id}") if trigger is None else trigger
    create = _declaring.create_function(fn_id=fn_id, trigger=on, **options)

    def add(handler: Handler) -> inngest.Function[Any]:
        _functions.append(create(handler))
        return _functions[-1]

    return add


@asynccontextmanager
async def world(database: str) -> AsyncIterator[World]:
    """Start an engine and the app with the functions of all modules, and sync them."""
    settings = Settings(
        database_url=database,
        port=0,
        retry_interval=RETRY_SECONDS,
        lease=timedelta(seconds=5),
        sweep_seconds=0.5,
    )
    async with serving(settings) as (_, port, _), aiohttp.ClientSession() as session:
        origin = f"http://127.0.0.1:{port}"
        client = inngest.Inngest(
            app_id=APP, is_production=False, api_base_url=origin, event_api_base_url=origin
        )
        site = fastapi.FastAPI()
        inngest.fast_api.serve(site, client, _functions)
        with serving_asgi(site) as host:
            async with session.put(f"{host}/api/inngest") as response:
                assert response.status == 200, await response.text()
            yield World(EngineClient(session, origin), client, database)
