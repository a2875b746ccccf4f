"""step.send_event sends once: ids come from the run and the step, so a repeated step repeats them."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cases.conftest import Call, Drive
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, EventData, Step, SyncStep

app = App("case")


class Paid(EventData, name="order/paid"):
    order_id: int


def events() -> list[Paid | Event[Any]]:
    return [Paid(order_id=1), Event("order/seen", {"n": 2}, id="mine", user={"id": "u"}, v="1")]


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> list[str]:
    return await step.send_event("emit", event.data.get("give") or events())


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> list[str]:
    return step.send_event("emit", event.data.get("give") or events())


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with fake_api(accept) as running:
        monkeypatch.setenv("INNGEST_BASE_URL", running.url)
        yield running


def accept(request: Received) -> tuple[int, object]:
    return 200, {"ids": [f"01{i}" for i in range(len(request.body))], "status": 200}


async def test_events_are_sent_and_their_ids_kept(drive: Drive, api: FakeApi) -> None:
    run = await drive()

    assert run.output == ["010", "011"]
    assert run.shown == ["StepRun emit"]
    (request,) = api.received
    assert (request.method, request.path) == ("POST", "/e/NO_EVENT_KEY_SET")
    assert request.headers["x-inngest-event-id-seed"].count(",") == 1
    paid, seen = request.body
    assert (paid["name"], paid["data"]) == ("order/paid", {"order_id": 1})
    assert {k: seen[k] for k in ("name", "data", "id", "user", "v")} == {
        "name": "order/seen",
        "data": {"n": 2},
        "id": "mine",
        "user": {"id": "u"},
        "v": "1",
    }


async def test_a_repeated_step_sends_the_same_ids(call: Call, api: FakeApi) -> None:
    await call(call_body())
    await call(call_body(attempt=1))
    await call(call_body(run_id="01M84KVXAAXFDZB1D48JGNR1MG"))

    first, again, other = [request.body[0]["id"] for request in api.received]
    assert first == again != other


async def test_a_refused_event_fails_the_attempt_with_the_servers_words(
    call: Call, api: FakeApi
) -> None:
    api.answer = lambda _: (400, {"ids": ["01A"], "status": 400, "error": "event name is reserved"})

    reply = await call(call_body())

    assert reply.op["op"] == "StepError"
    assert reply.op["error"]["name"] == "SendError"
    assert "event name is reserved" in reply.op["error"]["message"]
    assert len(api.received) == 1


async def test_what_is_no_event_is_final_and_names_the_step(call: Call, api: FakeApi) -> None:
    reply = await call(call_body(event(data={"give": 7})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert reply.body["message"].startswith('step "emit": cannot send 7')
    assert api.received == []


async def test_the_op_says_what_kind_of_step_it_is(call: Call, api: FakeApi) -> None:
    reply = await call(call_body())

    assert reply.op["opts"] == {"type": "step.sendEvent"}
    assert len(api.received) == 1
