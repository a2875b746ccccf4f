"""What a client may send: the list, the body, and messages that name the field."""

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ConfigDict, Field, field_validator

from stepbase import DefinitionError, EventData, RateLimit, accept_events
from stepbase.sdk.accepting import EventList, Refusal, own_event_id

ID = "11111111-1111-4111-8111-111111111111"


class Item(EventData):
    sku: str
    count: int = Field(ge=1)


class OrderNoted(EventData, name="app/order.noted"):
    order: UUID
    items: list[Item]
    price: Decimal | None = None
    at: datetime | None = None

    @field_validator("price")
    @classmethod
    def _is_small(cls, value: Decimal | None) -> Decimal | None:
        if value is not None and value > 100:
            raise ValueError("no more than 100")
        return value


class Strict(EventData, name="app/strict"):
    model_config = ConfigDict(strict=True, extra="forbid")
    order: UUID


ALLOWED = EventList.of([OrderNoted, Strict, "app/free"], 3)
ORDER = {"order": ID, "items": [{"sku": "a", "count": 2}]}


def read(value: Any) -> list[dict[str, Any]]:
    return ALLOWED.read(value if isinstance(value, bytes) else json.dumps(value).encode(), "u-1")


def refused(value: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(value)
    return caught.value


def test_one_event_or_a_list_is_read() -> None:
    one = {"name": "app/free", "data": {"a": 1}}

    assert read(one) == [one]
    assert read([one, {"name": "app/free"}]) == [one, {"name": "app/free", "data": {}}]


def test_data_are_as_their_model_has_them() -> None:
    data = {**ORDER, "price": "12.50", "at": "2027-01-01T00:00:00Z", "paid": True}

    [event] = read({"name": "app/order.noted", "data": data})

    assert event["data"] == {
        "order": ID,
        "items": [{"sku": "a", "count": 2}],
        "price": "12.50",
        "at": "2027-01-01T00:00:00Z",
    }


def test_strict_models_read_json() -> None:
    assert read({"name": "app/strict", "data": {"order": ID}})[0]["data"] == {"order": ID}
    assert (
        refused({"name": "app/strict", "data": {"order": ID, "x": 1}}).problems[0].field == "data.x"
    )


def test_ids_become_the_users_own_and_say_nothing_of_them() -> None:
    digest = hashlib.sha256(b'["u-1", "app/free", "7"]').hexdigest()[:32]

    [event] = read({"name": "app/free", "id": "7"})

    assert event["id"] == f"user-{digest}"


def test_no_two_ids_run_into_each_other() -> None:
    parts = ("a", "a/b", "b/c", "c", '"', '", "', "é", "e\u0301")
    every = [(u, n, i) for u in parts for n in parts for i in parts]

    assert len({own_event_id(*each) for each in every}) == len(every)


@pytest.mark.parametrize("own_id", ["x", "a/b: c", "ä", "\ud800", "\x00", "x" * 512])
def test_any_text_is_an_id(own_id: str) -> None:
    assert len(read({"name": "app/free", "id": own_id})[0]["id"]) == 37


@pytest.mark.parametrize("own_id", ["", "x" * 513, 7, True, ["a"], {}])
def test_what_is_no_text_is_no_id(own_id: object) -> None:
    error = refused([{"name": "app/free"}, {"name": "app/free", "id": own_id}])

    assert (error.status, error.code, error.problems[0].field) == (400, "invalid_event", "[1].id")


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ({}, "data.order", "required"),
        ({**ORDER, "order": "x"}, "data.order", "UUID"),
        ({**ORDER, "items": [{"sku": "a", "count": 1}, {"sku": "b", "count": 0}]},
         "data.items[1].count", "greater than or equal to 1"),
        ({**ORDER, "items": "hidden-text"}, "data.items", "array"),
        ({**ORDER, "price": "101"}, "data.price", "no more than 100"),
    ],
)  # fmt: skip
def test_messages_name_the_field_and_not_the_value(
    data: dict[str, Any], field: str, says: str
) -> None:
    error = refused([{"name": "app/free"}, {"name": "app/order.noted", "data": data}])

    assert (error.status, error.code) == (422, "invalid_data")
    assert error.problems[0].field == f"[1].{field}"
    assert says in error.problems[0].error
    assert str(error).startswith(f"[1].{field}: ")
    assert "hidden-text" not in str(error)


