"""step.wait_for_event is reported with its condition, and gives the event, checked by its class, or None."""

from typing import Any

import pytest
from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event, hashed

from stepbase import App, Event, EventData, Step, SyncStep

app = App("case")


class Paid(EventData, name="order/paid"):
    order_id: int
    cents: int = 0


def wanted(data: dict[str, Any]) -> Any:
    return Paid if data.get("typed") else data.get("event", "order/paid")


def options(data: dict[str, Any]) -> Any:
    given = {key: data[key] for key in ("match", "if_", "look_back") if key in data}
    return {"timeout": data.get("timeout", "7d"), **given}


def shown(found: Event[Any] | None) -> Any:
    if found is None:
        return "nothing came"
    return [type(found.data).__name__, found.name, found.id, found.user, repr(found.data)]


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> Any:
    data = event.data
    return shown(await step.wait_for_event("payment", wanted(data), **options(data)))


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    data = event.data
    return shown(step.wait_for_event("payment", wanted(data), **options(data)))


PAYMENT = {
    "name": "order/paid",
    "data": {"order_id": 7},
    "id": "01P",
    "ts": 1_795_451_390_000,
    "user": {"id": "u"},
}


@pytest.mark.parametrize(
    ("given", "opts"),
    [
        ({}, {"if": None, "timeout": "1w"}),
        ({"timeout": "90s"}, {"if": None, "timeout": "90s"}),
        ({"look_back": "90s"}, {"if": None, "timeout": "1w", "lookBack": "90s"}),
        ({"if_": "async.data.n > 1"}, {"if": "async.data.n > 1", "timeout": "1w"}),
        (
            {"match": "data.order_id", "order_id": 7, "typed": True},
            {"if": "event.data.order_id == async.data.order_id", "timeout": "1w"},
        ),
        (
            {"match": "user.id"},
            {"if": "event.user.id == async.user.id", "timeout": "1w"},
        ),
    ],
)
async def test_a_wait_is_reported(call: Call, given: dict[str, Any], opts: object) -> None:
    reply = await call(call_body(event(data=given, user={"id": "u"})))

    assert reply.op == {
        "displayName": "payment",
        "id": hashed("payment"),
        "name": "order/paid",
        "op": "WaitForEvent",
        "opts": opts,
        "userland": {"id": "payment", "index": None},
        "data": None,
    }


async def test_the_event_comes_back_typed(drive: Drive) -> None:
    run = await drive(event(data={"typed": True}), answers={"payment": PAYMENT})

    assert run.shown == ["WaitForEvent payment"]
    assert run.output == ["Paid", "order/paid", "01P", {"id": "u"}, "Paid(order_id=7, cents=0)"]


async def test_a_name_gives_a_plain_event_and_time_up_gives_none(drive: Drive) -> None:
    came = await drive(answers={"payment": PAYMENT})
    late = await drive(event(data={"typed": True}), answers={"payment": None})

    assert came.output == ["dict", "order/paid", "01P", {"id": "u"}, "{'order_id': 7}"]
    assert late.output == "nothing came"


async def test_a_payload_that_does_not_fit_is_final_and_names_the_field(drive: Drive) -> None:
    wrong = {**PAYMENT, "data": {"order_id": "seven"}}

    run = await drive(event(data={"typed": True}), answers={"payment": wrong})

    assert len(run.replies) == 2
    assert run.error["code"] == "event_invalid"
    assert 'event "order/paid" (01P) does not fit Paid: data.order_id' in run.error["message"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"event": 7}, "expected an EventData class with a name, or an event name"),
        ({"event": ""}, "an event name is text"),
        ({"event": "order/*"}, "for one event name, without *"),
        ({"timeout": "soon"}, "timeout=…: not a duration"),
        ({"timeout": 60}, "timeout=…: a duration is a timedelta or a string"),
        ({"timeout": "500ms"}, "timeout=…: expected 1s to 366d, in whole seconds"),
        ({"timeout": "367d"}, "timeout=…: expected 1s to 366d"),
        ({"look_back": "long"}, "look_back=…: not a duration"),
        ({"look_back": True}, "look_back=…: a duration is a timedelta or a string"),
        ({"look_back": "0s"}, "look_back=…: expected 1s to 1d, in whole seconds"),
        ({"look_back": "25h"}, "look_back=…: expected 1s to 1d"),
        ({"if_": " "}, "if_=…: expected a CEL expression"),
        ({"if_": "true", "match": "data.n"}, "match= or if_=, not both"),
        ({"match": "order_id"}, 'expected a path such as "data.source_id"'),
        ({"match": "data.number", "typed": True}, "not in Paid, which has order_id, cents"),
        ({"match": "data.order_id", "typed": True}, "(case/start) has no data.order_id"),
    ],
)
async def test_a_wait_that_cannot_be_is_final(call: Call, given: dict[str, Any], says: str) -> None:
    reply = await call(call_body(event(data=given)))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert reply.body["message"].startswith('step "payment": ')
    assert says in reply.body["message"]


async def test_what_is_no_event_is_final(drive: Drive) -> None:
    run = await drive(memos={hashed("payment"): {"data": 7}})

    assert "expected the event that was waited for" in run.error["message"]
    assert run.error["code"] == "output_invalid"
