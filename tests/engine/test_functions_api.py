"""Functions through the API: those of an app, one that is invoked, ids with a slash."""

from typing import Any

import pytest
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops

from stepbase.engine.starts import Functions
from stepbase.protocol.ids import app_uuid


async def test_functions_of_an_app(client: EngineClient, host: StubHost) -> None:
    triggers = [{"event": "app/f", "expression": "event.data.x == 1"}, {"cron": "0 0 1 1 *"}]
    options = {"concurrency": 2, "triggers": triggers, "retries": 2}
    await client.register(
        host.registration(host.function("app-f", **options), host.function("app-g"))
    )
    await client.register(host.registration(host.function("other-f"), app="other"))
    await client.request("POST", "/v1/functions/app-g/pause")

    status, found = await client.request("GET", "/v1/apps/app/functions")

    assert status == 200 and [each["id"] for each in found] == ["app-f", "app-g"]
    assert [each["is_paused"] for each in found] == [False, True]
    first = found[0]
    assert first["app_id"] == str(app_uuid("app")) and first["name"] == "f"
    assert first["config"] == {
        "id": first["internal_id"], "fv": 1, "name": "f", "slug": "app-f", "concurrency": 2,
        "triggers": triggers,
        "steps": [
            {"id": "step", "name": "step", "uri": f"{host.url}?fnId=app-f&stepId=step", "retries": 2}
        ],
    }  # fmt: skip
    await client.register(host.registration(host.function("app-g")))
    _, left = await client.request("GET", "/v1/apps/app/functions")
    assert [each["id"] for each in left] == ["app-g"]
    await client.request("DELETE", "/fn/remove?app=app")
    assert (await client.request("GET", "/v1/apps/app/functions"))[0] == 404


async def test_a_function_is_invoked_with_data(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["event"])
    await client.register(host.registration(host.function("app-f", triggers=[])))
    body = {"data": {"n": 1, "_inngest": {"fn_id": "app-other"}}, "user": {"id": "u"}, "id": "once"}

    status, answer = await client.request("POST", "/invoke/app-f", body)
    again = await client.request("POST", "/invoke/app-f", body)
    _, bare = await client.request("POST", "/invoke/app-f")

    assert (status, answer["status"]) == (200, 200)
    event = (await client.result(answer["id"]))["output"]
    assert (event["name"], event["user"], event["id"]) == (
        "inngest/function.invoked",
        {"id": "u"},
        "once",
    )
    assert event["data"] == {"n": 1, "_inngest": {"fn_id": "app-f"}}
    assert await client.runs_of(again[1]["id"]) == []
    assert (await client.result(bare["id"]))["output"]["data"] == {"_inngest": {"fn_id": "app-f"}}


@pytest.mark.parametrize(
    ("slug", "body", "status", "message"),
    [
        (
            "app-none",
            {},
            404,
            "there is no function 'app-none': expected the id it was synced with",
        ),
        ("app-f", "{", 400, ""),
        ("app-f", [], 400, 'expected {"data"?: {…}, "user"?: {…}, "id"?: "…"}'),
        ("app-f", {"data": 1}, 400, ""),
        ("app-f", {"data": {"x": "\x00"}}, 400, ""),
        ("app-f", {"data": {"x": "y" * (3 * 1024 * 1024)}}, 413, "an event may have 3145728 bytes"),
    ],
)
async def test_invokes_that_cannot_be(
    client: EngineClient, host: StubHost, slug: str, body: Any, status: int, message: str
) -> None:
    await client.register(host.registration(host.function("app-f")))

    got, answer = await client.request("POST", f"/invoke/{slug}", body)

    assert (got, answer["status"]) == (status, status)
    assert message in answer["error"]


async def test_a_function_this_engine_has_not_heard_of(
    start_engine: StartEngine, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, "known")
    async with start_engine() as (client, engine):
        await client.register(host.registration(host.function("app-f")))
        # As if another engine had synced the app, and the notification had been lost.
        engine.registry.functions = Functions([])

        status, answer = await client.request("POST", "/invoke/app-f")

        assert status == 200
        assert (await client.result(answer["id"]))["output"] == "known"


async def test_ids_with_a_slash(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-a/b"] = lambda call: ops({"op": "Sleep", "id": "z", "name": "1h"})
    await client.register(host.registration(host.function("app-a/b"), app="app/x"))

    paused = await client.request("POST", "/v1/functions/app-a/b/pause")
    resumed = await client.request("POST", "/v1/functions/app-a/b/resume")
    invoked = await client.request("POST", "/invoke/app-a/b")
    listed = await client.request("GET", "/v1/apps/app/x/functions")

    assert paused == (200, paused[1]) and paused[1]["data"] == {"id": "app-a/b", "is_paused": True}
    assert resumed[1]["data"]["is_paused"] is False
    assert invoked[0] == 200
    assert [each["id"] for each in listed[1]] == ["app-a/b"]
