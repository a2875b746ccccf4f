"""step.invoke names a function and its data, and gives its result typed; failures are StepErrors."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, EventData, Function, Step, StepError, SyncStep

app = App("case")


class Charge(EventData, name="card/charge"):
    cents: int


class Refund(EventData, name="card/refund"):
    cents: int


class Receipt(BaseModel):
    number: int


@app.function("charge", on=Charge)
async def charge(event: Event[Charge]) -> Receipt:
    return Receipt(number=event.data.cents)


@app.function("either", on=[Charge, Refund])
def either(event: Event[Any]) -> None:
    """Is only invoked."""


CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "object": (charge, {"data": Charge(cents=5)}),
    "dict": (charge, {"data": {"cents": 5}}),
    "slug": ("mail-send", {"data": {"to": "a@b.c"}, "timeout": timedelta(minutes=90)}),
    "typed slug": ("mail-send", {"returns": Receipt}),
    "caused": ("mail-send", {"user": {"id": "u"}, "v": "2"}),
    "either": (either, {"data": Refund(cents=1)}),
    "no data": (charge, {}),
    "wrong dict": (charge, {"data": {"cents": "many"}}),
    "wrong class": (charge, {"data": Refund(cents=1)}),
    "no object": ("mail-send", {"data": [1]}),
    "no JSON": ("mail-send", {"data": {"at": object()}}),
    "no slug": ("send", {}),
    "handler": (charge.handler, {}),
    "bad timeout": ("mail-send", {"timeout": "never"}),
}


def shown(result: Any) -> Any:
    return [type(result).__name__, result]


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> Any:
    function, options = CALLS[event.data["do"]]
    try:
        return shown(await step.invoke("call", function, **options))
    except StepError as error:
        return [error.name, error.message]


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    function, options = CALLS[event.data["do"]]
    try:
        return shown(step.invoke("call", function, **options))
    except StepError as error:
        return [error.name, error.message]


@pytest.mark.parametrize(
    ("do", "opts"),
    [
        ("object", {"function_id": "case-charge", "payload": {"data": {"cents": 5}, "v": None}}),
        ("dict", {"function_id": "case-charge", "payload": {"data": {"cents": 5}, "v": None}}),
        (
            "slug",
            {
                "function_id": "mail-send",
                "payload": {"data": {"to": "a@b.c"}, "v": None},
                "timeout": "90m",
            },
        ),
        ("typed slug", {"function_id": "mail-send", "payload": {"data": {}, "v": None}}),
        (
            "caused",
            {"function_id": "mail-send", "payload": {"data": {}, "v": "2", "user": {"id": "u"}}},
        ),
        ("either", {"function_id": "case-either", "payload": {"data": {"cents": 1}, "v": None}}),
    ],
)
async def test_an_invoke_is_reported(call: Call, do: str, opts: dict[str, Any]) -> None:
    reply = await call(call_body(event(data={"do": do})))

    assert (reply.op["op"], reply.op["name"]) == ("InvokeFunction", "call")
    assert reply.op["opts"] == {"timeout": None, **opts}


@pytest.mark.parametrize(
    ("do", "output"),
    [
        ("object", ["Receipt", {"number": 5}]),
        ("typed slug", ["Receipt", {"number": 5}]),
        ("slug", ["dict", {"number": 5}]),
    ],
)
async def test_the_result_comes_back_typed(drive: Drive, do: str, output: object) -> None:
    run = await drive(event(data={"do": do}), answers={"call": {"data": {"number": 5}}})

    assert run.output == output


async def test_a_failed_function_is_a_step_error(drive: Drive) -> None:
    failed = {"error": {"name": "ValueError", "message": "card declined"}}

    run = await drive(event(data={"do": "object"}), answers={"call": failed})

    assert run.output == ["ValueError", "card declined"]


async def test_a_result_that_does_not_fit_is_final(drive: Drive) -> None:
    run = await drive(event(data={"do": "object"}), answers={"call": {"data": {"number": "x"}}})

    assert run.error["code"] == "output_invalid"
    assert 'step "call": number' in run.error["message"]


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("no data", "does not fit Charge: data.cents: Field required"),
        ("wrong dict", "does not fit Charge: data.cents"),
        ("wrong class", "the function takes Charge, got Refund"),
        ("no object", "data=… is a dict or an EventData instance"),
        ("no JSON", "data=… has a value that cannot be kept: $.at"),
        ("no slug", "its name on the wire, \"<app>-<function>\"; got 'send'"),
        ("handler", "expected a function made by @app.function"),
        ("bad timeout", "timeout=…: not a duration"),
    ],
)
async def test_an_invoke_that_cannot_be_is_final(call: Call, do: str, says: str) -> None:
    reply = await call(call_body(event(data={"do": do})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert reply.body["message"].startswith('step "call"')
    assert says in reply.body["message"]


def test_functions_are_known_by_what_they_return() -> None:
    found: Function[Receipt] = charge

    assert found.slug == "case-charge"
