"""The command line beside a real engine: what people type, and the functions that they type it about."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner
from tests.engine.conftest import StartEngine, host, start_engine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import SDK_HEADERS, Answer, StubHost, ops, step_run

from stepbase.cli.main import main
from stepbase.protocol.ids import hash_step_id

__all__ = ["StartEngine", "host", "start_engine"]  # two are fixtures

SIGNING_KEY = "signkey-test-" + "ab" * 16
OTHER_KEY = "signkey-test-" + "cd" * 16


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


Type = Callable[..., Awaitable[Said]]


@pytest.fixture
def type_in() -> Type:
    """Type a command: `await type_in("runs", "--json")`; the engine of the test goes on meanwhile."""

    def run(*words: str, given: str | None = None) -> Said:
        answer = CliRunner().invoke(main, list(words), input=given)
        return Said(answer.exit_code, answer.stdout, answer.stderr)

    async def type_(*words: str, given: str | None = None) -> Said:
        return await asyncio.to_thread(run, *words, given=given)

    return type_


@pytest.fixture
async def engine(
    start_engine: StartEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EngineClient]:
    """An engine in dev mode that the environment names."""
    async with start_engine() as (client, _):
        monkeypatch.setenv("DATABASE_URL", database)
        monkeypatch.setenv("INNGEST_DEV", client.url)
        yield client


@pytest.fixture
async def shop(engine: EngineClient, host: StubHost) -> EngineClient:
    """The engine with three functions.

    `shop-order` has two steps, `shop-fails` ends with an error, `shop-sleeps` sleeps for a day.
    """
    first, second = hash_step_id("first"), hash_step_id("second")

    def order(call: dict[str, Any]) -> Answer:
        steps = call["steps"]
        for hashed in (first, second):
            if hashed not in steps:
                return ops({**step_run(hashed, "done"), "displayName": _NAMES[hashed]})
            if "input" in steps[hashed]:
                return ops({**step_run(hashed, steps[hashed]["input"]), "displayName": "second"})
        return Answer(200, {"ok": steps[second]["data"]})

    def fails(call: dict[str, Any]) -> Answer:
        error = {"name": "ValueError", "message": "amount is negative: -12", "stack": "line 7"}
        return Answer(500, error, {**SDK_HEADERS, "x-inngest-no-retry": "true"})

    def sleeps(call: dict[str, Any]) -> Answer:
        return ops({"op": "Sleep", "id": first, "name": "1d", "displayName": "a-day"})

    host.handlers = {"shop-order": order, "shop-fails": fails, "shop-sleeps": sleeps}
    await engine.register(host.registration(*map(host.function, host.handlers), app="shop"))
    return engine


_NAMES = {hash_step_id("first"): "first", hash_step_id("second"): "second"}

Keyed = Callable[[], AbstractAsyncContextManager[EngineClient]]
