"""Limits end to end: an engine, its API and a host that counts the calls it is in."""

import asyncio
from typing import Any

import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase import clock


class Counting:
    """A handler of runs of `steps` steps that knows how many calls it is in, by tenant."""

    def __init__(self, steps: int = 0, together: int = 1) -> None:
        self.steps = steps
        self.together = together
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.order: list[Any] = []
        self.full = asyncio.Event()

    async def __call__(self, call: dict[str, Any]) -> Answer:
        data = call["event"]["data"]
        tenant = str(data.get("tenant"))
        self.now[tenant] = self.now.get(tenant, 0) + 1
        self.most[tenant] = max(self.most.get(tenant, 0), self.now[tenant])
        self.order.append(data.get("n"))
        if self.now[tenant] >= self.together:
            self.full.set()
        await asyncio.sleep(0)  # others may come in meanwhile
        await self.full.wait()
        self.now[tenant] -= 1
        done = len(call["steps"])
        return Answer(200, done) if done == self.steps else ops(step_run(f"s{done}", done))


async def test_calls_in_flight_keep_to_the_limit_and_reach_it(
    client: EngineClient, host: StubHost
) -> None:
    counting = host.handlers["app-f"] = Counting(steps=2, together=3)
    function = host.function(
        "app-f",
        retries=0,
        concurrency=[{"limit": 3, "key": "event.data.tenant"}, {"limit": 5}],
    )
    answer = await client.register(host.registration(function))
    assert "message" not in answer

    sent = [{"name": "app/f", "data": {"tenant": t, "n": n}} for n in range(12) for t in "ab"]
    events = await client.send(*sent)
    runs = [await client.result(event) for event in events]

    assert {run["output"] for run in runs} == {2}
    assert max(counting.most.values()) == 3
    assert len(counting.order) == 72


async def test_functions_share_the_limit_of_an_account_key(
    client: EngineClient, host: StubHost
) -> None:
    counting = Counting()
    host.handlers["app-f"] = host.handlers["app-g"] = counting
    limit = {"limit": 1, "key": '"bank"', "scope": "account"}
    await client.register(
        host.registration(
            *(host.function(f, retries=0, concurrency=limit) for f in ("app-f", "app-g"))
        )
    )

    events = await client.send(*({"name": f"app/{f}", "data": {}} for _ in range(8) for f in "fg"))
    for event in events:
        await client.result(event)

    assert counting.most == {"None": 1}


async def test_no_more_runs_go_on_than_their_limit_and_the_next_one_starts_at_once(
    start_engine: StartEngine, host: StubHost
) -> None:
    going: dict[str, int] = {}
    most: dict[str, int] = {}
    order: dict[str, list[int]] = {"a": [], "b": []}

    def answer(call: dict[str, Any]) -> Answer:
        data = call["event"]["data"]
        tenant = data["tenant"]
        if not call["steps"]:
            going[tenant] = going.get(tenant, 0) + 1
            most[tenant] = max(most.get(tenant, 0), going[tenant])
            order[tenant].append(data["n"])
            return ops({"op": "Sleep", "id": "z", "displayName": "z", "name": "10ms"})
        going[tenant] -= 1
        return Answer(500, "no") if data["n"] % 3 == 0 else Answer(200, "done")

    host.handlers["app-f"] = answer
    function = host.function(
        "app-f", retries=0, concurrency={"fn": [{"limit": 2, "key": "event.data.tenant"}]}
    )
    # No tick helps: the end of a run is what starts the next one.
    async with start_engine(sweep_seconds=60.0) as (client, _):
        registered = await client.register(host.registration(function))
        sent = [{"name": "app/f", "data": {"tenant": t, "n": n}} for n in range(9) for t in "ab"]
        events = await client.send(*sent)
        began = clock.monotonic()
        statuses = [(await client.result(event))["status"] for event in events]
        took = clock.monotonic() - began

    assert "message" not in registered
    assert statuses.count("Failed") == 6 and statuses.count("Completed") == 12
    assert most == {"a": 2, "b": 2}
    assert took < 3.0
    for started in order.values():  # two at a time, whose first calls may overtake each other
        assert all(abs(place - n) <= 1 for place, n in enumerate(started))


async def test_priority_decides_who_goes_next(client: EngineClient, host: StubHost) -> None:
    counting = host.handlers["app-f"] = Counting(together=100)
    function = host.function("app-f", retries=0, concurrency=1, priority={"run": "event.data.rank"})
    await client.register(host.registration(function))
    await client.send({"name": "app/f", "data": {"n": "holder"}})
    async with asyncio.timeout(5):
        while not counting.order:
            await host.called.wait()
            await asyncio.sleep(0.005)

    events = await client.send(
        *({"name": "app/f", "data": {"n": n, "rank": n}} for n in (3, 600, -20, 50))
    )
    counting.full.set()
    for event in events:
        await client.result(event)

    assert counting.order == ["holder", 600, 50, 3, -20]


