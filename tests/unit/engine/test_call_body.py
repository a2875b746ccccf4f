"""The body of a call as the engine writes it and an SDK reads it (vector `03-call-first…`)."""

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.engine.item import Item
from stepbase.engine.starts import Function
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.call import decode_call
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.sync import FunctionConfig

FUNCTION = Function(
    UUID("27b79e6d-d606-5499-8a54-86f8214b4a8b"),
    "app",
    1,
    FunctionConfig("app-f", "f", "http://x", (), 2),
)
EVENT = {"data": {}, "id": "e", "name": "app/f", "ts": 1, "user": {}}


def item(event: object = EVENT, memos: list[tuple[str, object]] | None = None) -> Item:
    return Item(
        run_id="01M84KW8B4GRADS9E2AXGQ3VSC",
        job="main",
        kind="edge",
        step=None,
        gen=3,
        attempt=1,
        function=FUNCTION,
        event=dumps(event),
        version=2,
        memos=[(hashed, dumps(memo)) for hashed, memo in memos or []],
    )


def test_a_call_carries_what_the_real_servers_does() -> None:
    body = json.loads(item(memos=[("b", {"data": 1}), ("a", None)]).call_body("REQ"))

    assert body == {
        "ctx": {
            "attempt": 1,
            "disable_immediate_execution": False,
            "env": "",
            "fn_id": "27b79e6d-d606-5499-8a54-86f8214b4a8b",
            "generation_id": 3,
            "job_id": "main",
            "max_attempts": 3,
            "qi_id": "main",
            "request_id": "REQ",
            "run_id": "01M84KW8B4GRADS9E2AXGQ3VSC",
            "stack": {"current": 2, "stack": ["b", "a"]},
            "step_id": "step",
            "use_api": False,
        },
        "defers": {},
        "event": EVENT,
        "events": [EVENT],
        "steps": {"b": {"data": 1}, "a": None},
        "use_api": False,
        "version": 2,
    }


def test_a_call_over_four_mebibytes_leaves_events_and_steps_to_be_fetched() -> None:
    body = item(memos=[(f"s{i}", {"data": "x" * 1_500_000}) for i in range(3)]).call_body("REQ")

    parsed = json.loads(body)
    assert len(body) < names.MAX_CALL_BYTES
    assert (parsed["use_api"], parsed["ctx"]["use_api"]) == (True, True)
    assert (parsed["events"], parsed["steps"]) == ([], {})
    assert parsed["event"] == EVENT
    assert parsed["ctx"]["stack"] == {"current": 3, "stack": ["s0", "s1", "s2"]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    data=st.dictionaries(st.text(max_size=4), JSON, max_size=3),
    memos=st.dictionaries(st.text(min_size=1, max_size=5), JSON, max_size=4),
)
def test_any_event_and_memos_come_back_equal(
    data: dict[str, object], memos: dict[str, object]
) -> None:
    event = {**EVENT, "data": data}

    call = decode_call(json.loads(item(event, list(memos.items())).call_body("REQ")))

    assert (call.event, call.events, call.steps) == (event, [event], memos)
    assert (call.stack, call.attempt, call.max_attempts) == (list(memos), 1, 3)
    assert (call.version, call.generation_id, call.is_planning) == (2, 3, False)


@given(JSON)
def test_any_json_is_a_call_or_breaks_the_protocol(raw: object) -> None:
    for body in (raw, {"event": raw, "ctx": {"run_id": "r"}}, {"event": EVENT, "ctx": raw}):
        try:
            decode_call(body)
        except ProtocolError:
            continue


def test_a_call_without_an_event_is_refused() -> None:
    with pytest.raises(ProtocolError, match="the call has no 'event'"):
        decode_call({"ctx": {"run_id": "r"}})
