"""Steps reported while a call goes on, and signals."""

import asyncio
from typing import Any

from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.engine_sql import NOON, Hands, step
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase.engine.store import Checkpoint


async def test_checkpointed_steps_are_stored_and_the_run_completes(
    client: EngineClient, host: StubHost
) -> None:
    async def handler(call: dict[str, Any]) -> Answer:
        ctx = call["ctx"]
        for i in range(3):
            body = {
                "run_id": ctx["run_id"],
                "fn_id": ctx["fn_id"],
                "qi_id": ctx["qi_id"],
                "generation_id": ctx["generation_id"],
                "steps": [{**step_run(f"s{i}", i), "private": True}],
            }
            status, answer = await client.request(
                "POST", f"/v1/checkpoint/{ctx['run_id']}/async", body
            )
            assert (status, answer) == (200, "")
        return ops(step_run("s3", 3), {"op": "RunComplete", "id": "x", "data": "done"})

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == "done"
    assert len(host.calls) == 1


async def test_call_after_checkpoints_knows_their_steps(
    client: EngineClient, host: StubHost
) -> None:
    async def handler(call: dict[str, Any]) -> Answer:
        ctx = call["ctx"]
        if call["steps"]:
            return Answer(200, ctx["stack"]["stack"])
        body = {"steps": [step_run("s0", 0)], "generation_id": ctx["generation_id"]}
        await client.request("POST", f"/v1/checkpoint/{ctx['run_id']}/async", body)
        return ops(step_run("s1", 1))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == ["s0", "s1"]


async def test_stale_checkpoint_is_refused_and_stores_nothing(
    client: EngineClient, host: StubHost
) -> None:
    answers: list[int] = []

    async def handler(call: dict[str, Any]) -> Answer:
        ctx = call["ctx"]
        body = {"steps": [step_run("s0", 0)], "generation_id": ctx["generation_id"] + 1}
        status, _ = await client.request("POST", f"/v1/checkpoint/{ctx['run_id']}/async", body)
        answers.append(status)
        return Answer(200, list(call["steps"]))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert answers == [409]
    assert run["output"] == []


async def test_signal_wakes_the_run_that_waits(client: EngineClient, host: StubHost) -> None:
    opts = {"signal": "sig-1", "timeout": "10s"}
    host.handlers["app-f"] = lambda call: (
        Answer(200, call["steps"])
        if "s" in call["steps"]
        else ops({"op": "WaitForSignal", "id": "s", "displayName": "s", "opts": opts})
    )
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    async with asyncio.timeout(5):
        while True:
            status, answer = await client.request(
                "POST", "/v1/signals", {"signal": "sig-1", "data": {"a": 1}}
            )
            if status == 200:
                break
            assert status == 404
            await asyncio.sleep(0.01)
    run = await client.result(event_id)

    assert answer["data"]["run_id"] == run["run_id"]
    assert run["output"] == {"s": {"data": {"signal": "sig-1", "data": {"a": 1}}}}


async def test_malformed_checkpoints_are_refused(start_engine: StartEngine) -> None:
    async with start_engine() as (client, _):
        for body, reason in (
            ("{", "not JSON"),
            ({}, "'steps'"),
            ({"steps": [{"op": "Sleep", "id": "a"}]}, "only finished steps"),
        ):
            status, answer = await client.request("POST", "/v1/checkpoint/x/async", body)
            assert status == 400
            assert reason in answer["error"]


async def test_a_run_began_with_its_call_and_not_with_what_it_saved_first(hands: Hands) -> None:
    run = await hands.begin_leased()
    for seconds, name in ((3, "one"), (4, "two")):
        await hands.at(seconds)
        assert await hands.checkpoint([Checkpoint(run.run_id, "main", 1, (step(name),))]) == [True]

    row = await hands.run(run)
    assert row["started_at"] == NOON
    timeline = await hands.connection.fetch(
        "select name, ms from stepbase.run_timeline where run_id = $1 and what = 'step'", run.run_id
    )
    assert [tuple(each) for each in timeline] == [("one", 3000), ("two", 1000)]
