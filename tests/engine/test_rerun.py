"""Runs made again: wholly, from a step, from a step with another input."""

from typing import Any

import pytest
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase.protocol.ids import hash_step_id

A, B, C = (hash_step_id(step) for step in "abc")


def three_steps(call: dict[str, Any]) -> Answer:
    """Run a, b and c, each with what it is given; the output says what came of them."""
    for hashed in (A, B, C):
        memo = call["steps"].get(hashed, {})
        if "data" not in memo:
            return ops(step_run(hashed, memo.get("input", len(call["steps"]))))
    return Answer(200, [call["steps"][each]["data"] for each in (A, B, C)])


async def run_once(client: EngineClient, host: StubHost, **options: Any) -> dict[str, Any]:
    """Run app-f once and forget its calls."""
    await client.register(host.registration(host.function("app-f", **options)))
    [event_id] = await client.send({"name": "app/f", "data": {"id": 7}})
    run = await client.result(event_id)
    host.calls.clear()
    return run


async def again(client: EngineClient, run: dict[str, Any], body: object = None) -> dict[str, Any]:
    """Ask for a rerun, and wait for its end."""
    status, answer = await client.request("POST", f"/v1/runs/{run['run_id']}/rerun", body)
    assert status == 200, answer
    runs = await client.ended(run["event_id"], len(await client.runs_of(run["event_id"])))
    [new] = [each for each in runs if each["run_id"] == answer["data"]["run_id"]]
    return new


async def test_a_run_is_made_again_from_its_event(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = three_steps
    first = await run_once(client, host)
    second = await again(client, first)
    third = await again(client, second)

    assert second["output"] == third["output"] == first["output"] == [0, 1, 2]
    assert [each.get("original_run_id") for each in (first, second, third)] == [
        None,
        first["run_id"],
        first["run_id"],
    ]
    assert host.calls[0]["event"]["data"] == {"id": 7}
    assert host.calls[0]["steps"] == {} and host.calls[0]["version"] == -1
    assert len({each["run_id"] for each in (first, second, third)}) == 3


@pytest.mark.parametrize("step", ["b", B], ids=["id", "hash"])
async def test_a_run_is_made_again_from_a_step(
    client: EngineClient, host: StubHost, step: str
) -> None:
    host.handlers["app-f"] = three_steps
    first = await run_once(client, host)
    host.handlers["app-f"] = lambda call: (
        Answer(200, "b again") if set(call["steps"]) == {A} else Answer(400, {"name": "E"})
    )

    new = await again(client, first, {"from_step": {"id": step}})

    assert new["output"] == "b again"
    assert host.calls[0]["ctx"]["stack"] == {"stack": [A], "current": 1}
    assert host.calls[0]["version"] == 2


async def test_a_step_may_get_another_input(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = three_steps
    first = await run_once(client, host)

    new = await again(client, first, {"from_step": {"id": "b", "input": [{"n": 5}, "x"]}})

    assert new["output"] == [0, [{"n": 5}, "x"], 2]
    assert [call["steps"].get(B) for call in host.calls] == [
        {"input": [{"n": 5}, "x"]},
        {"data": [{"n": 5}, "x"]},
        {"data": [{"n": 5}, "x"]},
    ]
    # An edited input is no stored result: it is not in the stack.
    assert [call["ctx"]["stack"]["stack"] for call in host.calls] == [[A], [A, B], [A, B, C]]


async def test_an_edited_input_is_fetched_with_a_large_state(
    client: EngineClient, host: StubHost
) -> None:
    fetched: list[dict[str, Any]] = []

    async def large(call: dict[str, Any]) -> Answer:
        steps = call["steps"]
        if call["use_api"]:
            _, steps = await client.request("GET", f"/v0/runs/{call['ctx']['run_id']}/actions")
            fetched.append(steps)
        for hashed in (A, B, C):
            if "data" not in steps.get(hashed, {}):
                return ops(step_run(hashed, "x" * 3_000_000 if hashed != C else "c"))
        return Answer(200, "done")

    host.handlers["app-f"] = large
    first = await run_once(client, host)
    fetched.clear()

    assert (await again(client, first, {"from_step": {"id": "c", "input": [1]}}))[
        "output"
    ] == "done"
    assert [each[C] for each in fetched] == [{"input": [1]}, {"data": "c"}]


async def test_a_rerun_can_be_cancelled_by_the_events_that_cancel_runs(
    client: EngineClient, host: StubHost
) -> None:
    asleep = ops({"op": "Sleep", "id": "nap", "displayName": "nap", "name": "1h"})
    host.handlers["app-f"] = lambda call: Answer(200, "ended")
    cancel = [{"event": "app/stop", "if": "event.data.id == async.data.id"}]
    first = await run_once(client, host, cancel=cancel)
    host.handlers["app-f"] = lambda call: asleep
    path = f"/v1/runs/{first['run_id']}/rerun"
    _, answer = await client.request("POST", path)

    await client.send({"name": "app/stop", "data": {"id": 8}})
    await client.send({"name": "app/stop", "data": {"id": 7}})
    runs = await client.ended(first["event_id"], 2)

    assert {run["run_id"]: run["status"] for run in runs} == {
        first["run_id"]: "Completed",
        answer["data"]["run_id"]: "Cancelled",
    }


async def test_what_cannot_be_made_again_is_refused(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = three_steps
    first = await run_once(client, host)
    path = f"/v1/runs/{first['run_id']}/rerun"

    async def refused(where: str, body: object) -> tuple[int, str]:
        status, answer = await client.request("POST", where, body)
        return status, answer["error"]

    unknown = "01M84KAFN1Q4XE7537F51DKV1K"
    assert (await refused("/v1/runs/nope/rerun", None))[0] == 400
    assert await refused(f"/v1/runs/{unknown}/rerun", {}) == (
        404,
        f"run {unknown} is not known here",
    )
    assert (await refused(path, {"from_step": {"id": "zzz"}}))[1].endswith("has no step 'zzz'")
    for body in ("{", "[]", {"from_step": "b"}, {"from_step": {"id": "b", "input": "x"}}):
        assert (await refused(path, body))[0] == 400, body

    host.handlers["app-f"] = lambda call: ops({"op": "Sleep", "id": "z", "name": "1h"})
    [event_id] = await client.send({"name": "app/f"})
    while not (runs := await client.runs_of(event_id)):
        pass
    assert (await refused(f"/v1/runs/{runs[0]['run_id']}/rerun", {}))[0] == 409
    await client.register(host.registration(host.function("app-other")))
    assert await refused(path, {}) == (
        409,
        f"the function of run {first['run_id']} is no longer registered",
    )


async def test_a_rerun_needs_the_key(start_engine: StartEngine) -> None:
    async with start_engine(signing_keys=("ab" * 16,), event_keys=("e",)) as (client, _):
        for path in ("/v1/runs/01M84KAFN1Q4XE7537F51DKV1K/rerun", "/v1/cancellations"):
            assert (await client.request("POST", path, {}))[0] == 401
