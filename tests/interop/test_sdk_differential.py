"""The official packages are the judges: the same request bytes to each of them and to us, answers equal.

What may differ is listed, with reasons, in `differences.py`; shapes that differ as a whole are checked
by themselves here. A new verb needs a row in `CALLS`, its calls in `tests/support/peers.py` and in
`typescript/cases.mjs`, and a feature in `features.py`.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from tests.interop.differences import DIFFERENCES, SDKS, Sdk
from tests.interop.features import (
    ABSENT,
    FEATURES,
    UNASKED,
    differing,
    differing_documents,
    feature_of,
)
from tests.support import peers
from tests.support.fake_api import FakeApi, Received
from tests.support.peers import EVENT_KEY, FALLBACK, KEY, Peers
from tests.support.sdk_calls import Reply, call_object, event, hashed
from tests.support.sdk_hosts import Ask
from tests.support.typescript import TypeScript

from stepbase.protocol import signing
from stepbase.sdk import http

A, B, C = hashed("a"), hashed("b"), hashed("c")
ERROR = {"error": {"name": "ValueError", "message": "boom", "stack": "Traceback: boom"}}
AWAITED = {
    "name": "order/paid",
    "data": {"id": 7},
    "id": "01P",
    "ts": 1_795_451_390_000,
    "user": {},
}
FETCHED = {"url": peers.FETCH_URL, "status_code": 200, "headers": {"X-T": "1"}, "body": "text"}

CALLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "return": ({"k": "return", "value": "object"}, {}),
    **{f"return {name}": ({"k": "return", "value": name}, {}) for name in (
        "none", "zero", "empty", "list", "false", "float", "text",
    )},
    "error of function": ({"k": "raise", "fail": "error"}, {}),
    "error with a cause": ({"k": "raise", "fail": "cause"}, {}),
    "nonretriable in function": ({"k": "raise", "fail": "final"}, {}),
    "retry after in function": ({"k": "raise", "fail": "later"}, {}),
    "run": ({"k": "run"}, {}),
    **{f"run {name}": ({"k": "run", "value": name}, {}) for name in (
        "none", "zero", "empty", "list", "false", "float", "text",
    )},
    "run, memo": ({"k": "run"}, {"steps": {A: {"data": {"b": [1, None]}}}}),
    "run, memo null": ({"k": "run"}, {"steps": {A: {"data": None}}}),
    "run, memo bare null": ({"k": "run"}, {"steps": {A: None}}),
    "run, memo not wrapped": ({"k": "run"}, {"steps": {A: {"name": "x", "data": 1}}}),
    "run, memo bare value": ({"k": "run"}, {"steps": {A: [1, 2]}}),
    "run, error memo": ({"k": "run"}, {"steps": {A: ERROR}}),
    "catch, error memo": ({"k": "catch"}, {"steps": {A: ERROR}}),
    "error in step": ({"k": "run", "fail": "error"}, {}),
    "error in step, with a cause": ({"k": "run", "fail": "cause"}, {}),
    "error in step, attempt 2": ({"k": "run", "fail": "error"}, {"attempt": 2}),
    "error in step, last attempt": ({"k": "run", "fail": "error"}, {"attempt": 3}),
    "error in step, no limit": ({"k": "run", "fail": "error"}, {"max_attempts": None}),
    "nonretriable in step": ({"k": "run", "fail": "final"}, {}),
    "retry after in step": ({"k": "run", "fail": "later"}, {}),
    "run, planning": ({"k": "run"}, {"is_planning": True}),
    "run, targeted": ({"k": "run"}, {"step_id": A}),
    "run, targeted while planning": ({"k": "run"}, {"step_id": A, "is_planning": True}),
    "unexpected step": ({"k": "run"}, {"step_id": hashed("gone")}),
    "twice, first memo": ({"k": "twice"}, {"steps": {A: {"data": 1}}}),
    "twice, both memos": ({"k": "twice"}, {"steps": {A: {"data": 1}, hashed("a", 1): {"data": 2}}}),
    "sleep": ({"k": "sleep"}, {}),
    "sleep, planning": ({"k": "sleep_until"}, {"is_planning": True}),
    "sleep until": ({"k": "sleep_until"}, {}),
    "sleep until, targeted": ({"k": "sleep_until"}, {"step_id": A}),
    "sleep, memo": ({"k": "sleep"}, {"steps": {A: None}}),
    "send": ({"k": "send"}, {}),
    "send, memo": ({"k": "send"}, {"steps": {A: {"data": ["01A"]}}}),
    "wait": ({"k": "wait"}, {}),
    "wait, with a condition": ({"k": "wait", "if": "async.data.id == event.data.id"}, {}),
    "wait, planning": ({"k": "wait"}, {"is_planning": True}),
    "wait, targeted": ({"k": "wait"}, {"step_id": A}),
    "wait, came": ({"k": "wait"}, {"steps": {A: AWAITED}}),
    "wait, time up": ({"k": "wait"}, {"steps": {A: None}}),
    "invoke": ({"k": "invoke"}, {}),
    "invoke, planning": ({"k": "invoke"}, {"is_planning": True}),
    "invoke by id": ({"k": "invoke_by_id"}, {}),
    "invoke, done": ({"k": "invoke"}, {"steps": {A: {"data": {"b": [1, None]}}}}),
    "invoke, done with null": ({"k": "invoke"}, {"steps": {A: {"data": None}}}),
    "invoke, failed": ({"k": "invoke"}, {"steps": {A: ERROR}}),
    "signal wait": ({"k": "wait_for_signal"}, {}),
    "signal wait, came": (
        {"k": "wait_for_signal"}, {"steps": {A: {"data": {"signal": "go", "data": [1]}}}},
    ),
    "signal wait, time up": ({"k": "wait_for_signal"}, {"steps": {A: None}}),
    "signal sent": ({"k": "send_signal"}, {}),
    "signal sent, planning": ({"k": "send_signal"}, {"is_planning": True}),
    "fetch": ({"k": "fetch"}, {}),
    "fetch, done": ({"k": "fetch"}, {"steps": {hashed(peers.FETCH_ID): {"data": FETCHED}}}),
    "fetch, failed": ({"k": "fetch"}, {"steps": {hashed(peers.FETCH_ID): ERROR}}),
    "infer": ({"k": "infer"}, {}),
    "infer, done": ({"k": "infer"}, {"steps": {A: {"data": {"id": "c1"}}}}),
    "infer, failed": ({"k": "infer"}, {"steps": {A: ERROR}}),
    "parallel": ({"k": "parallel"}, {}),
    "parallel, planning": ({"k": "parallel"}, {"is_planning": True}),
    "parallel, targeted": ({"k": "parallel"}, {"step_id": C, "is_planning": True}),
    "parallel, targeted, fails": (
        {"k": "parallel", "fail": "error"}, {"step_id": C, "is_planning": True},
    ),
    "parallel, one done": ({"k": "parallel"}, {"steps": {A: {"data": 1}}}),
    "parallel, targeted, one done": (
        {"k": "parallel"}, {"step_id": C, "is_planning": True, "steps": {A: {"data": 1}}},
    ),
    "parallel, all done": (
        {"k": "parallel"}, {"steps": {C: {"data": 3}, B: None, A: {"data": 1}}},
    ),
    "parallel, one failed": (
        {"k": "parallel"}, {"steps": {A: {"data": 1}, C: ERROR, B: None}},
    ),
    "parallel branches": ({"k": "branches"}, {}),
    "parallel branches, first steps done": (
        {"k": "branches"}, {"steps": {hashed("a1"): {"data": 1}, hashed("b1"): {"data": 2}}},
    ),
    "parallel branches, one ahead": (
        {"k": "branches"}, {"steps": {hashed("a1"): {"data": 1}, hashed("a2"): {"data": 2}}},
    ),
    "parallel branches, targeted": (
        {"k": "branches"},
        {"step_id": hashed("b2"), "is_planning": True,
         "steps": {hashed("a1"): {"data": 1}, hashed("b1"): {"data": 2}}},
    ),
    "parallel groups in groups": ({"k": "groups"}, {}),
    "parallel groups in groups, done": (
        {"k": "groups"}, {"steps": {A: {"data": 1}, C: {"data": 3}, B: {"data": 2}}},
    ),
    "parallel after a step": ({"k": "after"}, {"steps": {A: {"data": 0}}}),
    "parallel before a step": (
        {"k": "after"}, {"steps": {A: {"data": 0}, B: {"data": 1}, hashed("b", 1): {"data": 2}}},
    ),
    "race": ({"k": "race"}, {}),
    "race, targeted": ({"k": "race"}, {"step_id": B, "is_planning": True}),
    "race, one done": ({"k": "race"}, {"steps": {B: {"data": 2}}}),
    "race, both done": ({"k": "race"}, {"steps": {B: {"data": 2}, A: {"data": 1}}}),
    "race, one failed": ({"k": "race"}, {"steps": {B: ERROR}}),
    "events of a batch": ({"k": "events"}, {"events": [
        event(id=f"e{i}", data={"k": "events", "n": i}) for i in range(3)
    ]}),
    "nested step": ({"k": "nested"}, {}),
    "unserialisable result of step": ({"k": "run", "value": "not json"}, {}),
    "unserialisable result of function": ({"k": "return", "value": "not json"}, {}),
}  # fmt: skip

MODES = ("dev", "cloud")

pytestmark = pytest.mark.asyncio(loop_scope="module")


def accept(request: Received) -> tuple[int, Any]:
    if request.path.startswith("/e/"):
        return 200, {"ids": [f"01{i}" for i in range(len(request.body))], "status": 200}
    if request.path == "/v1/signals":
        return 200, {"data": {"run_id": "01M84KVXAAXFDZB1D48JGNR1MG"}}
    return 200, {"ok": True, "modified": True, "sync_id": "s", "app_id": "a"}


@dataclass(frozen=True)
class Pair:
    """Our app and the same one of an official SDK."""

    sdk: Sdk
    ours: Ask
    theirs: Ask

    async def ask(self, method: str, **request: Any) -> tuple[Reply, Reply]:
        """Send the same request to both."""
        return await self.ours(method, **request), await self.theirs(method, **request)

    def differing(self, shape: str, replies: tuple[Reply, Reply]) -> list[str]:
        """Return what differs in their answers and is not on the list."""
        return differing(self.sdk, shape, *replies)


@pytest.fixture
def api(running_api: FakeApi) -> FakeApi:
    running_api.received.clear()
    running_api.answer = accept
    return running_api


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def all_built() -> AsyncIterator[dict[str, Peers]]:
    """Both packages' apps by mode: made once, because the official client is slow to make."""
    built: dict[str, Peers] = {}
    yield built
    await http.aclose()
    for each in built.values():
        await each.client._http_client._http_client.aclose()
        each.client._http_client._http_client_sync.close()


