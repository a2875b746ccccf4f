"""What an app says of its surroundings, and which key opens the server: every request it makes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.sdk_calls import call_object, event, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Event, Step, asgi, clock, config
from stepbase.protocol import signing
from stepbase.sdk import http

KEY, FALLBACK = "signkey-test-" + "ab" * 16, "signkey-test-" + "cd" * 16
BEARER = {key: f"Bearer {signing.hash_key(key)}" for key in (KEY, FALLBACK)}
app = App("shop")


@app.function("f", on="a/b")
async def f(event: Event[dict[str, Any]], step: Step) -> Any:
    return [event.name, await step.run("one", lambda: "run again")]


def signed(body: bytes) -> dict[str, str]:
    return {"x-inngest-signature": signing.sign(body, KEY, clock.now_s())}


def answer(request: Received) -> tuple[int, Any]:
    """Answer as a server that no longer knows the first key."""
    if request.path.startswith("/e/"):
        return 200, {"ids": ["01A"], "status": 200}
    if request.headers.get("authorization") == BEARER[KEY]:
        return 401, {"error": "Authentication failed", "status": 401}
    what = request.path.rpartition("/")[2]
    fetched = {"batch": [event(name="fetched")], "actions": {hashed("one"): {"data": "known"}}}
    return 200, fetched.get(what, {"ok": True})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A server; the app runs in cloud mode with two keys."""
    with fake_api(answer) as running:
        for name, value in {
            "INNGEST_SIGNING_KEY": KEY,
            "INNGEST_SIGNING_KEY_FALLBACK": FALLBACK,
            "INNGEST_EVENT_KEY": "e",
            "INNGEST_BASE_URL": running.url,
            "INNGEST_SERVE_ORIGIN": "https://shop.example",
        }.items():
            monkeypatch.setenv(name, value)
        yield running


async def fetch() -> Any:
    """Make a call whose state must be fetched."""
    shape = {**call_object(), "event": event(), "events": [], "steps": {}, "use_api": True}
    body = json.dumps(shape).encode()
    reply = await ask_asgi(asgi(app))(
        "POST", query="fnId=shop-f&stepId=step", body=body, headers=signed(body)
    )
    await http.aclose()
    assert reply.status == 200, reply.content
    return reply.body


async def test_state_is_fetched_with_the_fallback_key_when_the_first_is_refused(
    api: FakeApi,
) -> None:
    assert await fetch() == ["fetched", "known"]

    run = call_object()["ctx"]["run_id"]
    assert [(each.path, each.headers["authorization"]) for each in api.received] == [
        (f"/v0/runs/{run}/{what}", BEARER[key])
        for what in ("batch", "actions")
        for key in (KEY, FALLBACK)
    ]


async def test_every_request_says_environment_and_platform(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_ENV", "branch-7")
    monkeypatch.setenv("K_SERVICE", "shop")

    described = await ask_asgi(asgi(app))("GET")
    await ask_asgi(asgi(app))("PUT")
    await fetch()
    await app.send(Event("a/b"))
    await http.aclose()

    assert {each.path.split("/")[1] for each in api.received} == {"fn", "v0", "e"}
    for headers in (described.headers, *(each.headers for each in api.received)):
        assert headers["x-inngest-env"] == "branch-7"
        assert headers["x-inngest-platform"] == "cloud-run"
        assert headers["x-inngest-sdk"].startswith("stepbase")


@pytest.mark.parametrize(
    ("variables", "platform"),
    [
        ({}, None),
        ({"VERCEL": "1"}, "vercel"),
        ({"RENDER": "true"}, "render"),
        ({"RAILWAY_ENVIRONMENT": "production"}, "railway"),
        ({"K_SERVICE": "shop"}, "cloud-run"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "shop"}, "aws-lambda"),
        ({"INNGEST_SERVE_PATH": "/compute/v1/shop"}, "supabase-compute"),
        ({"INNGEST_SERVE_PATH": "/api/inngest"}, None),
    ],
)
def test_the_platform_is_found(
    variables: dict[str, str], platform: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert config.inngest().platform == platform


@pytest.mark.parametrize(
    ("variables", "env"),
    [
        ({}, None),
        ({"VERCEL_GIT_COMMIT_REF": "v"}, "v"),
        ({"VERCEL_GIT_COMMIT_REF": "v", "RENDER_GIT_BRANCH": "r"}, "r"),
        ({"RENDER_GIT_BRANCH": "r", "RAILWAY_GIT_BRANCH": "w"}, "w"),
        ({"RAILWAY_GIT_BRANCH": "w", "INNGEST_ENV": "mine"}, "mine"),
    ],
)
def test_the_environment_is_named_or_is_the_branch(
    variables: dict[str, str], env: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert config.inngest().env == env


TOLD = b'{"url":"https://shop.example/api/inngest"}'


@pytest.mark.parametrize("allowed", ["", "true", "1"])
async def test_a_signed_in_band_sync_is_answered_with_the_functions(
    api: FakeApi, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_ALLOW_IN_BAND_SYNC", allowed)
    monkeypatch.setenv("K_SERVICE", "shop")
    headers = {"x-inngest-sync-kind": "in_band", **signed(TOLD)}

    reply = await ask_asgi(asgi(app))("PUT", body=TOLD, headers=headers)

    assert api.received == []
    assert (reply.status, reply.headers["x-inngest-sync-kind"]) == (200, "in_band")
    assert [each["id"] for each in reply.body["functions"]] == ["shop-f"]
    assert reply.body["platform"] == "cloud-run"
    given = reply.headers["x-inngest-signature"]
    assert signing.verify(given, reply.content, [KEY], clock.now_s()) == KEY


@pytest.mark.parametrize("allowed", ["false", "0"])
async def test_in_band_syncs_can_be_turned_off(
    api: FakeApi, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_ALLOW_IN_BAND_SYNC", allowed)
    headers = {"x-inngest-sync-kind": "in_band", **signed(TOLD)}

    reply = await ask_asgi(asgi(app))("PUT", body=TOLD, headers=headers)
    await http.aclose()

    assert (reply.status, reply.headers["x-inngest-sync-kind"]) == (200, "out_of_band")
    assert [each.path for each in api.received] == ["/fn/register"] * 2


@pytest.mark.parametrize(("allowed", "status"), [("false", 401), ("", 200)])
async def test_unsigned_syncs_can_be_refused(
    api: FakeApi, allowed: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_ENABLE_UNAUTHED_SYNC", allowed)

    unsigned = await ask_asgi(asgi(app))("PUT", body=TOLD)
    asked = len(api.received)
    good = await ask_asgi(asgi(app))("PUT", body=TOLD, headers=signed(TOLD))
    await http.aclose()

    assert (unsigned.status, asked > 0) == (status, status == 200)
    assert good.status == 200