async def test_throttled_runs_start_at_their_times_although_nothing_else_happens(
    start_engine: StartEngine, host: StubHost
) -> None:
    times: list[float] = []

    def started(_call: dict[str, Any]) -> Answer:
        times.append(clock.monotonic())
        return Answer(200, None)

    host.handlers["app-f"] = started
    # No tick helps: the engine wakes by itself.
    async with start_engine(sweep_seconds=60.0) as (client, _):
        await client.register(
            host.registration(
                host.function("app-f", throttle={"limit": 2, "period": "1s", "burst": 1})
            )
        )
        events = await client.send(*({"name": "app/f"} for _ in range(5)))
        for event in events:
            await client.result(event)

    gaps = [time - times[0] for time in times]
    assert gaps[2] < 0.4, "three at once"
    assert gaps[3] >= 0.45 and gaps[4] >= 0.95, "then one every half second"
    assert gaps[4] < 2.0


async def test_a_paused_function_waits_and_goes_on(client: EngineClient, host: StubHost) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def answer(call: dict[str, Any]) -> Answer:
        if call["steps"]:
            return Answer(200, "done")
        reached.set()
        await go_on.wait()
        return ops(step_run("s", 1))

    host.handlers["app-f"] = answer
    host.handlers["app-g"] = lambda _call: Answer(200, "other")
    await client.register(host.registration(host.function("app-f"), host.function("app-g")))
    [first] = await client.send({"name": "app/f"})
    await reached.wait()

    status, body = await client.request("POST", "/v1/functions/app-f/pause")
    assert (status, body["data"]) == (200, {"id": "app-f", "is_paused": True})
    go_on.set()
    [second] = await client.send({"name": "app/f"})
    [other] = await client.send({"name": "app/g"})
    assert (await client.result(other))["output"] == "other"
    assert [run["status"] for run in await client.runs_of(second)] == ["Scheduled"]
    assert len([c for c in host.calls if c["event"]["name"] == "app/f"]) == 1

    status, _ = await client.request("POST", "/v1/functions/app-f/resume")
    assert status == 200
    assert {(await client.result(event))["output"] for event in (first, second)} == {"done"}


async def test_pausing_what_is_not_there_is_404(client: EngineClient) -> None:
    status, body = await client.request("POST", "/v1/functions/app-none/pause")

    assert status == 404 and "app-none" in body["error"]


async def test_two_engines_never_exceed_a_limit_together(
    start_engine: StartEngine, host: StubHost, connect: Connect
) -> None:
    db = await connect()
    counting = host.handlers["app-f"] = Counting(steps=2, together=1)
    function = host.function("app-f", concurrency={"limit": 3, "key": "event.data.tenant"})
    worst, samples = 0, 0
    async with start_engine() as (a, _), start_engine() as (b, _):
        await a.register(host.registration(function))
        events = []
        for n in range(0, 120, 20):
            batch = [
                {"name": "app/f", "data": {"tenant": t, "n": n}} for t in range(4) for _ in range(5)
            ]
            events += await (a if n % 40 else b).send(*batch)

        async def sample() -> None:
            nonlocal worst, samples
            while True:
                held = await db.fetchval(
                    "select coalesce(max(n), 0) from (select count(*) as n from stepbase.queue"
                    " where owner is not null group by key_1) x"
                )
                worst, samples = max(worst, held), samples + 1

        sampling = asyncio.create_task(sample())
        for event in events:
            await (a if samples % 2 else b).result(event)
        sampling.cancel()

    assert worst <= 3 and max(counting.most.values()) <= 3
    assert samples > 20
    assert await db.fetchval("select count(*) from stepbase.queue") == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"concurrency": [{"limit": 1}] * 3}, "at most 2 limits"),
        ({"concurrency": {"limit": 1, "key": "event.("}}, "concurrency.key"),
        ({"concurrency": {"limit": 1, "scope": "account"}}, "concurrency.key"),
        ({"concurrency": "many"}, "concurrency.limit"),
        ({"concurrency": {"fn": [{"limit": 0}]}}, "concurrency.fn.limit"),
        ({"concurrency": {"fn": [{"limit": 1, "key": "event.("}]}}, "concurrency.fn.key"),
        ({"concurrency": {"fn": [{"limit": 1, "scope": "app"}]}}, "concurrency.fn.scope"),
        ({"concurrency": {"fn": [{"limit": 1}] * 2}}, "a list of one limit"),
        ({"concurrency": {"step": [{"limit": 1}] * 3}}, "at most 2 limits"),
        ({"throttle": {"limit": 0, "period": "1s"}}, "throttle.limit"),
        ({"throttle": {"limit": 1, "period": "soon"}}, "throttle.period"),
        ({"priority": {"run": 5}}, "priority.run"),
    ],
)
async def test_limits_that_cannot_work_are_refused_at_sync(
    client: EngineClient, host: StubHost, option: dict[str, object], said: str
) -> None:
    function = host.function("app-f", **option)

    status, body = await client.request("POST", "/fn/register", host.registration(function))

    assert status == 400 and said in body["error"] and "app-f" in body["error"]
