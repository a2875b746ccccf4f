"""Steps beside each other in one call: our functions on a real engine."""

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import pytest
from tests.engine.conftest import StartEngine, serving_app

from stepbase import App, Concurrency, Context, Step, SyncStep

begun: list[tuple[str, int]] = []
calls: Counter[str] = Counter()
app = App("together")


def work(name: str, attempt: int) -> str:
    begun.append((name, attempt))
    if name == "flaky" and attempt == 0:
        raise ValueError("not yet")
    return name


@app.function("free", on="app/free", retries=2)
async def free(step: Step, ctx: Context) -> list[str]:
    calls["free"] += 1
    names = ("a", "flaky", "b")
    found = await asyncio.gather(*(step.run(name, work, name, ctx.attempt) for name in names))
    return [*found, await step.run("last", work, "last", ctx.attempt)]


@app.function("plain", on="app/plain", retries=2)
def plain(step: SyncStep, ctx: Context) -> list[str]:
    calls["plain"] += 1
    names = ("a", "flaky", "b")
    found = step.parallel(
        *(lambda name=name: step.run(name, work, name, ctx.attempt) for name in names)
    )
    return [*found, step.run("last", work, "last", ctx.attempt)]


@app.function("limited", on="app/limited", retries=2, concurrency=Concurrency(5))
async def limited(step: Step, ctx: Context) -> list[str]:
    calls["limited"] += 1
    return list(await asyncio.gather(*(step.run(n, work, n, 9) for n in ("a", "b", "c"))))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    begun.clear()
    calls.clear()


@pytest.mark.parametrize("name", ["free", "plain"])
async def test_each_step_of_a_group_has_its_own_attempts(
    name: str, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    async with serving_app(app, start_engine, monkeypatch) as client:
        [event_id] = await client.send({"name": f"app/{name}"})
        run: dict[str, Any] = await client.result(event_id)

    assert run["output"] == ["a", "flaky", "b", "last"]
    assert sorted(begun) == [("a", 0), ("b", 0), ("flaky", 0), ("flaky", 1), ("last", 0)]
    # The call that finds them, one for the second attempt, one that goes on.
    assert calls == {name: 3}
    assert begun[-1] == ("last", 0)
    connection = await asyncpg.connect(database)
    attempts = await connection.fetch(
        "select attempt, error ->> 'message' as error from stepbase.attempts"
    )
    await connection.close()
    assert [tuple(each) for each in attempts] == [(0, "not yet")]


async def test_under_a_limit_of_steps_each_has_a_call_of_its_own(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_app(app, start_engine, monkeypatch) as client:
        [event_id] = await client.send({"name": "app/limited"})
        run: dict[str, Any] = await client.result(event_id)

    assert run["output"] == ["a", "b", "c"]
    assert calls == {"limited": 5}
