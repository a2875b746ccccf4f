"""`GET /metrics`: what one engine counts, and what the database knows."""

import asyncio
import math
from typing import Any

import aiohttp
import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support import engine_sql as sql
from tests.support.engine_client import EngineClient
from tests.support.engine_sql import Hands
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase.engine.api import operations
from stepbase.engine.effects import Settlement, Verdict

Samples = dict[tuple[str, tuple[str, ...]], float]


async def scrape(client: EngineClient) -> Samples:
    """Return every sample by name and label values."""
    status, text = await client.request("GET", "/metrics")
    assert status == 200, text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_calls_retries_and_ends_are_counted(client: EngineClient, host: StubHost) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        if call["ctx"]["attempt"] == 0 and not call["steps"]:
            return Answer(500, {"name": "E", "message": "no"})
        return Answer(200, 1) if call["steps"] else ops(step_run("a", 1))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f"})
    await client.result(event_id)

    # The settle is answered just after the run can be seen to have ended.
    async with asyncio.timeout(5):
        while ("stepbase_runs_ended_total", ("app-f", "Completed")) not in (
            samples := await scrape(client)
        ):
            await asyncio.sleep(0.01)
    assert samples["stepbase_call_seconds_count", ("app-f",)] == 3
    assert 0 < samples["stepbase_call_seconds_sum", ("app-f",)] < 3
    assert samples["stepbase_retries_total", ("attempt", "app-f")] == 1
    assert samples["stepbase_lease_losses_total", ()] == 0
    assert samples["stepbase_database_up", ()] == 1
    assert samples["stepbase_queue_ready", ()] == samples["stepbase_outbox_rows", ()] == 0


async def test_a_reply_that_comes_too_late_is_a_lost_lease(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    came, go = asyncio.Event(), asyncio.Event()

    async def handler(call: dict[str, Any]) -> Answer:
        came.set()
        await go.wait()
        return Answer(200)

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))
    await client.send({"name": "app/f"})
    await came.wait()
    assert (await scrape(client))["stepbase_calls_in_flight", ()] == 1
    await (await connect()).execute("delete from stepbase.queue")
    go.set()

    async with asyncio.timeout(5):
        while (await scrape(client))["stepbase_lease_losses_total", ()] != 1:
            await asyncio.sleep(0.01)


async def test_it_needs_the_key_and_tells_of_a_database_that_is_away(
    start_engine: StartEngine, connect: Connect
) -> None:
    key = "ab" * 16
    async with start_engine(key, signing_keys=(key,), event_keys=("e",)) as (client, engine):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{client.url}/metrics") as refused,
        ):
            assert refused.status == 401
        await engine.store.close()
        samples = await scrape(client)

    assert samples["stepbase_database_up", ()] == 0
    assert math.isnan(samples["stepbase_queue_ready", ()])


async def test_what_the_database_knows_is_measured(
    hands: Hands, db: asyncpg.Connection, connect: Connect
) -> None:
    leased, timer = await hands.begin_leased(), await hands.begin_leased()
    await hands.settle_one(timer, 1, Settlement(Verdict.TIMER, delay=10.0))
    await hands.begin()
    await db.execute(
        "insert into stepbase.outbox (id, name, payload, created_at, due_at) values"
        " ('a', 'n', '{}', $1, $1)",
        sql.NOON,
    )
    waiting = await hands.begin()
    await db.execute(
        "update stepbase.queue set lane = 'l' where run_id = $1 and job = 'main'", waiting.run_id
    )
    await hands.at(25)

    measured = await hands.measures(100)

    assert leased.run_id != timer.run_id
    wanted = {
        "ready": 1,
        "in_lanes": 1,
        "leased": 1,
        "overdue": 1,
        "oldest_due_s": 15.0,
        # Scores keep the order of a batch, a microsecond each.
        "oldest_ready_s": pytest.approx(25.0, abs=1e-5),
        "outbox_rows": 1,
        "outbox_dead": 0,
        "outbox_lag_s": 25.0,
    }
    assert {key: measured[key] for key in wanted} == wanted
    assert (await hands.measures(0))["ready"] == 0, "no more are counted than asked for"


async def test_a_snapshot_that_is_held_open_shows(connect: Connect) -> None:
    holder, reader = await connect(), Hands(await connect())
    async with holder.transaction(isolation="repeatable_read"):
        await holder.fetchval("select count(*) from stepbase.runs")
        measured = await reader.measures(operations._MOST_COUNTED)
    assert measured["snapshot_s"] is not None and measured["snapshot_s"] > 0
