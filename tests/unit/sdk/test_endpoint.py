"""The serve endpoint: modes, serve URLs, refusals. Requests go through ASGI, in process."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.fake_api import fake_api
from tests.support.sdk_calls import Reply, call_body, event
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, EngineOptions, Event, asgi
from stepbase.protocol import signing
from stepbase.sdk import http
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request

KEY = "signkey-test-" + "ab" * 16
app = App("shop")


@app.function("f", on="a/b", engine=EngineOptions(look_back="1m"))
async def f(event: Event[dict[str, Any]]) -> Any:
    return event.data


def signed(body: bytes) -> dict[str, str]:
    return {"x-inngest-signature": signing.sign(body, KEY, int(datetime.now(UTC).timestamp()))}


async def sync(
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    **options: Any,
) -> tuple[Reply, str | None]:
    """PUT the endpoint; returns the reply and the URL it registered."""
    with fake_api(lambda _: (200, {"ok": True})) as api:
        monkeypatch.setenv("INNGEST_BASE_URL", api.url)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        reply = await ask_asgi(asgi(app, **options))("PUT", body=body, headers=headers)
        await http.aclose()
        return reply, api.received[0].body["url"] if api.received else None


CLOUD = {"INNGEST_SIGNING_KEY": KEY}
SERVE = {"INNGEST_SERVE_ORIGIN": "https://real.host", "INNGEST_SERVE_PATH": "/compute/v1/shop"}
TOLD = b'{"url":"https://told.host/api/inngest"}'


@pytest.mark.parametrize(
    ("env", "options", "url"),
    [
        ({"INNGEST_DEV": "1"}, {}, "http://testserver/api/inngest"),
        ({"INNGEST_DEV": "1", **SERVE}, {}, "https://real.host/compute/v1/shop"),
        ({**CLOUD, **SERVE}, {}, "https://real.host/compute/v1/shop"),
        (
            CLOUD,
            {"serve_origin": "given.host", "serve_path": "here"},
            "https://given.host/here",
        ),
        (
            {**CLOUD, **SERVE},
            {"serve_origin": "https://given.host", "serve_path": "/here"},
            "https://real.host/compute/v1/shop",
        ),
        (CLOUD, {"serve_origin": "https://given.host/"}, "https://given.host/api/inngest"),
    ],
)
async def test_the_serve_url_is_what_is_configured(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], options: dict[str, Any], url: str
) -> None:
    reply, registered = await sync(monkeypatch, env, **options)

    assert reply.status == 200
    assert registered == url


async def test_in_cloud_mode_it_never_comes_from_the_host_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reply, registered = await sync(monkeypatch, CLOUD, body=TOLD)

    assert registered is None
    assert (reply.status, reply.body["code"]) == (500, "url_invalid")
    assert "set INNGEST_SERVE_ORIGIN" in reply.body["message"]


async def test_a_signed_sync_may_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, registered = await sync(monkeypatch, CLOUD, body=TOLD, headers=signed(TOLD))

    assert registered == "https://told.host/api/inngest"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"url":7}', b'{"url":"ftp://x"}'])
async def test_a_signed_sync_that_says_nothing_usable_is_refused(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    reply, registered = await sync(monkeypatch, CLOUD, body=body, headers=signed(body))

    assert (reply.status, registered) == (500, None)


async def test_an_app_without_functions_cannot_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    reply = await ask_asgi(asgi(App("empty")))("PUT")

    assert (reply.status, reply.body["code"]) == (500, "function_config_invalid")


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ((200, b"<html>"), 500, "answered the registration with HTTP 200 and no JSON object"),
        ((400, {"error": "App ID required"}), 400, "App ID required"),
    ],
)
async def test_what_the_server_says_is_relayed(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, Any], status: int, says: str
) -> None:
    with fake_api(lambda _: answer) as api:
        monkeypatch.setenv("INNGEST_DEV", api.url)
        reply = await ask_asgi(asgi(app))("PUT")
        await http.aclose()

    assert reply.status == status
    assert says in reply.content.decode()


async def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "http://127.0.0.1:1")

    reply = await ask_asgi(asgi(app))("PUT")
    await http.aclose()

    assert (reply.status, reply.body["code"]) == (500, "registration_failed")
    assert "no answer from http://127.0.0.1:1/fn/register" in reply.body["message"]


async def test_options_of_our_engine_are_missed_on_another_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "stepbase"):
        await sync(monkeypatch, {"INNGEST_DEV": "1"})

    assert "engine=EngineOptions(…) is ignored" in caplog.text


async def test_cloud_mode_without_a_key_answers_nothing_but_says_what_to_set() -> None:
    ask = ask_asgi(asgi(app))

    reply = await ask("POST", query="fnId=shop-f&stepId=step", body=call_body())

    assert (reply.status, reply.body["code"]) == (500, "signing_key_missing")
    assert "set INNGEST_SIGNING_KEY" in reply.body["message"]
    assert "x-inngest-no-retry" not in reply.headers


@pytest.mark.parametrize("header", ["", "abc", "t=&s=", "t=x&s=y", f"t={'9' * 20}&s=a", "s=a"])
async def test_a_malformed_signature_is_refused(
    monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)

    reply = await ask_asgi(asgi(app))(
        "POST",
        query="fnId=shop-f&stepId=step",
        body=call_body(),
        headers={"x-inngest-signature": header},
    )

    assert reply.status == 401
    assert "x-inngest-no-retry" not in reply.headers
    assert reply.headers["x-stepbase-outage"] == "true"


ODD_CALLS: dict[str, Any] = {
    "no ctx": {"event": {}},
    "ctx is a list": {"ctx": [], "event": {}},
    "no run id": {"ctx": {}, "event": {}},
    "run id is a number": {"ctx": {"run_id": 7}, "event": {}},
    "no event": {"ctx": {"run_id": "r"}},
    "event is text": {"ctx": {"run_id": "r"}, "event": "x"},
    "events hold text": {"ctx": {"run_id": "r"}, "event": {}, "events": ["x"]},
    "steps are a list": {"ctx": {"run_id": "r"}, "event": {}, "steps": []},
    "attempt is text": {"ctx": {"run_id": "r", "attempt": "1"}, "event": {}},
    "list": [],
    "number": 7,
}


@pytest.mark.parametrize("shape", ODD_CALLS)
async def test_a_body_that_is_no_call_is_a_400_that_names_the_field(
    monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    body = json.dumps(ODD_CALLS[shape]).encode()

    reply = await ask_asgi(asgi(app))("POST", query="fnId=shop-f&stepId=step", body=body)

    assert reply.status == 400
    assert (
        "of the call must be" in reply.body["message"] or "has no 'event'" in reply.body["message"]
    )
    assert "x-inngest-no-retry" not in reply.headers
    assert reply.headers["x-inngest-sdk"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
async def test_a_body_that_is_no_json_is_a_400(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    reply = await ask_asgi(asgi(app))("POST", query="fnId=shop-f&stepId=step", body=body)

    assert (reply.status, reply.body["code"]) == (400, "body_invalid")


@pytest.mark.parametrize("query", ["", "fnId=", "fnId=shop-g&stepId=step", "fnId=f&stepId=step"])
async def test_an_unknown_function_is_answered_so_that_the_server_retries(
    monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    reply = await ask_asgi(asgi(app))("POST", query=query, body=call_body())

    assert (reply.status, reply.body["code"]) == (500, "function_not_found")
    assert (
        "app 'shop' has shop-f; if it was renamed or removed, sync the app" in reply.body["message"]
    )
    assert "x-inngest-no-retry" not in reply.headers
    assert reply.headers["x-stepbase-outage"] == "true"


async def test_other_methods_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    reply = await ask_asgi(asgi(app))("DELETE")

    assert (reply.status, reply.body["code"]) == (405, "method_not_allowed")


async def test_head_describes_without_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    reply = await ask_asgi(asgi(app))("HEAD")

    assert (reply.status, reply.content) == (200, b"")


async def test_the_environment_name_rides_on_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("INNGEST_ENV", "branch-7")

    reply = await ask_asgi(asgi(app))("GET")

    assert reply.headers["x-inngest-env"] == "branch-7"


@pytest.mark.parametrize(
    "answers",
    [
        {"batch": (200, []), "actions": (200, {})},
        {"batch": (404, {"error": "gone"}), "actions": (200, {})},
        {"batch": (200, [event()]), "actions": (200, [])},
        {"batch": (200, [event()]), "actions": (200, b"<html>")},
    ],
)
async def test_state_that_cannot_be_fetched_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, Any]]
) -> None:
    body = {**json.loads(call_body()), "use_api": True, "event": event(), "events": []}

    with fake_api(lambda request: answers[request.path.rpartition("/")[2]]) as api:
        monkeypatch.setenv("INNGEST_DEV", api.url)
        reply = await ask_asgi(asgi(app))(
            "POST", query="fnId=shop-f&stepId=step", body=json.dumps(body).encode()
        )
        await http.aclose()

    assert reply.status == 500
    assert "x-inngest-no-retry" not in reply.headers


async def test_state_that_cannot_be_fetched_because_the_server_is_away_costs_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = {**json.loads(call_body()), "use_api": True, "event": event(), "events": []}
    monkeypatch.setenv("INNGEST_DEV", "http://127.0.0.1:1")

    reply = await ask_asgi(asgi(app))(
        "POST", query="fnId=shop-f&stepId=step", body=json.dumps(body).encode()
    )
    await http.aclose()

    assert (reply.status, reply.headers["x-stepbase-outage"]) == (503, "true")


async def test_even_a_bug_of_ours_is_answered_as_an_sdk(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    endpoint = Endpoint(app, framework="test")
    request = Request("POST", "http://x/", "fnId=shop-f&stepId=step", {}, None)  # type: ignore[arg-type]  # the bug

    response = await endpoint.ahandle(request)

    assert response.status == 500
    assert response.headers["x-inngest-sdk"]
    assert json.loads(response.body)["name"] == "TypeError"
    assert "a request could not be answered" in caplog.text
