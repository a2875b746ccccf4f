"""Events of the server's own: what a run's end tells, whom an invoke starts. And events for later."""

import asyncio
import time
from typing import Any

from tests.conftest import Connect
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

INVOKED, FINISHED, FAILED, CANCELLED = (
    f"inngest/function.{how}" for how in ("invoked", "finished", "failed", "cancelled")
)


class Ear:
    """Functions that are started by the server's own events about `app-f`, and what they were told."""

    def __init__(self, host: StubHost) -> None:
        self._host = host
        self._heard = asyncio.Event()
        self.told: list[dict[str, Any]] = []

    def functions(self, *names: str) -> list[dict[str, object]]:
        """Return a listener for each event name."""
        listeners = []
        for name in names:
            slug = f"app-on-{name.rpartition('.')[2]}"
            self._host.handlers[slug] = self._hear
            listeners.append(self._host.function(slug, triggers=[{"event": name}]))
        return listeners

    def _hear(self, call: dict[str, Any]) -> Answer:
        self.told.append(call["event"])
        self._heard.set()
        return Answer(200, None)

    async def heard(self, count: int) -> dict[str, dict[str, Any]]:
        """Wait for so many events, and return their data by name."""
        async with asyncio.timeout(20):
            while len(self.told) < count:
                self._heard.clear()
                await self._heard.wait()
        return {event["name"]: event["data"] for event in self.told}


async def test_a_run_that_ends_tells_how(client: EngineClient, host: StubHost) -> None:
    ear = Ear(host)
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["data"])
    await client.register(
        host.registration(host.function("app-f"), *ear.functions(FINISHED, FAILED, CANCELLED))
    )

    [event_id] = await client.send({"name": "app/f", "data": {"a": 1}})
    run = await client.result(event_id)
    told = await ear.heard(1)

    data = told[FINISHED]
    assert (data["function_id"], data["run_id"]) == ("app-f", run["run_id"])
    assert (data["result"], data["_inngest"]) == ({"a": 1}, {"status": "Completed"})
    assert data["events"] == [data["event"]] and data["event"]["data"] == {"a": 1}


async def test_a_cancelled_run_tells_that_it_finished_and_was_cancelled(
    client: EngineClient, host: StubHost
) -> None:
    ear = Ear(host)
    host.handlers["app-f"] = lambda _: ops({"op": "Sleep", "id": "z", "name": "1h"})
    await client.register(
        host.registration(host.function("app-f"), *ear.functions(FINISHED, FAILED, CANCELLED))
    )
    [event_id] = await client.send({"name": "app/f"})
    async with asyncio.timeout(20):
        await host.called.wait()
    [run] = await client.runs_of(event_id)

    await client.request("DELETE", f"/v1/runs/{run['run_id']}")
    told = await ear.heard(2)

    assert told.keys() == {FINISHED, CANCELLED}
    assert {data["run_id"] for data in told.values()} == {run["run_id"]}
    assert told[CANCELLED]["error"]["name"] == "Cancelled"
    assert told[CANCELLED]["_inngest"] == {"status": "Cancelled"}


async def test_a_run_may_wait_for_another_to_finish(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    def waiter(call: dict[str, Any]) -> Answer:
        if "w" in call["steps"]:
            return Answer(200, call["steps"]["w"]["data"]["result"])
        condition = "async.data.function_id == 'app-f'"
        opts = {"event": FINISHED, "if": condition, "timeout": "1m"}
        return ops({"op": "WaitForEvent", "id": "w", "name": FINISHED, "opts": opts})

    host.handlers |= {"app-w": waiter, "app-f": lambda _: Answer(200, "done")}
    await client.register(host.registration(host.function("app-w"), host.function("app-f")))
    [waits] = await client.send({"name": "app/w"})
    connection = await connect()
    async with asyncio.timeout(20):
        while not await connection.fetchval("select count(*) from stepbase.pauses"):
            await asyncio.sleep(0.01)

    await client.send({"name": "app/f"})

    assert (await client.result(waits))["output"] == "done"


async def test_an_invoke_starts_the_named_function_alone(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    ear = Ear(host)

    def parent(call: dict[str, Any]) -> Answer:
        if "i" in call["steps"]:
            return Answer(200, call["steps"]["i"])
        opts = {"function_id": "app-child", "payload": {"data": {"n": 2}}}
        return ops({"op": "InvokeFunction", "id": "i", "displayName": "i", "opts": opts})

    host.handlers |= {"app-f": parent, "app-child": lambda c: Answer(200, c["event"]["name"])}
    await client.register(
        host.registration(
            host.function("app-f"), host.function("app-child", triggers=[]), *ear.functions(INVOKED)
        )
    )

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == {"data": INVOKED}
    assert ear.told == []
    payload = await (await connect()).fetchval(
        "select payload #>> '{data,_inngest,correlation_id}' from stepbase.events where name = $1",
        INVOKED,
    )
    assert payload == f"{run['run_id']}.i"


async def test_an_event_whose_time_is_to_come_starts_its_run_then(
    client: EngineClient, host: StubHost
) -> None:
    called: list[float] = []

    def handler(call: dict[str, Any]) -> Answer:
        called.append(time.time())
        return Answer(200, "done") if "a" in call["steps"] else ops(step_run("a", 1))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))
    due = int(time.time() * 1000) + 700

    [event_id] = await client.send({"name": "app/f", "ts": due})
    [before] = await client.runs_of(event_id)
    run = await client.result(event_id)

    assert (before["status"], run["status"], len(called)) == ("Scheduled", "Completed", 2)
    assert called[0] >= due / 1000
