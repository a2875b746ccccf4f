"""Steps in parallel, waits, invokes and signals through a real engine."""

import asyncio
import json
from typing import Any

from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run


def planned(hashed: str, **opts: object) -> dict[str, Any]:
    """Return a planned step."""
    return {"op": "StepPlanned", "id": hashed, "displayName": hashed, "opts": opts or None}


def wait(hashed: str, event: str, timeout: str, condition: str | None = None) -> dict[str, Any]:
    """Return a wait for an event."""
    opts = {"event": event, "timeout": timeout, "if": condition}
    return {"op": "WaitForEvent", "id": hashed, "displayName": hashed, "name": event, "opts": opts}


async def test_group_runs_each_step_once_and_then_goes_on(
    client: EngineClient, host: StubHost
) -> None:
    targets: list[str] = []

    def handler(call: dict[str, Any]) -> Answer:
        if set(call["steps"]) >= {"a", "b", "c"}:
            return Answer(200, call["steps"])
        target = call["_step_id"]
        targets.append(target)
        if target == "step":
            return ops(planned("a"), planned("b"), planned("c"))
        assert call["ctx"]["disable_immediate_execution"]
        return ops(step_run(target, target.upper()))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == {"a": {"data": "A"}, "b": {"data": "B"}, "c": {"data": "C"}}
    assert sorted(targets) == ["a", "b", "c", "step"]


async def test_failed_step_of_a_group_is_retried_alone(
    client: EngineClient, host: StubHost
) -> None:
    failures: list[int] = []

    def handler(call: dict[str, Any]) -> Answer:
        target = call["_step_id"]
        if set(call["steps"]) >= {"ok", "bad"}:
            return Answer(200, call["steps"]["bad"])
        if target == "step":
            return ops(planned("ok"), planned("bad"))
        if target == "ok":
            return ops(step_run("ok", 1))
        failures.append(call["ctx"]["attempt"])
        return ops({"op": "StepError", "id": "bad", "error": {"name": "E", "message": "no"}})

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f", retries=1)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert failures == [0, 1]
    assert run["output"] == {"error": {"name": "E", "message": "no"}}


async def test_step_tried_in_the_call_that_found_it_goes_on_with_the_next_attempt(
    client: EngineClient, host: StubHost
) -> None:
    calls: list[tuple[str, int]] = []
    error = {"name": "E", "message": "no"}

    def handler(call: dict[str, Any]) -> Answer:
        target = call["_step_id"]
        calls.append((target, call["ctx"]["attempt"]))
        if set(call["steps"]) >= {"ok", "bad", "worse"}:
            return Answer(200, call["steps"])
        if target == "step":
            tried = [{**planned(each), "error": error} for each in ("bad", "worse")]
            return ops(step_run("ok", 1), *tried)
        if target == "bad":
            return ops(step_run("bad", 2))
        return ops({"op": "StepError", "id": "worse", "error": error})

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f", retries=1)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == {"ok": {"data": 1}, "bad": {"data": 2}, "worse": {"error": error}}
    assert sorted(calls) == [("bad", 1), ("step", 0), ("step", 0), ("worse", 1)]


async def test_calls_say_that_groups_may_run_in_them_but_under_a_limit_of_steps(
    client: EngineClient, host: StubHost
) -> None:
    free, limited = "app-free", "app-limited"
    for slug in (free, limited):
        host.handlers[slug] = lambda _: Answer(200, None)
    await client.register(
        host.registration(host.function(free), host.function(limited, concurrency=[{"limit": 9}]))
    )

    for event_id in await client.send({"name": "app/free"}, {"name": "app/limited"}):
        await client.result(event_id)

    said = {
        json.loads(raw)["event"]["name"]: headers.get("x-stepbase-together")
        for headers, raw in host.requests
    }
    assert said == {"app/free": "true", "app/limited": None}


async def test_group_of_sleeps_and_waits_ends_when_the_last_does(
    client: EngineClient, host: StubHost
) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        if set(call["steps"]) >= {"nap", "w"}:
            return Answer(200, call["steps"])
        nap = {"op": "Sleep", "id": "nap", "displayName": "nap", "name": "100ms"}
        return ops(nap, wait("w", "app/go", "10s", "event.data.id == async.data.id"))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f", "data": {"id": 7}})
    await client.opened(event_id, "wait")
    await client.send({"name": "app/go", "data": {"id": 8}}, {"name": "app/go", "data": {"id": 7}})
    run = await client.result(event_id)

    assert run["output"]["nap"] is None
    assert run["output"]["w"]["data"] == {"id": 7}
    assert len(host.calls) == 2


