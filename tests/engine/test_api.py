"""The engine's HTTP API: who may ask, what it answers, and calls that are signed."""

import asyncio
import re
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from starlette.routing import Route
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase import clock
from stepbase.engine.api import app as api
from stepbase.engine.app import Engine
from stepbase.errors import SignatureError
from stepbase.protocol import signing

KEY = "signkey-prod-" + "ab" * 16
FALLBACK = "signkey-prod-" + "cd" * 16
UNKNOWN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
SEED = {"x-inngest-event-id-seed": "1789997000000,AAECAwQFBgcICQ=="}


def routes(engine: Engine) -> list[tuple[str, str]]:
    """Return the method and a path of every route of the API."""
    found = []
    for route in api.build(engine).routes:
        assert isinstance(route, Route), f"{route} is no plain route: say here how to ask it"
        path = re.sub(r"\{[^}]+\}", UNKNOWN, route.path)
        found += [(method, path) for method in sorted(route.methods or ())]
    return found


async def test_with_keys_every_route_but_health_asks_for_one(start_engine: StartEngine) -> None:
    async with start_engine(signing_keys=(KEY, FALLBACK), event_keys=("k",)) as (client, engine):
        asked = routes(engine)
        for verb, path in asked:
            for header in ({}, {"authorization": "Bearer no"}, {"authorization": f"Basic {KEY}"}):
                status, answer = await client.request(verb, path, headers=header)

                if path == "/health":
                    assert status == 200
                    continue
                assert status == 401, (verb, path, header)
                if path.startswith("/e/"):
                    assert answer["error"] == "Event key not found"
                elif verb != "HEAD":
                    assert answer == {"error": "Authentication failed", "status": 401}
    assert {("POST", f"/e/{UNKNOWN}"), ("POST", "/v0/gql"), ("GET", "/metrics")} <= set(asked)
    assert len(asked) > 30


async def test_with_its_key_no_route_is_closed(start_engine: StartEngine) -> None:
    async with start_engine(KEY, signing_keys=(KEY,), event_keys=(UNKNOWN,)) as (client, engine):
        for verb, path in routes(engine):
            status, _ = await client.request(verb, path)

            assert status not in (401, 403, 405, 500), (verb, path)


async def test_the_key_opens_hashed_prefixed_and_raw(start_engine: StartEngine) -> None:
    tokens = [f(key) for key in (KEY, FALLBACK) for f in (signing.hash_key, signing.key_text, str)]
    tokens.append("signkey-prod-" + signing.hash_key(KEY))
    async with start_engine(signing_keys=(KEY, FALLBACK), event_keys=("k",)) as (client, _):
        for token in tokens:
            header = {"authorization": f"Bearer {token}"}
            status, _ = await client.request("GET", "/v1/events", headers=header)

            assert status == 200, token


async def test_without_keys_nobody_is_asked(client: EngineClient) -> None:
    await client.send({"name": "a/b"}, key="anything")
    assert (await client.request("GET", "/v1/events"))[0] == 200


async def test_calls_are_signed_as_both_packages_verify(
    start_engine: StartEngine, host: StubHost
) -> None:
    net = pytest.importorskip("inngest._internal.net")
    server_lib = pytest.importorskip("inngest._internal.server_lib")
    host.handlers["app-f"] = lambda call: Answer(200, None)
    async with start_engine(KEY, signing_keys=(KEY, FALLBACK), event_keys=("test",)) as (client, _):
        await client.register(host.registration(host.function("app-f")))
        [event_id] = await client.send({"name": "app/f", "data": {"ä": "ö", "n": 1.0}})
        await client.result(event_id)

    headers, raw = host.requests[0]
    given = {name.lower(): value for name, value in headers.items()}
    assert signing.verify(given["x-inngest-signature"], raw, [KEY], clock.now_s()) == KEY
    with pytest.raises(SignatureError):
        signing.verify(given["x-inngest-signature"], raw, [FALLBACK], clock.now_s())
    found = net.validate_request_sig(
        body=raw,
        headers=given,
        mode=server_lib.ServerKind.CLOUD,
        signing_key=KEY,
        signing_key_fallback=None,
    )
    assert found == KEY


async def test_calls_without_keys_are_not_signed(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, None)
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f"})
    await client.result(event_id)

    assert not [name for name in host.requests[0][0] if name.lower() == "x-inngest-signature"]


# -- events ----------------------------------------------------------------------------------------


