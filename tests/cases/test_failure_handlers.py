"""on_failure is a function of its own, called with what failed, why, and the typed event of the run."""

from typing import Any

import pytest
from tests.support.sdk_calls import call_body, event
from tests.support.sdk_hosts import Ask

from stepbase import App, Event, EventData, FunctionFailed, Step, SyncStep

app = App("case")


class Paid(EventData, name="order/paid"):
    order_id: int


class Refunded(EventData, name="order/refunded"):
    refund_id: int


Failed = Event[FunctionFailed[Paid | Refunded]]


def told(event: Failed) -> dict[str, Any]:
    failed = event.data
    started_by = failed.event.data
    return {
        "run": failed.run_id,
        "function": failed.function_id,
        "error": [failed.error.name, failed.error.message],
        "by": f"{type(started_by).__name__} {started_by!s}",
        "events": len(failed.events),
        "id": failed.event.id,
    }


async def on_failure(event: Failed, step: Step) -> dict[str, Any]:
    return await step.run("note", told, event)


def on_failure_sync(event: Failed, step: SyncStep) -> dict[str, Any]:
    return step.run("note", told, event)


@app.function("async", on=[Paid, Refunded], on_failure=on_failure)
async def handler() -> None:
    raise ValueError("no")


@app.function("sync", on=[Paid, Refunded], on_failure=on_failure_sync)
def sync_handler() -> None:
    raise ValueError("no")


def failed(started_by: Any, **more: Any) -> dict[str, Any]:
    error = {"name": "ValueError", "message": "no", "stack": "Traceback", "error": "…"}
    data = {"error": error, "run_id": "01R", "function_id": "case-async", "event": started_by}
    return event(name="inngest/function.failed", data={**data, **more})


@pytest.mark.parametrize(
    ("started_by", "shown"),
    [
        ({"name": "order/paid", "data": {"order_id": 7}}, "Paid order_id=7"),
        ({"name": "order/refunded", "data": {"refund_id": 8}}, "Refunded refund_id=8"),
        # It may have failed because the payload does not fit.
        ({"name": "order/paid", "data": {"order_id": "x"}}, "dict {'order_id': 'x'}"),
        ({"name": "other", "data": {"a": 1}}, "dict {'a': 1}"),
    ],
)
async def test_the_failure_handler_gets_the_typed_event_of_the_run(
    ask: Ask, kind: str, started_by: dict[str, Any], shown: str
) -> None:
    first = event(**started_by)
    body = call_body(failed(first, events=[first, first]))

    reply = await ask("POST", query=f"fnId=case-{kind}-failure&stepId=step", body=body)

    assert reply.op["displayName"] == "note"
    assert reply.op["data"] == {
        "run": "01R",
        "function": "case-async",
        "error": ["ValueError", "no"],
        "by": shown,
        "events": 2,
        "id": first["id"],
    }


@pytest.mark.parametrize("data", [{}, {"error": None, "event": [], "events": {}}])
async def test_what_is_missing_is_empty(ask: Ask, kind: str, data: dict[str, Any]) -> None:
    body = call_body(event(name="inngest/function.failed", data=data))

    reply = await ask("POST", query=f"fnId=case-{kind}-failure&stepId=step", body=body)

    told = reply.op["data"]
    assert (told["run"], told["error"], told["events"]) == ("", ["", ""], 1)
