"""Limits that are added or changed while runs wait and sleep hold for those too."""

import asyncio
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support import engine_sql as sql
from tests.support.engine_client import EngineClient
from tests.support.engine_lanes import keep
from tests.support.engine_sql import Hands, completed, went_on
from tests.support.stub_host import Answer, StubHost, ops

from stepbase.engine.lanes import Lane
from stepbase.engine.store import STALE, PutBack

RUNS = 12


class Watching:
    """A handler of runs that sleep once; knows the most calls, and the most runs, that went on at once."""

    def __init__(self) -> None:
        self.calls = self.most_calls = 0
        self.runs = self.most_runs = 0
        self.woken = self.most_woken = 0

    async def __call__(self, call: dict[str, Any]) -> Answer:
        is_woken = bool(call["steps"])
        self.calls += 1
        self.runs += not is_woken
        self.woken += is_woken
        self.most_calls = max(self.most_calls, self.calls)
        self.most_runs = max(self.most_runs, self.runs)
        self.most_woken = max(self.most_woken, self.woken)
        await asyncio.sleep(0.005)  # long enough for others to come in, if they may
        self.calls -= 1
        self.runs -= is_woken
        self.woken -= is_woken
        if is_woken:
            return Answer(200, "done")
        return ops({"op": "Sleep", "id": "z", "displayName": "z", "name": "600ms"})


async def sync(client: EngineClient, host: StubHost, **options: object) -> None:
    answer = await client.register(host.registration(host.function("app-f", retries=0, **options)))
    assert answer["modified"] is True


async def queue_up(client: EngineClient) -> list[str]:
    """Start runs that wait, because their function is paused."""
    assert (await client.request("POST", "/v1/functions/app-f/pause"))[0] == 200
    return await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(RUNS)))


async def go_on(client: EngineClient, events: list[str]) -> None:
    assert (await client.request("POST", "/v1/functions/app-f/resume"))[0] == 200
    for event in events:
        assert (await client.result(event))["output"] == "done"


@pytest.mark.parametrize(
    "before", [{}, {"concurrency": {"limit": 1, "key": "event.data.n"}}], ids=["none", "other key"]
)
async def test_runs_that_wait_keep_to_a_limit_of_calls_added_meanwhile(
    client: EngineClient, host: StubHost, before: dict[str, object]
) -> None:
    watching = host.handlers["app-f"] = Watching()
    await sync(client, host, **before)
    events = await queue_up(client)

    await sync(client, host, concurrency=2)
    await go_on(client, events)

    assert watching.most_calls == 2


async def test_runs_that_sleep_keep_to_a_limit_of_calls_added_meanwhile(
    client: EngineClient, host: StubHost
) -> None:
    watching = host.handlers["app-f"] = Watching()
    await sync(client, host)
    events = await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(RUNS)))
    async with asyncio.timeout(5):
        while watching.runs < RUNS or watching.calls:
            await asyncio.sleep(0.01)

    await sync(client, host, concurrency=2)
    for event in events:
        assert (await client.result(event))["output"] == "done"

    assert watching.most_woken == 2


async def test_runs_that_wait_keep_to_a_limit_of_runs_added_meanwhile(
    client: EngineClient, host: StubHost
) -> None:
    watching = host.handlers["app-f"] = Watching()
    await sync(client, host)
    events = await queue_up(client)

    await sync(client, host, concurrency={"fn": [{"limit": 6}]})
    await go_on(client, events)

    assert watching.most_runs == 6


async def test_runs_that_wait_keep_to_a_throttle_added_meanwhile(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = Watching()
    await sync(client, host)
    events = await queue_up(client)

    await sync(client, host, throttle={"limit": 1, "period": "1s", "burst": 10})
    await go_on(client, events)

    db = await connect()
    spread = await db.fetchval("select max(started_at) - min(started_at) from stepbase.runs")
    # Eleven at once, the twelfth a second later; when a call began is known to some ms.
    assert spread.total_seconds() > 0.8


async def test_a_limit_that_is_taken_away_holds_nobody_back(
    client: EngineClient, host: StubHost
) -> None:
    watching = host.handlers["app-f"] = Watching()
    await sync(client, host, concurrency=1)
    events = await queue_up(client)

    await sync(client, host)
    await go_on(client, events)

    assert watching.most_calls > 3


async def test_an_engine_that_has_not_heard_of_a_pause_makes_no_call_twice(
    start_engine: StartEngine, host: StubHost
) -> None:
    watching = host.handlers["app-f"] = Watching()
    async with start_engine() as (a, _), start_engine() as (b, _):
        await sync(a, host)
        events = await queue_up(a)
        await go_on(b, events)

    assert watching.runs == 0
    assert len(host.calls) == 2 * RUNS


# --- in SQL --------------------------------------------------------------------------------------


async def test_a_call_put_back_is_ready_in_its_new_lane_and_counts_there(hands: Hands) -> None:
    await keep(hands, limits=[1])
    first, second = await hands.begin_leased(), await hands.begin_leased()
    await hands.settle_one(second, 1, went_on(sql.step("s")))
    where = Lane("1 a", ("a", None))

    await hands.move(
        await hands.epoch(),
        [
            PutBack(first.run_id, "main", 1, where, "r"),
            PutBack(second.run_id, "main", 1, where, "r"),
        ],
    )

    item = await hands.item(first)
    assert item is not None
    assert (item["ready"], item["owner"], item["gen"], item["attempt"]) == (True, None, 2, 0)
    assert (item["lane"], item["key_1"], item["place"]) == ("1 a", "a", "r")
    other = await hands.item(second)
    assert other is not None and other["owner"] == "A" and other["lane"] is None, "another gen"
    assert (await hands.settle_one(first, 1, completed())).outcome == "lost"
    [row] = await hands.lease(5)
    assert (row["run_id"], row["waited"], row["place"]) == (first.run_id, "1 a", "r")


async def test_a_call_is_not_put_back_by_an_old_copy_of_the_functions(hands: Hands) -> None:
    run = await hands.begin_leased()

    with pytest.raises(asyncpg.PostgresError) as caught:
        await hands.move(0, [PutBack(run.run_id, "main", 1, Lane("x"), None)])

    assert caught.value.sqlstate == STALE