async def test_events_are_listed_newest_first_and_found_by_id(client: EngineClient) -> None:
    sent = await client.send(
        {"name": "a/one", "id": "mine", "data": {"n": 1}, "ts": 1_700_000_000_000},
        {"name": "a/two", "user": {"id": 7}, "v": "2"},
    )

    _, listed = await client.request("GET", "/v1/events")
    _, named = await client.request("GET", "/v1/events?name=a/one")
    _, first = await client.request("GET", "/v1/events?limit=1")
    _, next_ = await client.request("GET", f"/v1/events?cursor={sent[1]}")
    _, one = await client.request("GET", f"/v1/events/{sent[0]}")

    assert [each["internal_id"] for each in listed["data"]] == sent[::-1]
    assert [each["name"] for each in named["data"]] == ["a/one"]
    assert [each["name"] for each in first["data"]] == ["a/two"]
    assert [each["name"] for each in next_["data"]] == ["a/one"]
    event = one["data"]
    assert (event["id"], event["name"], event["data"]) == ("mine", "a/one", {"n": 1})
    assert event["ts"] == 1_700_000_000_000
    assert set(one["metadata"]) == {"fetched_at", "cached_until"}


async def test_events_by_time_of_arrival(client: EngineClient) -> None:
    await client.send({"name": "a/b"})

    _, after = await client.request("GET", "/v1/events?received_after=2100-01-01T00:00:00Z")
    _, before = await client.request("GET", "/v1/events?received_before=2100-01-01T00:00:00Z")

    assert (len(after["data"]), len(before["data"])) == (0, 1)


async def test_questions_that_cannot_be_answered_say_why(client: EngineClient) -> None:
    cases = [
        ("GET", "/v1/events?limit=many", 400, "limit must be a number, got 'many'"),
        (
            "GET",
            "/v1/events?received_after=soon",
            400,
            "received_after must be an ISO 8601 time, got 'soon'",
        ),
        ("GET", "/v1/events/nonsense", 400, "Invalid event ID: nonsense"),
        ("GET", "/v1/events/nonsense/runs", 400, "Invalid event ID: nonsense"),
        ("GET", f"/v1/events/{UNKNOWN}", 404, "Event not found"),
        ("GET", "/v1/runs/nonsense", 400, "Invalid run ID: nonsense"),
        ("GET", f"/v1/runs/{UNKNOWN}", 404, f"run {UNKNOWN} is not known here"),
        ("GET", "/v1/runs/nonsense/jobs", 400, "Invalid run ID: nonsense"),
        ("GET", f"/v1/runs/{UNKNOWN}/jobs", 404, f"run {UNKNOWN} is not known here"),
        ("GET", "/v1/apps/none/functions", 404, "there is no app 'none'"),
        ("DELETE", "/v1/runs/nonsense", 400, "Invalid run ID: nonsense"),
        ("DELETE", f"/v1/runs/{UNKNOWN}", 404, f"run {UNKNOWN} is not known here"),
        ("POST", "/v1/signals", 400, 'expected {"signal": "<name>", "data": …}'),
        ("PUT", "/fn/sync", 400, 'expected {"url": "<the app\'s serve URL>"}'),
    ]
    for verb, path, wanted, message in cases:
        status, answer = await client.request(verb, path)

        assert (status, answer) == (wanted, {"error": message, "status": wanted}), path
    _, runs = await client.request("GET", f"/v1/events/{UNKNOWN}/runs")
    assert runs["data"] == []


async def test_a_seed_makes_the_ids_and_a_repeated_send_repeats_them(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["id"])
    await client.register(host.registration(host.function("app-f")))
    events = [{"name": "app/f", "data": {"n": n}} for n in range(3)]

    first = await client.request("POST", "/e/test", events, SEED)
    again = await client.request("POST", "/e/test", events, SEED)
    ids = first[1]["ids"]
    outputs = [(await client.result(event_id))["output"] for event_id in ids]

    assert first == again
    assert first[0] == 200
    assert len(set(ids)) == 3 and outputs == ids
    assert await (await connect()).fetchval("select count(*) from stepbase.runs") == 3


async def test_malformed_seed_is_passed_over(client: EngineClient) -> None:
    for seed in ("", "now,AAAA", "1,AAECAwQFBgcICQ", f"{1 << 48},AAECAwQFBgcICQ==", "-1,"):
        status, answer = await client.request(
            "POST", "/e/test", {"name": "a/b"}, {"x-inngest-event-id-seed": seed}
        )
        assert status == 200 and len(answer["ids"][0]) == 26, seed


# -- runs ------------------------------------------------------------------------------------------


