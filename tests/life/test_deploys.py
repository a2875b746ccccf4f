"""Deploys while runs sleep: changed code, a function that is gone for a while, and its come-back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.conftest import Connect
from tests.life.conftest import pass_time, write_app
from tests.support.engine_client import EngineClient

from stepbase.local.stack import Plan, Stack

_HEAD = """
from stepbase import App, Step, serve

app = App("shop")
"""

# No attempt to spare: whatever counts as a failure ends the run.
_ORDER = """
@app.function("order", on="shop/ordered", retries=0)
async def order(step: Step) -> list[str]:
    reserved = await step.run("reserve", lambda: "reserved")
    await step.sleep("night", "1d")
    return [reserved, await step.run("charge", lambda: "in full")]
"""

_NOTE = """
@app.function("note", on="shop/noted", retries=0)
async def note(step: Step) -> str:
    await step.sleep("night", "1d")
    return "noted"
"""

_CHANGED = """
@app.function("order", on="shop/ordered", retries=0)
async def order(step: Step) -> list[str]:
    in_parts = await step.patch("in-parts")
    reserved = await step.run("reserve", lambda: "reserved")
    await step.sleep("night", "1d")
    if in_parts:
        return [reserved, *[await step.run("part", lambda: "a half") for _ in range(2)]]
    return [reserved, await step.run("charge", lambda: "in full")]
"""

_TAIL = "\nmain = serve(app)\n"


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    """A folder with the app "shop" in its first version."""
    write_app(tmp_path / "functions", "shop", _HEAD + _ORDER + _NOTE + _TAIL)
    return tmp_path / "functions"


@pytest.fixture
async def stack(functions: Path, database: str) -> AsyncIterator[Stack]:
    """The local stack on the test's database; attempts follow each other at once."""
    plan = Plan(
        functions=functions, database_url=database, project=functions, migrations={},
        engine_arguments=["--retry-interval=0.05"],
    )  # fmt: skip
    async with Stack(plan) as running:
        yield running


async def test_runs_that_sleep_over_a_deploy_go_on_in_the_new_code(
    stack: Stack, functions: Path, connect: Connect
) -> None:
    connection = await connect()
    async with aiohttp.ClientSession() as session:
        client = EngineClient(session, stack.engine_url)

        async def asleep(name: str) -> str:
            [event] = await client.send({"name": name})
            await client.opened(event, "sleep")
            return event

        old, note = await asleep("shop/ordered"), await asleep("shop/noted")

        write_app(functions, "shop", _HEAD + _CHANGED + _TAIL)
        await stack.restart("host")
        await stack.sync()
        new = await asleep("shop/ordered")
        await pass_time(connection)

        assert (await client.result(old))["output"] == ["reserved", "in full"]
        assert (await client.result(new))["output"] == ["reserved", "a half", "a half"]

        # The function is gone: its run is tried, answered so that it is tried again, and stays.
        missing = "function shop-note not found"
        async with asyncio.timeout(20):
            while (
                error := await connection.fetchval("select error from stepbase.attempts")
            ) is None:
                await asyncio.sleep(0.01)
        assert missing in error
        assert [run["status"] for run in await client.runs_of(note)] == ["Running"]

        write_app(functions, "shop", _HEAD + _CHANGED + _NOTE + _TAIL)
        await stack.restart("host")
        await stack.sync()

        assert (await client.result(note))["output"] == "noted"