@pytest_asyncio.fixture(loop_scope="module")
async def both(
    sdk: Sdk,
    mode: str,
    api: FakeApi,
    all_built: dict[str, Peers],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Pair:
    set_environment(monkeypatch, mode, api.url)
    if mode not in all_built:
        all_built[mode] = peers.build(is_dev=mode == "dev", origin=api.url)
    built = all_built[mode]
    if sdk == "python":
        return Pair(sdk, built.ours, built.theirs)
    apps: TypeScript = request.getfixturevalue("typescript_apps")
    return Pair(sdk, built.ours, apps.asks(mode))


def set_environment(monkeypatch: pytest.MonkeyPatch, mode: str, origin: str) -> None:
    monkeypatch.setenv("INNGEST_BASE_URL", origin)
    if mode == "dev":
        monkeypatch.setenv("INNGEST_DEV", "1")
        return
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", FALLBACK)
    monkeypatch.setenv("INNGEST_EVENT_KEY", EVENT_KEY)


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def signed(body: bytes, key: str = KEY, at: int | None = None) -> dict[str, str]:
    return {"x-inngest-signature": signing.sign(body, key, now() if at is None else at)}


def call_bytes(data: dict[str, Any], options: dict[str, Any]) -> bytes:
    call = call_object(event(data=data), **options)
    return signing.canonical_json(json.dumps(call).encode())


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(
    ("sdk", "shape"),
    [
        (sdk, shape)
        for sdk in SDKS
        for shape in CALLS
        if (sdk, shape) not in UNASKED and (sdk, feature_of(shape)) not in ABSENT
    ],
    indirect=["sdk"],
)
async def test_a_call_is_answered_alike(both: Pair, mode: str, kind: str, shape: str) -> None:
    data, options = CALLS[shape]
    body = call_bytes(data, options)
    query = f"fnId=app-{kind}&stepId={options.get('step_id', 'step')}"
    headers = signed(body) if mode == "cloud" else {}

    ours, theirs = await both.ask("POST", query=query, body=body, headers=headers)

    assert both.differing(shape, (ours, theirs)) == []
    if mode == "cloud":
        for reply in (ours, theirs):
            header = reply.headers["x-inngest-signature"]
            assert signing.verify(header, reply.content, [KEY], now()) == KEY


STARTED = event(data={"k": "return", "value": "text"})
FAILED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "failure handler": ({}, {}),
    "failure handler, done": ({}, {"steps": {A: {"data": ["noted"]}}}),
    "failure handler, events": ({"events": [STARTED, STARTED]}, {}),
}


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("shape", FAILED)
async def test_a_failure_handler_answers_alike(
    both: Pair, mode: str, kind: str, shape: str
) -> None:
    more, options = FAILED[shape]
    data = {
        "error": {**ERROR["error"], "error": "invalid status code: 500"},
        "event": STARTED,
        "function_id": f"app-{kind}",
        "run_id": "01M84KX7QDTE8SQSVQYRZG8DT5",
        **more,
    }
    failed = event(name="inngest/function.failed", data=data)
    body = signing.canonical_json(
        json.dumps(call_object(failed, max_attempts=1, **options)).encode()
    )
    headers = signed(body) if mode == "cloud" else {}

    query = f"fnId=app-{kind}-failure&stepId=step"
    replies = await both.ask("POST", query=query, body=body, headers=headers)

    assert both.differing(shape, replies) == []