async def test_run_is_cancelled_through_the_api_once(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: ops({"op": "Sleep", "id": "nap", "name": "1h"})
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f"})
    async with asyncio.timeout(5):
        await host.called.wait()
    [run] = await client.runs_of(event_id)
    assert run["status"] in ("Scheduled", "Running") and run["ended_at"] is None

    first = await client.request("DELETE", f"/v1/runs/{run['run_id']}")
    again = await client.request("DELETE", f"/v1/runs/{run['run_id']}")
    _, answer = await client.request("GET", f"/v1/runs/{run['run_id']}")
    _, jobs = await client.request("GET", f"/v1/runs/{run['run_id']}/jobs")

    assert first == again == (204, "")
    assert answer["data"]["status"] == "Cancelled"
    assert answer["data"]["output"] == {"name": "Cancelled", "message": "cancelled through the API"}
    assert jobs["data"] == []


async def test_completed_run_stays_completed_when_it_is_cancelled(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, "done")
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert await client.request("DELETE", f"/v1/runs/{run['run_id']}") == (204, "")
    assert (await client.result(event_id)) == run


async def test_state_of_a_live_run_and_410_after_its_end(
    client: EngineClient, host: StubHost
) -> None:
    seen: list[Any] = []

    async def handler(call: dict[str, Any]) -> Answer:
        if not call["steps"]:
            return ops(step_run("s", {"n": 2**60}))
        for part in ("batch", "actions"):
            path = f"/v0/runs/{call['ctx']['run_id']}/{part}"
            seen.append(await client.request("GET", path))
        seen.append(call)
        return Answer(200, None)

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f", "data": {"n": 1}})
    run = await client.result(event_id)

    batch, actions, call = seen
    assert batch == (200, call["events"])
    assert actions == (200, {"s": {"data": {"n": 2**60}}}) == (200, call["steps"])
    for part in ("batch", "actions"):
        assert await client.request("GET", f"/v0/runs/{run['run_id']}/{part}") == (
            410,
            {
                "error": f"runtime state is no longer available for runID: {run['run_id']}",
                "status": 410,
            },
        )


async def test_call_with_more_than_four_mebibytes_leaves_the_state_to_be_fetched(
    client: EngineClient, host: StubHost
) -> None:
    big = "x" * (3 * 1024 * 1024)

    def handler(call: dict[str, Any]) -> Answer:
        if not call["use_api"]:
            return ops(step_run(f"s{len(call['steps'])}", big))
        return Answer(
            200,
            {
                "ctx": call["ctx"]["use_api"],
                "stack": call["ctx"]["stack"]["stack"],
                "steps": call["steps"],
                "events": call["events"],
                "name": call["event"]["name"],
            },
        )

    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f"})

    assert (await client.result(event_id))["output"] == {
        "ctx": True,
        "stack": ["s0", "s1"],
        "steps": {},
        "events": [],
        "name": "app/f",
    }
    assert max(len(raw) for _, raw in host.requests) <= 4 * 1024 * 1024


# -- syncs and modes -------------------------------------------------------------------------------


async def test_sync_asks_the_app_and_relays_its_answer(
    client: EngineClient, host: StubHost
) -> None:
    asked: list[Any] = []

    async def register(request: web.Request) -> web.Response:
        asked.append((await request.json(), request.headers["x-inngest-server-kind"]))
        return web.json_response({"message": "registered"}, status=202)

    app = web.Application()
    app.router.add_put("/api/inngest", register)
    async with TestServer(app) as served:
        url = str(served.make_url("/api/inngest"))
        answer = await client.request("PUT", "/fn/sync", {"url": url})

    assert answer == (202, {"message": "registered"})
    assert asked == [({"url": url}, "dev")]


async def test_sync_of_an_app_that_is_not_there_says_so(
    client: EngineClient, host: StubHost
) -> None:
    await host.stop()

    status, answer = await client.request("PUT", "/fn/sync", {"url": host.url})

    assert status == 502
    assert answer["error"].startswith(f"cannot connect to 127.0.0.1:{host.port}: ")
    status, answer = await client.request("PUT", "/fn/sync", {"url": "ftp://app"})
    assert (status, answer["error"]) == (400, 'expected {"url": "<the app\'s serve URL>"}')


async def test_dev_page_is_there_in_dev_mode_only(
    client: EngineClient, start_engine: StartEngine, host: StubHost
) -> None:
    await client.register(host.registration(host.function("app-f")))

    status, answer = await client.request("GET", "/dev")

    assert status == 200
    assert answer["authed"] is False
    assert [(each["slug"], each["name"]) for each in answer["functions"]] == [("app-f", "f")]
    async with start_engine(KEY, signing_keys=(KEY,), event_keys=("k",)) as (other, _):
        assert await other.request("GET", "/dev") == (
            404,
            {"error": "not in dev mode", "status": 404},
        )


@pytest.mark.parametrize(("keys", "kind"), [((), "dev"), ((KEY,), "cloud")])
async def test_every_answer_says_the_mode(
    start_engine: StartEngine, keys: tuple[str, ...], kind: str
) -> None:
    async with (
        start_engine(signing_keys=keys, event_keys=("k",)) as (client, _),
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
    ):
        for path in ("/v1/events", f"/v1/runs/{UNKNOWN}", "/dev"):
            async with session.get(client.url + path) as response:
                assert response.headers["x-inngest-server-kind"] == kind
