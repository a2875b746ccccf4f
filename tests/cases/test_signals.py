"""Signals: a run waits for one by name; another, or the app, sends it over the server's API."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from tests.cases.conftest import Call, Drive
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, Step, SyncStep

app = App("case")


class Approval(BaseModel):
    by: str


WAITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": ("approve:7", {"timeout": "2h"}),
    "typed": ("approve:7", {"timeout": "2h", "returns": Approval}),
    "replace": ("approve:7", {"timeout": "2h", "on_conflict": "replace"}),
    "no name": ("", {"timeout": "2h"}),
    "no conflict": ("approve:7", {"timeout": "2h", "on_conflict": "queue"}),
    "no timeout": ("approve:7", {"timeout": None}),
}


def shown(signal: Any) -> Any:
    return None if signal is None else [signal.name, type(signal.data).__name__, signal.data]


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> Any:
    if "send" in event.data:
        return await step.send_signal("tell", event.data["send"], event.data.get("with"))
    signal, options = WAITS[event.data["wait"]]
    return shown(await step.wait_for_signal("approval", signal, **options))


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    if "send" in event.data:
        return step.send_signal("tell", event.data["send"], event.data.get("with"))
    signal, options = WAITS[event.data["wait"]]
    return shown(step.wait_for_signal("approval", signal, **options))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with fake_api(lambda _: (200, {"data": {"run_id": "01R"}})) as running:
        monkeypatch.setenv("INNGEST_BASE_URL", running.url)
        monkeypatch.setenv("INNGEST_SIGNING_KEY", "signkey-test-" + "0123456789abcdef" * 2)
        yield running


@pytest.mark.parametrize(("wait", "conflict"), [("plain", "fail"), ("replace", "replace")])
async def test_a_wait_is_reported(call: Call, wait: str, conflict: str) -> None:
    reply = await call(call_body(event(data={"wait": wait})))

    assert (reply.op["op"], reply.op["name"]) == ("WaitForSignal", "approve:7")
    assert reply.op["opts"] == {"signal": "approve:7", "timeout": "2h", "conflict": conflict}


@pytest.mark.parametrize(
    ("wait", "memo", "output"),
    [
        ("plain", {"data": {"signal": "approve:7", "data": {"by": "ann"}}}, ["dict", {"by": "ann"}]),
        ("typed", {"data": {"signal": "approve:7", "data": {"by": "ann"}}}, ["Approval", {"by": "ann"}]),
        ("plain", {"data": {"signal": "approve:7", "data": None}}, ["NoneType", None]),
    ],
)  # fmt: skip
async def test_the_signal_comes_back(drive: Drive, wait: str, memo: Any, output: list[Any]) -> None:
    run = await drive(event(data={"wait": wait}), answers={"approval": memo})

    assert run.output == ["approve:7", *output]


async def test_time_up_gives_none(drive: Drive) -> None:
    run = await drive(event(data={"wait": "typed"}), answers={"approval": None})

    assert run.output is None
    assert run.shown == ["WaitForSignal approval"]


@pytest.mark.parametrize(
    ("wait", "memo", "says"),
    [
        ("typed", {"data": {"signal": "s", "data": {"by": 7}}}, 'data of signal "approve:7": by'),
        ("plain", {"data": [7]}, "expected the signal that was waited for"),
    ],
)
async def test_a_signal_that_does_not_fit_is_final(
    drive: Drive, wait: str, memo: Any, says: str
) -> None:
    run = await drive(event(data={"wait": wait}), answers={"approval": memo})

    assert run.error["code"] == "output_invalid"
    assert says in run.error["message"]


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        ("no name", "a signal is named by non-empty text"),
        ("no conflict", 'on_conflict=…: expected "fail" or "replace"'),
        ("no timeout", "timeout=…: a duration is a timedelta"),
    ],
)
async def test_a_wait_that_cannot_be_is_final(call: Call, wait: str, says: str) -> None:
    reply = await call(call_body(event(data={"wait": wait})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert 'step "approval": ' + says in reply.body["message"]


async def test_a_signal_is_sent_and_tells_which_run_it_woke(drive: Drive, api: FakeApi) -> None:
    run = await drive(event(data={"send": "approve:7", "with": {"by": "ann"}}))

    assert run.output == "01R"
    (op,) = run.ops
    assert (op["op"], op["displayName"], op["data"]) == ("StepRun", "tell", "01R")
    assert op["opts"] == {"type": "step.sendSignal", "signal": "approve:7"}
    (request,) = api.received
    assert (request.method, request.path) == ("POST", "/v1/signals")
    assert request.body == {"signal": "approve:7", "data": {"by": "ann"}}
    assert request.headers["authorization"].startswith("Bearer ")


async def test_a_signal_nobody_waits_for_wakes_none(drive: Drive, api: FakeApi) -> None:
    api.answer = lambda _: (404, {"error": "No signal found"})

    run = await drive(event(data={"send": "approve:7"}))

    assert (run.output, run.error) == (None, None)
    assert api.received[0].body == {"signal": "approve:7", "data": None}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((400, {"error": "no"}), "POST /v1/signals: HTTP 400: no"),
        ((200, {"ok": True}), 'POST /v1/signals: HTTP 200: {"ok": true}'),
    ],
)
async def test_a_signal_that_was_not_taken_is_tried_again(
    call: Call, api: FakeApi, answer: tuple[int, Any], says: str
) -> None:
    api.answer = lambda _: answer

    reply = await call(call_body(event(data={"send": "approve:7"})))

    assert (reply.op["op"], reply.op["error"]["name"]) == ("StepError", "ApiError")
    assert says in reply.op["error"]["message"]


async def test_a_server_that_is_away_is_asked_again_later(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_BASE_URL", "http://127.0.0.1:9")

    reply = await call(call_body(event(data={"send": "approve:7"})))

    assert reply.op["op"] == "StepError"
    assert "POST /v1/signals: no answer from" in reply.op["error"]["message"]


async def test_the_fallback_key_is_tried(
    call: Call, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", "signkey-test-" + "fedcba9876543210" * 2)
    seen: list[Any] = []

    def answer(request: Received) -> tuple[int, Any]:
        seen.append(request.headers["authorization"])
        return (401, {}) if len(seen) == 1 else (200, {"data": {"run_id": "01R"}})

    api.answer = answer

    reply = await call(call_body(event(data={"send": "a"})))

    assert reply.op["data"] == "01R"
    assert len(set(seen)) == 2


async def test_a_signal_without_a_name_is_final(call: Call, api: FakeApi) -> None:
    reply = await call(call_body(event(data={"send": ""})))

    assert reply.status == 500
    assert 'step "tell": a signal is named by non-empty text' in reply.body["message"]
    assert api.received == []