async def test_wait_times_out_with_null(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: (
        Answer(200, call["steps"]) if "w" in call["steps"] else ops(wait("w", "app/go", "150ms"))
    )
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == {"w": None}


async def test_wait_with_a_condition_the_index_cannot_hold(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: (
        Answer(200, call["steps"])
        if "w" in call["steps"]
        else ops(wait("w", "app/go", "10s", "async.data.n > event.data.n"))
    )
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f", "data": {"n": 5}})
    await client.opened(event_id, "wait")
    await client.send({"name": "app/go", "data": {"n": 4}}, {"name": "app/go", "data": {"n": 6}})
    run = await client.result(event_id)

    assert run["output"]["w"]["data"] == {"n": 6}


async def test_invoke_returns_the_childs_result(client: EngineClient, host: StubHost) -> None:
    def parent(call: dict[str, Any]) -> Answer:
        if "call" in call["steps"]:
            return Answer(200, call["steps"])
        opts = {"function_id": "app-child", "payload": {"data": {"k": "v"}}}
        return ops({"op": "InvokeFunction", "id": "call", "displayName": "call", "opts": opts})

    host.handlers["app-f"] = parent
    host.handlers["app-child"] = lambda call: Answer(200, call["event"]["data"]["k"])
    await client.register(
        host.registration(host.function("app-f"), host.function("app-child", triggers=[]))
    )

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == {"call": {"data": "v"}}


async def test_invoke_of_an_unknown_function_and_of_one_too_slow(
    client: EngineClient, host: StubHost
) -> None:
    def parent(call: dict[str, Any]) -> Answer:
        if set(call["steps"]) >= {"missing", "slow"}:
            return Answer(200, call["steps"])
        asked = "slow" if "missing" in call["steps"] else "missing"
        opts = {"function_id": f"app-{asked}", "payload": {"data": {}}, "timeout": "200ms"}
        return ops({"op": "InvokeFunction", "id": asked, "displayName": asked, "opts": opts})

    host.handlers["app-f"] = parent
    host.handlers["app-slow"] = lambda call: ops({"op": "Sleep", "id": "z", "name": "1h"})
    await client.register(
        host.registration(host.function("app-f"), host.function("app-slow", triggers=[]))
    )

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert "could not find function" in run["output"]["missing"]["error"]["message"]
    assert run["output"]["slow"]["error"]["name"] == "InngestInvokeTimeoutError"


async def test_failure_starts_the_function_that_listens(
    client: EngineClient, host: StubHost
) -> None:
    told: list[dict[str, Any]] = []
    done = asyncio.Event()

    def on_failure(call: dict[str, Any]) -> Answer:
        told.append(call["event"])
        done.set()
        return Answer(200, None)

    host.handlers["app-f"] = lambda call: Answer(500, {"name": "E", "message": "no"})
    host.handlers["app-f-failure"] = on_failure
    trigger = {
        "event": "inngest/function.failed",
        "expression": "event.data.function_id == 'app-f'",
    }
    await client.register(
        host.registration(
            host.function("app-f", retries=0), host.function("app-f-failure", triggers=[trigger])
        )
    )

    [event_id] = await client.send({"name": "app/f", "data": {"a": 1}})
    await client.result(event_id)
    async with asyncio.timeout(5):
        await done.wait()

    assert told[0]["data"]["error"] == {
        "error": "invalid status code: 500",
        "name": "E",
        "message": "no",
    }
    assert told[0]["data"]["result"] == {"name": "E", "message": "no"}
    assert "correlation_id" not in told[0]["data"]
    assert told[0]["data"]["event"]["data"] == {"a": 1}


async def test_race_calls_after_each_step(client: EngineClient, host: StubHost) -> None:
    is_over = asyncio.Event()

    def handler(call: dict[str, Any]) -> Answer | Any:
        target = call["_step_id"]
        if "fast" in call["steps"] and target == "step":
            return Answer(200, sorted(call["steps"]))
        if target == "step":
            return ops(planned("fast", parallelMode="race"), planned("slow", parallelMode="race"))
        if target == "slow":
            return later(step_run("slow", 2))
        return ops(step_run("fast", 1))

    async def later(op: dict[str, Any]) -> Answer:
        await is_over.wait()
        return ops(op)

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)
    is_over.set()

    assert run["output"] == ["fast"]


async def test_run_that_wakes_with_more_state_than_a_call_carries_goes_on(
    client: EngineClient, host: StubHost
) -> None:
    big = "x" * (3 * 1024 * 1024)

    async def handler(call: dict[str, Any]) -> Answer:
        ctx, steps = call["ctx"], call["steps"]
        if call["use_api"]:
            _, steps = await client.request("GET", f"/v0/runs/{ctx['run_id']}/actions")
        if "nap" in steps:
            return Answer(200, list(steps))
        if len(steps) == 2:
            return ops({"op": "Sleep", "id": "nap", "displayName": "nap", "name": "100ms"})
        return ops(step_run(f"s{len(steps)}", big))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f", retries=0)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == ["s0", "s1", "nap"]


async def test_cancelled_run_leaves_no_step_asleep(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: ops({"op": "Sleep", "id": "nap", "name": "1h"})
    await client.register(host.registration(host.function("app-f", cancel=[{"event": "app/stop"}])))
    connection = await connect()

    [event_id] = await client.send({"name": "app/f"})
    async with asyncio.timeout(5):
        while await connection.fetchval("select status from stepbase.steps") != "sleeping":
            await asyncio.sleep(0.01)
    await client.send({"name": "app/stop"})
    run = await client.result(event_id)

    assert run["status"] == "Cancelled"
    assert await connection.fetchval("select status from stepbase.steps") == "cancelled"


async def test_function_may_have_a_retry_curve_of_its_own(
    start_engine: StartEngine, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: (
        Answer(200, "ok") if call["ctx"]["attempt"] else Answer(500, {"name": "E", "message": "no"})
    )
    async with start_engine(retry_interval=None) as (client, _):
        await client.register(
            host.registration(host.function("app-f", stepbase={"retryDelay": "100ms"}))
        )
        [event_id] = await client.send({"name": "app/f"})
        run = await client.result(event_id)

    assert run["output"] == "ok"


async def test_what_follows_a_race_runs_once_though_a_loser_ends_meanwhile(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    loser_ended = asyncio.Event()
    begun: list[str] = []
    nap = {"op": "Sleep", "id": "nap", "name": "100ms", "opts": {"parallelMode": "race"}}

    async def handler(call: dict[str, Any]) -> Answer:
        memos = call["steps"]
        if call["_step_id"] == "fast":
            return ops(step_run("fast", 1))
        if "after" in memos:
            return Answer(200, "done")
        if "fast" not in memos:
            return ops(planned("fast", parallelMode="race"), nap)
        begun.append("after")
        await loser_ended.wait()
        return ops(step_run("after", 2))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))
    connection = await connect()

    [event_id] = await client.send({"name": "app/f"})
    async with asyncio.timeout(10):
        while not await connection.fetchval(
            "select exists (select from stepbase.steps where hash = 'nap' and status = 'done')"
        ):
            await asyncio.sleep(0.02)
    parked = await connection.fetchval(
        "select due_at = 'infinity' from stepbase.queue where job = 'main'"
    )
    loser_ended.set()
    run = await client.result(event_id)

    assert (parked, run["output"], begun) == (True, "done", ["after"])


async def test_steps_are_planned_after_a_race_while_the_call_of_a_loser_goes_on(
    client: EngineClient, host: StubHost
) -> None:
    may_end = asyncio.Event()
    calls: list[tuple[str, bool]] = []

    async def handler(call: dict[str, Any]) -> Answer:
        """Do as the TypeScript SDK: plan what is new, but run a step that is alone."""
        memos, target = call["steps"], call["_step_id"]
        calls.append((target, call["ctx"]["disable_immediate_execution"]))
        if target == "slow":
            await may_end.wait()
        if target != "step":
            return ops(step_run(target, target))
        if len(memos) == 3:
            return Answer(200, [memos[each]["data"] for each in ("fast", "slow", "after")])
        missing = [
            each for each in ("fast", "slow", "after"[: 5 * len(memos)]) if each not in memos
        ]
        if len(missing) == 1 and not call["ctx"]["disable_immediate_execution"]:
            return ops(step_run(missing[0], "run twice"))
        if "fast" in memos and "after" in memos:
            may_end.set()
        return ops(*(planned(each, parallelMode="race") for each in missing if each))

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["output"] == ["fast", "slow", "after"]
    assert sorted(target for target, _ in calls if target != "step") == ["after", "fast", "slow"]
    assert {is_planning for target, is_planning in calls[1:-1] if target == "step"} == {True}
