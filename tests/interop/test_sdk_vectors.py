"""Our functions answer the recorded calls of the real server as the official SDK did."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.interop.comparing import document, unexplained
from tests.support import vector_app
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.sdk_calls import Reply, call_body, untimed
from tests.support.sdk_hosts import Ask, ask_asgi

from stepbase import asgi
from stepbase.protocol import signing
from stepbase.sdk import http

FOLDER = Path(__file__).parents[1] / "vectors" / "inngest-server"
KEY = "0123456789abcdef0123456789abcdef"
NOT_YET = {
    "parallelerr", *vector_app.ONLY_DECLARED, *vector_app.DECLARED_WITHOUT_RETRIES,
}  # fmt: skip
"""Functions with steps stepbase does not have yet, or that no recording calls."""


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def exchanges(name: str) -> list[Any]:
    """Return the calls of a file with their answers."""
    raw = load(name)
    found = raw.get("exchanges") or raw.get("sdk_calls") or [raw]
    return [each for each in found if "fnId=" in each["request"]["path"]]


def cases() -> Iterator[Any]:
    """Yield every recorded call our functions can answer."""
    for path in sorted([*FOLDER.glob("[0-9]*.json"), *FOLDER.glob("scenario-*.json")]):
        if "big-state" in path.stem:
            continue  # its state has to be fetched: a test of its own
        for number, exchange in enumerate(exchanges(path.stem)):
            slug = exchange["request"]["path"].split("fnId=")[1].split("&")[0]
            name = slug.split("-", 1)[1]
            if name in NOT_YET:
                continue
            yield pytest.param(path.stem, exchange, id=f"{path.stem}-{number}")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    recorded = load("11-send-event-step")["exchanges"][1]["response"]["body"]
    with fake_api(lambda _: (200, recorded)) as running:
        monkeypatch.setenv("INNGEST_BASE_URL", running.url)
        yield running


def canonical(body: Any) -> bytes:
    return signing.canonical_json(json.dumps(body).encode())


def theirs(exchange: Any) -> Reply:
    response = exchange["response"]
    headers = {name.lower(): value for name, value in response["headers"]}
    return Reply(response["status"], headers, json.dumps(response["body"]).encode())


async def answer(ask: Ask, exchange: Any, *, key: str | None) -> Reply:
    path, _, query = exchange["request"]["path"].partition("?")
    body = canonical(exchange["request"]["body"])
    headers = {"host": "localhost:19101"}
    if key is not None:
        headers["x-inngest-signature"] = signing.sign(body, key, int(datetime.now(UTC).timestamp()))
    reply = await ask("POST", path=path, query=query, body=body, headers=headers)
    await http.aclose()
    return reply


@pytest.mark.parametrize(("name", "exchange"), list(cases()))
async def test_recorded_call(
    name: str, exchange: Any, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_signed = "start-mode" in name
    if is_signed:
        monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    else:
        monkeypatch.setenv("INNGEST_DEV", "1")
    ask = ask_asgi(asgi(vector_app.build("prodapp" if is_signed else "cap")))

    reply = await answer(ask, exchange, key=KEY if is_signed else None)

    assert unexplained(name, document(reply), document(theirs(exchange))) == []


async def test_sleeps_end_when_the_recorded_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    ask = ask_asgi(asgi(vector_app.build("cap")))

    nap = await answer(ask, exchanges("05-sleep")[0], key=None)
    until = await answer(ask, exchanges("scenario-sleepuntil")[0], key=None)

    now = datetime.now(UTC)
    assert now < datetime.fromisoformat(nap.op["name"]) <= now + timedelta(seconds=2)
    sent = exchanges("scenario-sleepuntil")[0]["request"]["body"]["event"]["ts"]
    expected = datetime.fromtimestamp(sent / 1000, UTC) + timedelta(seconds=2)
    assert datetime.fromisoformat(until.op["name"]) == expected


async def test_errors_in_steps_follow_typescript(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    ask = ask_asgi(asgi(vector_app.build("cap")))

    final = await answer(ask, exchanges("17-nonretriable-in-step")[0], key=None)
    later, done, end = [
        await answer(ask, exchange, key=None) for exchange in exchanges("18-retry-after")
    ]

    recorded = theirs(exchanges("17-nonretriable-in-step")[0]).body
    assert (final.op["op"], final.headers["x-inngest-no-retry"]) == ("StepFailed", "true")
    assert {k: final.op["error"][k] for k in ("code", "name", "message")} == {
        k: recorded[k] for k in ("code", "name", "message")
    }
    assert (later.op["op"], later.headers["retry-after"]) == ("StepError", "3")
    assert untimed(done.op) == theirs(exchanges("18-retry-after")[1]).op
    assert (end.status, end.body) == (200, "done")


async def test_sent_events_are_the_recorded_ones(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    ask = ask_asgi(asgi(vector_app.build("cap")))

    await answer(ask, exchanges("11-send-event-step")[0], key=None)

    recorded = load("11-send-event-step")["exchanges"][1]["request"]
    (sent,) = api.received
    assert sent.path == recorded["path"]
    assert "x-inngest-event-id-seed" in sent.headers
    kept = [{k: each[k] for k in ("name", "data")} for each in recorded["body"]]
    assert [{k: each[k] for k in ("name", "data")} for each in sent.body] == kept
    # Ours also give an id, so that a step that is run again sends nothing new.
    assert all(set(each) == {"name", "data", "ts", "id"} for each in sent.body)


async def test_a_recorded_signature_is_right_but_too_old_by_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    recorded = load("29-start-mode-signed-call")
    request = recorded["request"]
    header = dict(request["headers"])["X-Inngest-Signature"]
    body = canonical(request["body"])
    ask = ask_asgi(asgi(vector_app.build("prodapp")))

    signed_at = int(header.split("&")[0].removeprefix("t="))
    key = signing.verify(header, body, [KEY], signed_at)
    _, _, query = request["path"].partition("?")
    reply = await ask("POST", query=query, body=body, headers={"x-inngest-signature": header})

    assert key == KEY
    assert (reply.status, reply.body["code"]) == (401, "sig_expired")
    assert "x-inngest-no-retry" not in reply.headers


async def test_big_state_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [each for each in exchanges("scenario-big-state-use_api")]
    call = next(each for each in calls if each["request"]["body"]["use_api"])
    event = calls[0]["request"]["body"]["event"]
    stack = call["request"]["body"]["ctx"]["stack"]["stack"]

    def serve(request: Received) -> tuple[int, Any]:
        if request.path.endswith("/batch"):
            return 200, [event]
        return 200, {hashed: {"data": "x" * event["data"]["size"]} for hashed in stack}

    with fake_api(serve) as api:
        monkeypatch.setenv("INNGEST_DEV", api.url)
        ask = ask_asgi(asgi(vector_app.build("cap")))
        reply = await answer(ask, call, key=None)

    run_id = call["request"]["body"]["ctx"]["run_id"]
    assert [each.path for each in api.received] == [
        f"/v0/runs/{run_id}/batch",
        f"/v0/runs/{run_id}/actions",
    ]
    recorded = theirs(call).op
    assert recorded["data"].endswith(f"({len(reply.op['data'])} chars)")  # shortened when recorded
    assert {**untimed(reply.op), "data": ""} == {**recorded, "data": ""}


@pytest.mark.parametrize(
    ("name", "app_id", "origin"),
    [
        ("02-register-POST-fn-register", "cap", "http://127.0.0.1:19101"),
        ("28-start-mode-POST-fn-register", "prodapp", "http://127.0.0.1:19301"),
    ],
)
async def test_functions_register_as_recorded(
    name: str, app_id: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = load(name)
    monkeypatch.setenv("INNGEST_SERVE_ORIGIN", origin)
    if app_id == "cap":
        monkeypatch.setenv("INNGEST_DEV", "1")
    else:
        monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    with fake_api(lambda _: (200, recorded["response"]["body"])) as api:
        monkeypatch.setenv("INNGEST_BASE_URL", api.url)
        ask = ask_asgi(asgi(vector_app.build(app_id)))
        headers = {} if app_id == "cap" else {"x-inngest-server-kind": "cloud"}
        reply = await ask("PUT", headers=headers)
        await http.aclose()

    assert (reply.status, reply.body) == (200, recorded["response"]["body"])
    assert reply.headers["x-inngest-sync-kind"] == "out_of_band"
    (sent,) = api.received
    given = {name.lower(): value for name, value in recorded["request"]["headers"]}
    for header in ("authorization", "x-inngest-expected-server-kind", "content-type"):
        assert sent.headers.get(header) == given.get(header)
    expected = recorded["request"]["body"]
    for field in ("appname", "deploy_type", "url", "v"):
        assert sent.body[field] == expected[field]
    ours = comparable(sent.body["functions"])
    recorded_functions = comparable(expected["functions"])
    assert ours.keys() - recorded_functions.keys() <= {"cap-cron"}  # added after that recording
    assert {slug: ours[slug] for slug in recorded_functions} == recorded_functions


def comparable(functions: list[Any]) -> dict[str, Any]:
    """Key functions by id; ours say the retries the server would assume, theirs empty lists."""
    found = {}
    for function in functions:
        kept = {k: v for k, v in function.items() if v != []}
        step = kept["steps"]["step"]
        step.setdefault("retries", {"attempts": vector_app.DEFAULT_RETRIES})
        found[function["id"]] = kept
    return found


async def test_introspection_is_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    ask = ask_asgi(asgi(vector_app.build("cap")))

    reply = await ask("GET")

    recorded = theirs(load("26-introspection-GET-sdk"))
    name = "26-introspection-GET-sdk"
    assert unexplained(name, document(reply), document(recorded)) == []


async def test_requests_the_server_makes_are_asked_for_as_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    ask = ask_asgi(asgi(vector_app.build_requests()))

    for behaviour, output in vector_app.REQUESTED.items():
        first, *_, last = load("stub-sdk-odd-replies")[behaviour]["calls"]
        query = f"fnId=stub-{behaviour}&stepId=step"
        reply = await ask("POST", query=query, body=call_body())
        done = await ask("POST", query=query, body=call_body(steps=last["steps_in_request"]))

        # The recorded op is a hand-written SDK's, without the fields that only people read.
        (op,) = json.loads(first["reply"]["body"])
        assert {name: reply.op[name] for name in op} | {"opts": None} == {**op, "opts": None}
        assert op["opts"].items() <= reply.op["opts"].items()
        assert (done.status, done.body) == (200, output)