ODD_BODIES = {
    "body is not JSON": b"{",
    "call without ctx": b'{"event":{"data":{},"name":"a"},"events":[],"steps":{},"use_api":false}',
}


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("dev", "body is not JSON"), ("dev", "call without ctx"), ("cloud", "call without ctx")],
    indirect=["mode"],
)
async def test_a_body_that_is_no_call_is_answered_alike(both: Pair, mode: str, shape: str) -> None:
    body = ODD_BODIES[shape]
    headers = signed(body) if mode == "cloud" else {}

    ours, theirs = await both.ask(
        "POST", query="fnId=app-async&stepId=step", body=body, headers=headers
    )

    assert both.differing(shape, (ours, theirs)) == []


async def test_an_unknown_function_is_answered_alike(both: Pair, mode: str) -> None:
    body = call_bytes({"k": "return", "value": "none"}, {})
    headers = signed(body) if mode == "cloud" else {}

    ours, theirs = await both.ask(
        "POST", query="fnId=app-gone&stepId=step", body=body, headers=headers
    )

    assert both.differing("unknown function", (ours, theirs)) == []
    assert "function app-gone not found" in ours.body["message"]


async def test_a_probe_is_answered_alike(both: Pair, mode: str) -> None:
    headers = signed(b"{}") if mode == "cloud" else {}

    ours, theirs = await both.ask("POST", query="probe=trust", body=b"{}", headers=headers)

    assert both.differing("probe", (ours, theirs)) == []


