"""Typed examples of events: from the class in the trigger to the handler, one or several, failed ones too."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, assert_type

from stepbase import (
    App,
    Batch,
    CancelOn,
    Cron,
    Event,
    EventData,
    Function,
    FunctionFailed,
    Step,
    SyncStep,
    accept_events,
)
from stepbase.hosts.events import EventsFunction

app = App("typed-events")


class Paid(EventData, name="order/paid"):
    order_id: int


class Refunded(EventData, name="order/refunded"):
    order_id: int
    reason: str


@app.function("several", on=[Paid, Refunded, Cron("0 9 * * *")])
async def several(event: Event[Paid | Refunded], step: Step) -> str:
    assert_type(event.data, Paid | Refunded)
    assert_type(event.data.order_id, int)
    if isinstance(event.data, Refunded):
        assert_type(event.data.reason, str)
        return event.data.reason
    assert_type(event.data, Paid)
    assert_type(event.ts, datetime)
    return event.id


@app.function("each", on=[Paid, Refunded])
def each_of_both(event: Event[Paid] | Event[Refunded]) -> int:
    # An Event of one of them is an Event of either.
    return order_of(event)


def order_of(event: Event[Paid | Refunded]) -> int:
    return event.data.order_id


@app.function("batch", on=Paid, batch=Batch(10, "5s"))
async def batch(events: list[Event[Paid]], step: Step) -> list[int]:
    assert_type(events[0].data, Paid)
    return [each.data.order_id for each in events]


async def on_failure(event: Event[FunctionFailed[Paid]], step: Step) -> None:
    failed = event.data
    assert_type(failed, FunctionFailed[Paid])
    assert_type(failed.event.data.order_id, int)
    assert_type(failed.events, Sequence[Event[Paid]])
    assert_type(failed.error.message, str)
    assert_type(failed.run_id, str)


def on_failure_sync(event: Event[FunctionFailed[Paid | Refunded]], step: SyncStep) -> str:
    started_by = event.data.event.data
    return started_by.reason if isinstance(started_by, Refunded) else "paid"


@app.function(
    "cancelled",
    on=Paid.where("event.data.order_id > 1"),
    cancel_on=[CancelOn(Refunded, match="data.order_id"), CancelOn("shop/closed")],
    on_failure=on_failure,
)
async def cancelled(event: Event[Paid]) -> dict[str, int]:
    return {"order": event.data.order_id}


@app.function("plain", on=[Paid, Refunded], on_failure=on_failure_sync)
def plain() -> None: ...


async def send() -> None:
    assert_type(await app.send(Paid(order_id=1)), list[str])
    assert_type(await app.send([Event(data=Paid(order_id=1), id="a"), Paid(order_id=2)]), list[str])
    assert_type(app.send_sync(Event("order/seen", {"n": 1})), list[str])
    assert_type(Event(data=Paid(order_id=1)), Event[Paid])
    assert_type(Event(data=Paid(order_id=1)).data, Paid)


assert_type(several, Function[str])
assert_type(each_of_both, Function[int])
assert_type(batch, Function[list[int]])
assert_type(cancelled, Function[dict[str, int]])
assert_type(plain, Function[None])


def test_the_examples_define_functions() -> None:
    assert len(app.functions) == 5
    paid = Event("order/paid", Paid(order_id=7))
    assert order_of(paid) == 7
    anything: Any = several.options.cancel_on
    assert anything == ()


main = accept_events(Paid, Refunded, "order/seen", claims=["email"])
assert_type(main, EventsFunction)
