"""An engine that is asked to stop: calls in flight end, and may save what they do until then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections that outlive those of the engine's fixture."""
    async with aiohttp.ClientSession() as session:
        yield session


class Checkpointing:
    """A handler that saves a step when the test says so, and ends when it says so."""

    def __init__(self) -> None:
        self.came, self.save, self.end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.saved: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.client: EngineClient | None = None

    async def __call__(self, call: dict[str, Any]) -> Answer:
        assert self.client is not None
        ctx = call["ctx"]
        self.came.set()
        await self.save.wait()
        body = {
            "run_id": ctx["run_id"],
            "qi_id": ctx["qi_id"],
            "generation_id": ctx["generation_id"],
            "steps": [step_run("a", 1)],
        }
        path = f"/v1/checkpoint/{ctx['run_id']}/async"
        self.saved.set_result((await self.client.request("POST", path, body))[0])
        await self.end.wait()
        return ops(step_run("b", 2))


async def test_calls_in_flight_save_their_steps_until_they_end(
    start_engine: StartEngine,
    host: StubHost,
    session: aiohttp.ClientSession,
    connect: Connect,
) -> None:
    handler = host.handlers["app-f"] = Checkpointing()
    connection = await connect()
    stack = AsyncExitStack()
    inner, engine = await stack.enter_async_context(start_engine())
    client = handler.client = EngineClient(session, inner.url)
    await client.register(host.registration(host.function("app-f")))
    await client.send({"name": "app/f"})
    await handler.came.wait()

    closing = asyncio.create_task(stack.aclose())
    while not engine.worker.is_stopping:
        await asyncio.sleep(0)
    handler.save.set()
    assert await handler.saved == 200
    [event_id] = await client.send({"name": "app/f"})
    assert not closing.done()
    handler.end.set()
    async with asyncio.timeout(5):
        await closing

    assert len(host.calls) == 1, "what comes while it drains is for others"
    steps = await connection.fetch("select hash from stepbase.steps order by pos")
    assert [row["hash"] for row in steps] == ["a", "b"]
    ready = await connection.fetchval("select count(*) from stepbase.queue where ready")
    assert ready == 2, "the old run and the new one wait for another engine"
    with pytest.raises(aiohttp.ClientError):
        await client.runs_of(event_id)


async def test_a_call_that_takes_too_long_is_left_to_its_lease(
    start_engine: StartEngine, host: StubHost, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    came, never = asyncio.Event(), asyncio.Event()

    async def handler(call: dict[str, Any]) -> Answer:
        came.set()
        await never.wait()
        return Answer(200)

    host.handlers["app-f"] = handler
    async with asyncio.timeout(10):
        async with start_engine(drain_seconds=0.1) as (client, engine):
            await client.register(host.registration(host.function("app-f")))
            await client.send({"name": "app/f"})
            await came.wait()
    never.set()

    owner = await (await connect()).fetchval("select owner from stepbase.queue")
    assert owner == engine.owner
    assert "calls left to their leases" in caplog.text


async def test_leases_are_kept_while_the_engine_drains(
    start_engine: StartEngine, host: StubHost, connect: Connect
) -> None:
    came, go = asyncio.Event(), asyncio.Event()

    async def handler(call: dict[str, Any]) -> Answer:
        came.set()
        await go.wait()
        return Answer(200)

    host.handlers["app-f"] = handler
    connection = await connect()
    due = "select due_at from stepbase.queue"
    async with start_engine(lease=timedelta(seconds=1)) as (client, engine):
        await client.register(host.registration(host.function("app-f")))
        await client.send({"name": "app/f"})
        await came.wait()
        first = await connection.fetchval(due)
        draining = asyncio.create_task(engine.drain())
        async with asyncio.timeout(5):
            while await connection.fetchval(due) == first:
                await asyncio.sleep(0.05)
        go.set()
        await draining
    assert await connection.fetchval("select status from stepbase.runs") == "Completed"