@pytest.mark.parametrize("mode", ["cloud"], indirect=True)
@pytest.mark.parametrize("shape", ["fallback key", "rewritten body"])
async def test_good_signatures_are_accepted_alike(both: Pair, shape: str) -> None:
    body = call_bytes({"k": "return", "value": "text"}, {})
    headers = signed(body, FALLBACK if shape == "fallback key" else KEY)
    if shape == "rewritten body":
        body = json.dumps(json.loads(body), indent=2).encode()

    ours, theirs = await both.ask(
        "POST", query="fnId=app-async&stepId=step", body=body, headers=headers
    )

    assert (ours.status, theirs.status) == (200, 200)
    assert both.differing(shape, (ours, theirs)) == []
    key = FALLBACK if shape == "fallback key" else KEY
    for reply in (ours, theirs):
        header = reply.headers["x-inngest-signature"]
        assert signing.verify(header, reply.content, [key], now()) == key


@pytest.mark.parametrize("mode", ["cloud"], indirect=True)
@pytest.mark.parametrize("shape", ["unsigned call", "wrong signature", "stale signature"])
async def test_bad_signatures_are_refused_so_that_the_server_retries(
    both: Pair, shape: str
) -> None:
    body = call_bytes({"k": "return", "value": "text"}, {})
    headers = {
        "unsigned call": {},
        "wrong signature": signed(body, "signkey-test-" + "ab" * 16),
        "stale signature": signed(body + b" ", KEY),
    }[shape]

    ours, theirs = await both.ask(
        "POST", query="fnId=app-async&stepId=step", body=body, headers=headers
    )

    assert (ours.status, theirs.status) == (401, 401)
    assert both.differing(shape, (ours, theirs)) == []
    assert "x-inngest-no-retry" not in ours.headers
    assert "x-inngest-signature" not in ours.headers
    assert ours.headers["x-inngest-sdk"]
    assert KEY not in ours.content.decode()


