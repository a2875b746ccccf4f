"""Whole runs through a real engine: events in, calls out, results kept."""

import asyncio
from typing import Any

from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run


async def test_event_starts_run_and_result_is_kept(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, {"got": call["event"]["data"]})
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f", "data": {"a": 1}})
    run = await client.result(event_id)

    assert run["status"] == "Completed"
    assert run["output"] == {"got": {"a": 1}}
    assert host.calls[0]["event"]["user"] == {}
    assert host.calls[0]["version"] == -1


async def test_steps_are_memoised_in_order(client: EngineClient, host: StubHost) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        done = len(call["steps"])
        return ops(step_run(f"s{done}", done)) if done < 3 else Answer(200, call["ctx"]["stack"])

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == {"stack": ["s0", "s1", "s2"], "current": 3}
    assert [c["steps"] for c in host.calls][-1] == {f"s{i}": {"data": i} for i in range(3)}


async def test_sleep_is_a_row_and_wakes(client: EngineClient, host: StubHost) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        if "nap" in call["steps"]:
            return Answer(200, call["steps"])
        return ops({"op": "Sleep", "id": "nap", "displayName": "nap", "name": "200ms"})

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == {"nap": None}


async def test_many_runs_at_once(client: EngineClient, host: StubHost) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        done = len(call["steps"])
        return ops(step_run(f"s{done}", done)) if done < 3 else Answer(200, done)

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    ids = await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(200)))
    runs = await asyncio.gather(*(client.result(each) for each in ids))

    assert {run["status"] for run in runs} == {"Completed"}
    assert len(host.calls) == 800
