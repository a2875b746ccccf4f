"""Events as values."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import Field

from stepbase import DefinitionError, Event, EventData
from stepbase.sdk.event import event_name_of, from_payload, to_events


class Paid(EventData, name="order/paid"):
    order_id: int = Field(alias="orderId")


class Shared(EventData):
    order_id: int


class Child(Paid):
    pass


def test_a_typed_event_is_named_by_its_class() -> None:
    event = Event(data=Paid(orderId=1), id="order-1")

    assert (event.name, event.id, event.user, event.v) == ("order/paid", "order-1", {}, None)
    assert event.data.order_id == 1
    assert event.ts.tzinfo is not None
    assert repr(event) == "Event('order/paid', id='order-1')"


def test_an_event_needs_an_aware_time() -> None:
    with pytest.raises(DefinitionError, match="needs a timezone"):
        Event("a", ts=datetime(2030, 1, 1))  # noqa: DTZ001  # the point


def test_only_classes_with_a_name_of_their_own_are_events() -> None:
    assert event_name_of(Paid) == "order/paid"
    assert event_name_of(Shared) is None
    assert event_name_of(Child) is None
    assert event_name_of(int) is None


def test_what_can_be_sent() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)

    events = to_events(
        [Paid(orderId=1), Event("a", ts=at), {"name": "b", "data": {"n": 1}, "ts": at}]
    )

    assert [event.name for event in events] == ["order/paid", "a", "b"]
    assert events[1].data == {}
    assert events[2].ts == at


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (7, "cannot send 7: expected an EventData instance"),
        (Shared(order_id=1), "cannot send"),
        ({"data": {}}, "cannot send"),
        ({"name": "a", "dta": {}}, "an event has no field dta"),
    ],
)
def test_what_cannot_be_sent(given: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        to_events(given)


def test_a_received_event_has_all_fields() -> None:
    raw = {"name": "a", "id": "1", "ts": 1_795_451_384_936, "user": None, "v": "2"}

    event = from_payload(raw, {"n": 1})

    assert (event.name, event.id, event.data, event.user, event.v) == ("a", "1", {"n": 1}, {}, "2")
    assert event.ts == datetime(2026, 11, 23, 16, 29, 44, 936000, tzinfo=UTC)
    assert from_payload({}, {}).ts.tzinfo is not None