@pytest.mark.parametrize("mode", ["cloud"], indirect=True)
async def test_a_replayed_request_is_refused_as_typescript_does(both: Pair) -> None:
    body = call_bytes({"k": "return", "value": "text"}, {})

    ours, theirs = await both.ask(
        "POST",
        query="fnId=app-async&stepId=step",
        body=body,
        headers=signed(body, KEY, now() - 301),
    )

    assert (ours.status, theirs.status) == (401, 200 if both.sdk == "python" else 401)
    assert both.differing("old signature", (ours, theirs)) == []
    assert ours.body["code"] == "sig_expired"
    assert "5 minutes" in ours.body["message"]


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("dev", "introspection"),
        ("cloud", "signed introspection"),
        ("cloud", "unsigned introspection"),
        ("cloud", "introspection, wrong signature"),
    ],
    indirect=["mode"],
)
async def test_introspection_is_answered_alike(both: Pair, shape: str) -> None:
    headers = {
        "signed introspection": signed(b""),
        "introspection, wrong signature": signed(b"x"),
    }.get(shape, {})

    ours, theirs = await both.ask("GET", headers=headers)

    assert both.differing(shape, (ours, theirs)) == []
    if shape not in ("introspection", "signed introspection"):
        assert (ours.status, ours.body["mode"], ours.body["function_count"]) == (200, "cloud", 2)
        assert "app_id" not in ours.body


async def test_introspection_by_the_other_kind_of_server_is_refused_alike(
    both: Pair, mode: str
) -> None:
    headers = {"x-inngest-server-kind": "cloud" if mode == "dev" else "dev"}
    if mode == "cloud":
        headers |= signed(b"")

    ours, theirs = await both.ask("GET", headers=headers)

    assert ours.status == 403
    assert both.differing("kind", (ours, theirs)) == []


