"""Calls and replies, read and written; both against the recordings."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.errors import ProtocolError
from stepbase.protocol.call import decode_call, encode_call
from stepbase.protocol.event import EventIn, decode_event, payload
from stepbase.protocol.reply import FunctionError, NoAnswer, Ops, Output, decode_reply

FOLDER = Path(__file__).parents[2] / "vectors" / "inngest-server"
SDK = {"x-inngest-sdk": "x"}


def recorded() -> list[Any]:
    """Return every recorded exchange between the server and a function."""
    found = []
    for path in sorted([*FOLDER.glob("[0-9]*.json"), *FOLDER.glob("scenario-*.json")]):
        raw = json.loads(path.read_text())
        exchanges = raw.get("exchanges") or raw.get("sdk_calls") or [raw]
        found += [each for each in exchanges if "fnId=" in each.get("request", {}).get("path", "")]
    return found


@pytest.mark.parametrize("number", range(len(recorded())))
def test_recorded_calls_and_replies_are_read(number: int) -> None:
    exchange = recorded()[number]
    body = exchange["request"]["body"]
    call = decode_call(body)
    response = exchange["response"]
    headers = {name.lower(): value for name, value in response["headers"]}

    reply = decode_reply(response["status"], headers, json.dumps(response["body"]).encode())

    assert (call.run_id, call.attempt) == (body["ctx"]["run_id"], body["ctx"]["attempt"])
    assert call.max_attempts == body["ctx"]["max_attempts"]
    assert list(call.stack) == body["ctx"]["stack"]["stack"]
    kinds = {200: Output, 206: Ops, 500: FunctionError}
    assert isinstance(reply, kinds[response["status"]])
    assert not isinstance(reply, NoAnswer) and reply.version == 2


MEMOS = st.dictionaries(st.text("0123456789abcdef", min_size=4), st.integers() | st.none())


@given(MEMOS, st.integers(0, 20), st.booleans(), st.booleans())
def test_a_written_call_is_read_back(
    memos: dict[str, Any], attempt: int, is_planning: bool, use_api: bool
) -> None:
    event = {"name": "a", "data": {}}
    body = encode_call(
        events=[json.dumps(event)],
        memos=[(hashed, json.dumps({"data": value})) for hashed, value in memos.items()],
        run_id="run",
        fn_id="fn",
        step_id="step",
        attempt=attempt,
        max_attempts=4,
        is_planning=is_planning,
        version=2,
        generation_id=7,
        job_id="job",
        request_id="req",
        use_api=use_api,
    )

    call = decode_call(json.loads(body))

    assert call.event == event
    assert call.events == ([] if use_api else [event])
    assert call.steps == ({} if use_api else {k: {"data": v} for k, v in memos.items()})
    assert list(call.stack) == list(memos)
    assert (call.attempt, call.max_attempts, call.is_planning) == (attempt, 4, is_planning)
    assert (call.fn_id, call.qi_id, call.request_id, call.generation_id) == ("fn", "job", "req", 7)
    assert (call.use_api, call.version, call.is_targeted) == (use_api, 2, False)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["ctx", "event", "events", "steps", "run_id", "attempt", "stack", "step_id"]
            ),
            inner,
        )
    ),
)


@given(JUNK)
def test_what_is_no_call_raises_only_a_protocol_error(raw: Any) -> None:
    try:
        decode_call(raw)
    except ProtocolError as error:
        assert "call" in str(error)


@given(st.integers(100, 599), st.binary(), st.booleans(), st.sampled_from(["", "true", "false"]))
def test_any_answer_is_a_reply_or_a_protocol_error(
    status: int, body: bytes, is_sdk: bool, no_retry: str
) -> None:
    headers = {**(SDK if is_sdk else {}), **({"x-inngest-no-retry": no_retry} if no_retry else {})}

    try:
        reply = decode_reply(status, headers, body)
    except ProtocolError:
        assert is_sdk
    else:
        assert isinstance(reply, NoAnswer) != is_sdk


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (200, SDK, b"", Output),
        (204, SDK, b"", Output),
        (200, SDK, b"no json", Output),
        (200, {**SDK, "x-inngest-no-retry": "true"}, b"{}", FunctionError),
        (400, SDK, b"[]", FunctionError),
        (206, SDK, b"[]", Ops),
        (206, SDK, b'{"op":"None"}', Ops),
        (201, SDK, b'  {"status":206,"headers":{},"body":"[]"}', Ops),
        (201, SDK, b'{"status":200,"body":{"a":1}}', Output),
        (200, {}, b"<html>", NoAnswer),
        (502, {}, b"", NoAnswer),
    ],
)
def test_what_an_answer_means(
    status: int, headers: dict[str, str], body: bytes, kind: type
) -> None:
    assert isinstance(decode_reply(status, headers, body), kind)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (206, b""),
        (206, b"{"),
        (206, b"7"),
        (206, b"[7]"),
        (206, json.dumps([{"op": "None"}] * 1001).encode()),
        (201, b"{}"),
        (201, b"7"),
        (201, b'{"status":201,"body":""}'),
        (200, b"x" * (8 * 1024 * 1024 + 1)),
    ],
)
def test_what_an_sdk_must_not_answer(status: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_reply(status, SDK, body)


def test_an_outage_is_told_from_something_else_that_answers() -> None:
    away = decode_reply(503, {}, b"")
    other = decode_reply(200, {}, b"<html>")

    assert isinstance(away, NoAnswer) and away.is_outage
    assert isinstance(other, NoAnswer) and not other.is_outage
    assert "check the synced URL" in other.message


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (7, "must be a JSON object, got number"),
        ({}, "event name is empty"),
        ({"name": 7}, "must be a string"),
        ({"name": "a" * 513}, "has 513 characters, 512 are allowed"),
        ({"name": "inngest/x"}, "reserved for internal use"),
        ({"name": "a", "data": []}, "'data' must be a JSON object, got array"),
        ({"name": "a", "user": "u"}, "'user' must be a JSON object, got string"),
        ({"name": "a", "id": True}, "'id' must be a string, got boolean"),
        ({"name": "a", "v": "\x00"}, "contains a NUL"),
        ({"name": "a", "ts": 1.5}, "whole milliseconds"),
        ({"name": "a", "ts": True}, "whole milliseconds"),
        ({"name": "a", "ts": 1}, "between 1980 and 2100"),
    ],
)
def test_an_event_that_is_none_is_refused(raw: object, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        decode_event(raw)


def test_an_event_is_shown_to_functions_with_all_it_needs() -> None:
    event = decode_event({"name": "a", "data": {"n": 1, "_inngest": {}}, "v": "2"})

    assert event == EventIn("a", {"n": 1}, v="2")
    assert payload(event, "01A", 5) == {
        "data": {"n": 1},
        "id": "01A",
        "name": "a",
        "ts": 5,
        "user": {},
        "v": "2",
    }
    internal = decode_event({"name": "inngest/x", "data": {"_inngest": {}}}, is_internal=True)
    assert internal.data == {"_inngest": {}}