def test_problems_are_told_up_to_twenty() -> None:
    data = {**ORDER, "items": [{} for _ in range(30)]}

    error = refused({"name": "app/order.noted", "data": data})

    assert len(error.problems) == 20
    assert "(and 59 more)" in str(error)


@pytest.mark.parametrize(
    "data",
    [{"a": "\x00"}, {"a": "\ud800"}, {"a": 2**60}, {"a\x00": 1}],
    ids=["NUL", "half a character", "a big integer", "NUL in a name"],
)
def test_data_that_cannot_be_kept_are_refused(data: dict[str, Any]) -> None:
    error = refused({"name": "app/free", "data": data})

    assert (error.status, error.code, error.problems[0].field) == (422, "invalid_data", "data")
    assert "$" in str(error)


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"", "invalid_json", "not JSON"),
        (b"{", "invalid_json", "not JSON"),
        (b"\xff\xfe{}", "invalid_json", "not JSON"),
        (b'{"name": "app/free", "data": {"a": NaN}}', "invalid_json", "not JSON"),
        (b"[" * 60_000, "invalid_json", "not JSON"),
        (b"null", "invalid_event", "body: an event is an object"),
        (b'"x"', "invalid_event", "body: an event is an object"),
        (b"[]", "invalid_event", "no events"),
        (b"[1]", "invalid_event", "[0]: an event is an object"),
        (b"{}", "invalid_event", "name: it must be"),
        (b'{"name": 1}', "invalid_event", "name: it must be"),
        (b'{"name": "app/free", "data": []}', "invalid_event", "data: it must be an object"),
        (b'{"name": "app/free", "data": null}', "invalid_event", "data: it must be an object"),
        (b'{"name": "app/free", "user": {"id": "bob"}}', "invalid_event", "user: it is taken"),
        (b'{"name": "app/free", "ts": 1}', "invalid_event", "ts: it is the time of arrival"),
        (b'{"name": "app/free", "v": "1"}', "invalid_event", "v: it is the server's"),
        (b'{"name": "app/free", "dta": {}}', "invalid_event", "dta: an event has no such field"),
    ],
)
def test_bodies_that_are_no_events_are_refused(body: bytes, code: str, says: str) -> None:
    error = refused(body)

    assert (error.status, error.code) == (400, code)
    assert says in str(error)


def test_other_events_and_too_many_are_refused() -> None:
    other = refused([{"name": "app/free"}, {"name": "currency/award.requested", "data": {}}])
    many = refused([{"name": "app/free"}] * 4)

    assert (other.status, other.code, other.problems[0].field) == (
        403,
        "event_not_allowed",
        "[1].name",
    )
    assert "app/order.noted, app/strict, app/free" in str(other)
    assert (many.status, many.code) == (413, "too_many_events")


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ((), "needs the events"),
        ((7,), "expected a class"),
        ((Item,), "expected a class"),
        ((OrderNoted, "app/order.noted"), "listed twice"),
        (("inngest/mine",), "cannot be sent"),
        (("app/*",), "cannot be sent"),
        (("",), "an event name"),
    ],
)
def test_lists_that_cannot_work_are_refused(events: tuple[Any, ...], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        accept_events(*events)


@pytest.mark.parametrize(
    "options",
    [{"max_events": 0}, {"max_bytes": 0}, {"rate_limit": RateLimit(1, "1m", key="event.data.x")}],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="accept_events"):
        accept_events("app/free", **options)