@pytest.mark.parametrize("kind_header", [False, True])
async def test_an_out_of_band_sync_sends_and_answers_alike(
    both: Pair, mode: str, api: FakeApi, kind_header: bool
) -> None:
    url = "http://testserver/api/inngest"
    body = json.dumps({"url": url}, separators=(",", ":")).encode()
    headers = signed(body) if mode == "cloud" else {}
    if kind_header:
        headers["x-inngest-server-kind"] = mode

    ours, theirs = await both.ask("PUT", body=body, headers=headers, query="deployId=d1")

    assert both.differing("sync", (ours, theirs)) == []
    mine, other = api.received
    assert (mine.method, other.method) == ("POST", "POST")
    assert mine.path == other.path == "/fn/register?deployId=d1"
    shown = [registration(each) for each in (mine, other)]
    assert differing_documents(both.sdk, "registration", *shown) == []
    assert mine.body["sdk"].startswith("py:v")


def registration(sent: Received) -> dict[str, Any]:
    names = ("authorization", "content-type", "x-inngest-expected-server-kind")
    functions = sorted(sent.body["functions"], key=lambda each: str(each["id"]))
    return {
        "headers": {name: sent.headers[name] for name in names if name in sent.headers},
        "body": {**sent.body, "functions": functions},
    }


async def test_a_refused_registration_is_relayed_alike(both: Pair, mode: str, api: FakeApi) -> None:
    api.answer = lambda _: (400, {"error": "App ID required", "status": 400})
    body = b'{"url":"http://testserver/api/inngest"}'
    headers = signed(body) if mode == "cloud" else {}

    ours, theirs = await both.ask("PUT", body=body, headers=headers)

    assert both.differing("refused registration", (ours, theirs)) == []
    assert ours.status == 400


async def test_the_fallback_key_registers_when_the_first_is_refused(
    both: Pair, mode: str, api: FakeApi
) -> None:
    good = f"Bearer {signing.hash_key(FALLBACK)}"

    def answer(request: Received) -> tuple[int, Any]:
        is_good = mode == "dev" or request.headers["authorization"] == good
        return (200, {"ok": True}) if is_good else (401, {"error": "no"})

    api.answer = answer
    body = b'{"url":"http://testserver/api/inngest"}'
    headers = signed(body) if mode == "cloud" else {}

    ours, theirs = await both.ask("PUT", body=body, headers=headers)

    assert (ours.status, theirs.status) == (200, 200)
    assert len(api.received) == (2 if mode == "dev" else 4)


@pytest.mark.parametrize("mode", ["dev"], indirect=True)
async def test_a_sync_from_the_other_kind_of_server_is_refused_alike(both: Pair) -> None:
    ours, theirs = await both.ask("PUT", headers={"x-inngest-server-kind": "cloud"})

    assert both.differing("dev PUT from a cloud server", (ours, theirs)) == []
    assert (ours.status, ours.body["code"]) == (400, "server_kind_mismatch")


@pytest.mark.parametrize("mode", ["cloud"], indirect=True)
@pytest.mark.parametrize("shape", ["in-band sync", "unsigned in-band sync"])
async def test_an_in_band_sync_is_answered_alike(both: Pair, shape: str) -> None:
    body = b'{"url":"https://example.com/api/inngest"}'
    headers = {"x-inngest-sync-kind": "in_band"}
    if shape == "in-band sync":
        headers |= signed(body)

    ours, theirs = await both.ask("PUT", body=body, headers=headers)

    assert both.differing(shape, (ours, theirs)) == []
    assert ours.status == theirs.status == (200 if shape == "in-band sync" else 401)


async def test_every_shape_shows_a_feature_and_no_cell_is_blank() -> None:
    shown = {feature_of(shape) for shape in CALLS}

    for (_, shape), name in UNASKED.items():
        assert feature_of(shape) in shown
        assert name in {each.name for each in DIFFERENCES}
    assert {feature for _, feature in ABSENT} <= FEATURES.keys()
