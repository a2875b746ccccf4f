"""Events as `/e/…` accepts them (vector `api-event-ingest.json`), and how functions see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.errors import ProtocolError
from stepbase.protocol.event import EventIn, decode_event, payload


def refused(raw: object) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode_event(raw)
    return str(caught.value)


def test_everything_an_event_may_carry_is_read() -> None:
    raw = {
        "name": "a/b",
        "data": {"x": 1},
        "id": "my-id",
        "ts": 1700000000000,
        "user": {"u": 1},
        "v": "2",
        "unknown": "ignored",
    }

    assert decode_event(raw) == EventIn("a/b", {"x": 1}, "my-id", 1700000000000, {"u": 1}, "2")


def test_only_the_name_is_needed() -> None:
    assert decode_event({"name": "a"}) == EventIn("a", {})
    assert decode_event({"name": "a", "data": None, "id": "", "ts": 0, "user": None}) == EventIn(
        "a", {}
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "an event must be a JSON object, got null"),
        ([], "an event must be a JSON object, got array"),
        ("a/b", "an event must be a JSON object, got string"),
        (True, "an event must be a JSON object, got boolean"),
        (5, "an event must be a JSON object, got number"),
        ({}, "event name is empty"),
        ({"name": ""}, "event name is empty"),
        ({"name": None}, "event name is empty"),
        ({"name": 5}, "event name must be a string, got number"),
        ({"name": "x" * 513}, f"event name has 513 characters, 512 are allowed: {'x' * 60}…"),
        ({"name": "inngest/foo"}, "event name is reserved for internal use: inngest/foo"),
        ({"name": "a", "data": [1]}, "event field 'data' must be a JSON object, got array"),
        ({"name": "a", "data": "x"}, "event field 'data' must be a JSON object, got string"),
        ({"name": "a", "user": 1}, "event field 'user' must be a JSON object, got number"),
        ({"name": "a", "id": 1}, "event field 'id' must be a string, got number"),
        ({"name": "a", "v": 1}, "event field 'v' must be a string, got number"),
        (
            {"name": "a", "id": "x\x00"},
            "event field 'id' contains a NUL character; remove it",
        ),
        (
            {"name": "a", "ts": "now"},
            "event field 'ts' must be whole milliseconds since 1970, got 'now'",
        ),
        (
            {"name": "a", "ts": True},
            "event field 'ts' must be whole milliseconds since 1970, got True",
        ),
        (
            {"name": "a", "ts": 1700000000000.5},
            "event field 'ts' must be whole milliseconds since 1970, got 1700000000000.5",
        ),
        (
            {"name": "a", "ts": 1700000000},
            "event field 'ts' must lie between 1980 and 2100 in milliseconds, got 1700000000",
        ),
        (
            {"name": "a", "ts": 4102444800001},
            "event field 'ts' must lie between 1980 and 2100 in milliseconds, got 4102444800001",
        ),
    ],
)
def test_a_bad_event_is_refused_with_the_field_and_what_came(raw: object, message: str) -> None:
    assert refused(raw) == message


def test_512_characters_are_allowed() -> None:
    assert decode_event({"name": "x" * 512}).name == "x" * 512


def test_only_the_server_itself_sends_internal_events() -> None:
    raw = {"name": "inngest/x", "data": {"_inngest": {"a": 1}, "b": 2}}

    assert decode_event(raw, is_internal=True).data == {"_inngest": {"a": 1}, "b": 2}
    assert decode_event({**raw, "name": "x"}).data == {"b": 2}


def test_a_function_sees_id_ts_and_user_whatever_was_sent() -> None:
    assert payload(EventIn("a", {"x": 1}), "01ID", 5) == {
        "data": {"x": 1},
        "id": "01ID",
        "name": "a",
        "ts": 5,
        "user": {},
    }
    sent = EventIn("a", {}, "mine", 7, {"u": 1}, "2")
    assert payload(sent, "01ID", 5) == {
        "data": {},
        "id": "mine",
        "name": "a",
        "ts": 7,
        "user": {"u": 1},
        "v": "2",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "data", "id", "ts", "user", "v"]), inner, max_size=6),
    max_leaves=8,
)  # fmt: skip


@given(JSON)
def test_any_json_is_an_event_or_breaks_the_protocol(raw: object) -> None:
    try:
        event = decode_event(raw)
    except ProtocolError:
        return
    assert decode_event(payload(event, "01ID", 1700000000000)).data == event.data
