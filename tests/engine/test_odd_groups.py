"""Functions that answer parallel calls in ways they should not: their runs end, or go on; none hangs."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

ERROR = {"name": "E", "message": "m"}


def planned(*ids: str) -> list[dict[str, Any]]:
    return [{"op": "StepPlanned", "id": each, "displayName": each} for each in ids]


def failing(hashed: str) -> dict[str, Any]:
    return {"op": "StepError", "id": hashed, "displayName": hashed, "error": ERROR}


class Group:
    """Plans p1 and p2, returns when both are there; what is said in the call for p1 is the test's."""

    def __init__(self, host: StubHost, answer: Callable[[dict[str, Any]], Answer]) -> None:
        self._host = host
        self._answer = answer

    def __call__(self, call: dict[str, Any]) -> Answer:
        target = self._host.requests[-1][0]["x-inngest-step-id"]
        if target == "p1":
            return self._answer(call)
        if target != "step":
            return ops(step_run(target, target))
        if {"p1", "p2"} <= call["steps"].keys():
            return Answer(200, sorted(call["steps"]))
        return ops(*planned("p1", "p2"))


@pytest.mark.parametrize(
    "answer",
    [
        ops(step_run("other", 1)),
        ops(failing("other")),
        ops(*planned("p3")),
        ops(*planned("p1")),
        ops({"op": "Sleep", "id": "other", "name": "10ms"}),
        ops({"op": "Sleep", "id": "p1", "name": "10ms"}),
        ops({"op": "DiscoveryRequest", "id": "d"}),
    ],
    ids=[
        "another step", "another's error", "a plan", "its own plan", "a sleep",
        "its own sleep", "discovery",
    ],
)  # fmt: skip
async def test_a_call_for_a_planned_step_that_never_brings_it_ends_the_run(
    client: EngineClient, host: StubHost, answer: Answer
) -> None:
    host.handlers["app-f"] = Group(host, lambda call: answer)
    await client.register(host.registration(host.function("app-f", retries=2)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["status"] == "Failed"
    assert run["output"] == {
        "name": "NoProgress",
        "message": "the function neither finished nor went on: it did not bring the planned step it "
        "was called for. Step ids must be the same at every call.",
    }
    attempts = [c["ctx"]["attempt"] for c in _calls_for(host, "p1")]
    assert attempts == [0, 1, 2]


@pytest.mark.parametrize("answer", [ops(), ops({"op": "None", "id": "x"})], ids=["nothing", "None"])
async def test_a_planned_step_that_its_function_went_on_without_is_closed_with_an_error(
    client: EngineClient, host: StubHost, answer: Answer
) -> None:
    seen = []
    group = Group(host, lambda call: answer)

    def handler(call: dict[str, Any]) -> Answer:
        seen.append(call["steps"].get("p1"))
        return group(call)

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f", retries=2)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert (run["status"], run["output"]) == ("Completed", ["p1", "p2"])
    error = {"name": "StepAbandoned", "message": "the function went on without this step"}
    assert seen[-1] == {"error": error}
    assert len(_calls_for(host, "p1")) == 1


async def test_a_call_for_a_planned_step_may_bring_it_at_a_later_try(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = Group(
        host, lambda call: ops(step_run("p1" if call["ctx"]["attempt"] else "other", 1))
    )
    await client.register(host.registration(host.function("app-f", retries=1)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert (run["status"], run["output"]) == ("Completed", ["other", "p1", "p2"])


@pytest.mark.parametrize(
    ("answer", "status", "output"),
    [
        (Answer(200, "early"), "Completed", "early"),
        (ops({"op": "RunComplete", "id": "d", "data": 1}), "Completed", 1),
        (Answer(500, ERROR), "Failed", ERROR),
    ],
    ids=["200", "RunComplete", "500"],
)
async def test_a_call_for_a_planned_step_may_end_the_run(
    client: EngineClient, host: StubHost, answer: Answer, status: str, output: object
) -> None:
    host.handlers["app-f"] = Group(host, lambda call: answer)
    await client.register(host.registration(host.function("app-f", retries=0)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert (run["status"], run["output"]) == (status, output)


@pytest.mark.parametrize(
    "beside",
    [
        planned("p1"),
        [{"op": "Sleep", "id": "p1", "name": "10ms"}],
        [{"op": "WaitForEvent", "id": "p1", "name": "app/never", "opts": {"timeout": "10ms"}}],
    ],
    ids=["planned", "sleep", "wait"],
)
async def test_what_is_opened_beside_a_step_tried_again_is_not_forgotten(
    client: EngineClient, host: StubHost, beside: list[dict[str, Any]]
) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        if host.requests[-1][0]["x-inngest-step-id"] == "p1":
            return ops(step_run("p1", 1))
        if call["steps"].keys() == {"a", "p1"}:
            return Answer(200, "done")
        tried = [failing("a")] if not call["ctx"]["attempt"] else [step_run("a", 1)]
        return ops(*([] if "a" in call["steps"] else tried), *beside)

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f", retries=1)))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert (run["status"], run["output"]) == ("Completed", "done")


def _calls_for(host: StubHost, hashed: str) -> list[dict[str, Any]]:
    calls = zip(host.requests, host.calls, strict=True)
    return [call for (headers, _), call in calls if headers["x-inngest-step-id"] == hashed]
