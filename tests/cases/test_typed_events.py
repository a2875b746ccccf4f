"""Payloads arrive as instances of the event class; one that does not fit ends the run at once."""

from datetime import UTC, datetime
from uuid import UUID

from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, EventData, Step, SyncStep

app = App("case")


class Paid(EventData, name="order/paid"):
    order_id: UUID
    amount: int


def describe(paid: Event[Paid]) -> list[object]:
    data = paid.data
    return [type(data).__name__, str(data.order_id), data.amount, paid.ts == AT, paid.user, paid.v]


AT = datetime(2026, 11, 23, 16, 29, 44, 936000, tzinfo=UTC)


@app.function("async", on=[Paid, "order/other"])
async def handler(event: Event[Paid], step: Step) -> object:
    return event.data if event.name == "order/other" else describe(event)


@app.function("sync", on=[Paid, "order/other"])
def sync_handler(event: Event[Paid], step: SyncStep) -> object:
    return event.data if event.name == "order/other" else describe(event)


ORDER = {"order_id": str(UUID(int=7)), "amount": 100, "unknown": "kept out"}


async def test_the_payload_is_validated_and_typed(drive: Drive) -> None:
    run = await drive(event(name="order/paid", data=ORDER, user={"id": "u"}, v="2"))

    assert run.output == ["Paid", str(UUID(int=7)), 100, True, {"id": "u"}, "2"]


async def test_events_by_name_stay_untyped(drive: Drive) -> None:
    run = await drive(event(name="order/other", data={"a": 1}))

    assert run.output == {"a": 1}


async def test_a_payload_that_does_not_fit_is_final_and_names_the_field(call: Call) -> None:
    reply = await call(call_body(event(name="order/paid", data={**ORDER, "amount": "much"})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert reply.body["code"] == "event_invalid"
    assert 'event "order/paid"' in reply.body["message"]
    assert "does not fit Paid: data.amount: " in reply.body["message"]
