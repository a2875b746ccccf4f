"""Apps that change, move, leave a function out, are removed and come back."""

import asyncio
from typing import Any

import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops

from stepbase.protocol.ids import function_uuid

SLEEP = {"op": "Sleep", "id": "z", "displayName": "nap", "name": "1h"}


async def listed(client: EngineClient) -> list[str]:
    """Return the slugs of the functions in use."""
    _, answer = await client.request("GET", "/dev")
    return sorted(each["slug"] for each in answer["functions"])


# -- what counts as a change -----------------------------------------------------------------------

CHANGES: dict[str, dict[str, object]] = {
    "name": {"name": "another"},
    "triggers": {"triggers": [{"event": "app/other"}]},
    "a condition": {"triggers": [{"event": "app/f", "expression": "event.data.x == 1"}]},
    "a schedule": {"triggers": [{"cron": "0 0 1 1 *"}]},
    "retries": {"retries": 7},
    "concurrency": {"concurrency": 3},
    "throttle": {"throttle": {"limit": 1, "period": "60s"}},
    "rateLimit": {"rateLimit": {"limit": 1, "period": "60s"}},
    "debounce": {"debounce": {"period": "5s"}},
    "batchEvents": {"batchEvents": {"maxSize": 5, "timeout": "5s"}},
    "priority": {"priority": {"run": "event.data.p"}},
    "idempotency": {"idempotency": "event.data.x"},
    "singleton": {"singleton": {"mode": "skip"}},
    "cancel": {"cancel": [{"event": "app/stop"}]},
    "timeouts": {"timeouts": {"start": "5s"}},
    "an option that is not known here": {"someday": 1},
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_part_of_a_function_is_a_change_and_nothing_twice(
    client: EngineClient, host: StubHost, change: str
) -> None:
    f, g = host.function("app-f", **CHANGES[change]), host.function("app-g")
    before = host.registration(host.function("app-f"), g)
    after, turned = host.registration(f, g), host.registration(g, f)

    answers = [
        await client.register(body) for body in (before, before, after, after, turned, before)
    ]

    assert [each["modified"] for each in answers] == [True, False, True, False, False, True]


async def test_an_app_that_moves_keeps_its_functions_and_is_called_at_the_new_place(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, None)
    await client.register(host.registration(host.function("app-f")))
    connection = await connect()
    id_before = await connection.fetchval("select function_id from stepbase.functions")
    moved = StubHost()
    await moved.start()
    moved.handlers["app-f"] = lambda call: Answer(200, "new place")
    try:
        new = moved.registration(moved.function("app-f"))
        assert [(await client.register(new))["modified"] for _ in "ab"] == [True, False]
        [event_id] = await client.send({"name": "app/f"})
        assert (await client.result(event_id))["output"] == "new place"
    finally:
        await moved.stop()

    assert await connection.fetchval("select function_id from stepbase.functions") == id_before
    assert id_before == function_uuid("f", f"{host.url}?fnId=app-f&stepId=step")


async def test_an_app_gets_a_function_back_that_another_one_took(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    mine = host.registration(host.function("app-one-f"), app="app")
    other = host.registration(host.function("app-one-f"), app="app-one")
    for body in (mine, other):
        await client.register(body)

    assert (await client.register(mine))["modified"] is True
    assert (await client.register(mine))["modified"] is False
    owner = "select a.name from stepbase.functions f join stepbase.apps a using (app_id)"
    assert await (await connect()).fetchval(owner) == "app"


# -- functions that are left out -------------------------------------------------------------------


async def test_a_function_that_is_left_out_starts_nothing_and_its_runs_go_on(
    client: EngineClient, host: StubHost
) -> None:
    gate = asyncio.Event()

    async def handler(call: dict[str, Any]) -> Answer:
        await gate.wait()
        return Answer(200, "went on")

    host.handlers["app-g"] = handler
    both = host.registration(host.function("app-f"), host.function("app-g"))
    await client.register(both)
    [before] = await client.send({"name": "app/g"})

    answer = await client.register(host.registration(host.function("app-f")))
    [after] = await client.send({"name": "app/g"})
    gate.set()

    assert answer["modified"] is True and await listed(client) == ["app-f"]
    assert (await client.result(before))["output"] == "went on"
    assert await client.runs_of(after) == []
    await client.register(both)
    [again] = await client.send({"name": "app/g"})
    assert (await client.result(again))["output"] == "went on"


async def test_a_function_that_is_left_out_cannot_be_invoked(
    client: EngineClient, host: StubHost
) -> None:
    opts = {"function_id": "app-g", "payload": {"data": {}}}
    invoke = {"op": "InvokeFunction", "id": "i", "displayName": "call", "opts": opts}
    host.handlers["app-f"] = lambda call: (
        Answer(200, call["steps"]) if call["steps"] else ops(invoke)
    )
    await client.register(host.registration(host.function("app-f"), host.function("app-g")))
    await client.register(host.registration(host.function("app-f")))

    [event_id] = await client.send({"name": "app/f"})

    error = {"name": "Error", "message": "could not find function with ID: app-g"}
    assert (await client.result(event_id))["output"] == {"i": {"error": error}}


# -- apps that are removed -------------------------------------------------------------------------


async def test_a_removed_app_starts_nothing_and_comes_back_when_it_registers(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, "done")
    cron = host.function("app-c", triggers=[{"cron": "0 0 1 1 *"}])
    body = host.registration(host.function("app-f"), cron)
    await client.register(body)
    await client.register(
        host.registration(host.function("other-f"), app="other") | {"url": "http://o/x"}
    )
    connection = await connect()

    removed = await client.request("DELETE", f"/fn/remove?url={host.url}")
    again = await client.request("DELETE", f"/fn/remove?url={host.url}")
    [lost] = await client.send({"name": "app/f"})

    assert removed == (200, {"ok": True, "removed": ["app"], "cancelled": 0})
    assert again == (404, {"error": f"there is no app at {host.url}", "status": 404})
    assert await listed(client) == ["other-f"]
    assert await client.runs_of(lost) == []
    assert await connection.fetchval("select count(*) from stepbase.crons") == 0
    assert (await client.register(body))["modified"] is True
    [found] = await client.send({"name": "app/f"})
    assert (await client.result(found))["output"] == "done"
    assert await connection.fetchval("select count(*) from stepbase.crons") == 1
    assert await listed(client) == ["app-c", "app-f", "other-f"]


async def test_loopback_is_one_place_and_an_app_can_be_named(
    client: EngineClient, host: StubHost
) -> None:
    await client.register(host.registration(host.function("app-f")))
    await client.register(host.registration(host.function("renamed-f"), app="renamed"))
    at_localhost = host.url.replace("127.0.0.1", "localhost")

    by_name = await client.request("DELETE", f"/fn/remove?url={at_localhost}&app=app")
    by_url = await client.request("DELETE", f"/fn/remove?url={at_localhost}")

    assert by_name[1]["removed"] == ["app"] and by_url[1]["removed"] == ["renamed"]


async def test_runs_of_a_removed_app_go_on_unless_their_end_is_asked_for(
    client: EngineClient, host: StubHost
) -> None:
    gate = asyncio.Event()

    async def handler(call: dict[str, Any]) -> Answer:
        await gate.wait()
        return Answer(200, "went on")

    host.handlers["app-f"] = handler
    host.handlers["app-g"] = lambda call: ops(SLEEP)
    body = host.registration(host.function("app-f"), host.function("app-g"))
    await client.register(body)
    [first] = await client.send({"name": "app/f"})

    await client.request("DELETE", "/fn/remove?app=app")
    gate.set()
    run = await client.result(first)
    await client.register(body)
    [second] = await client.send({"name": "app/g"})
    removed = await client.request("DELETE", "/fn/remove?app=app&cancel=true")

    assert (run["status"], run["output"]) == ("Completed", "went on")
    assert removed == (200, {"ok": True, "removed": ["app"], "cancelled": 1})
    assert (await client.result(second))["status"] == "Cancelled"
    rerun = await client.request("POST", f"/v1/runs/{run['run_id']}/rerun")
    assert rerun[0] == 409


async def test_other_engines_hear_of_it(start_engine: StartEngine, host: StubHost) -> None:
    async with start_engine() as (one, _), start_engine() as (two, engine):
        await one.register(host.registration(host.function("app-f")))
        await one.request("DELETE", "/fn/remove?app=app")

        [event_id] = await two.send({"name": "app/f"})

        assert await two.runs_of(event_id) == []
        assert [f.is_archived for f in engine.registry.functions.by_id.values()] == [True]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "expected ?url=<the app's serve URL> or ?app=<its id>"),
        ("?url=", "expected ?url=<the app's serve URL> or ?app=<its id>"),
        ("?app=x&cancel=maybe", "cancel must be true or false, got 'maybe'"),
    ],
)
async def test_a_removal_that_names_nothing(client: EngineClient, query: str, message: str) -> None:
    answer = await client.request("DELETE", f"/fn/remove{query}")

    assert answer == (400, {"error": message, "status": 400})
