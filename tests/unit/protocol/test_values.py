"""Small values of the wire: durations, JSON text, memos, ops."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.errors import ProtocolError
from stepbase.protocol.duration import format_duration, parse_duration, to_timedelta
from stepbase.protocol.jsontext import dumps, dumps_bytes
from stepbase.protocol.memo import Memo, MemoKind, decode_memo, error_memo
from stepbase.protocol.op import Op, Opcode, decode_op


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), ("1.5s", 1.5), ("10ms", 0.01),
     ("1h 5m", 3900), ("0s", 0)],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert to_timedelta(text) == to_timedelta(timedelta(seconds=seconds))


@pytest.mark.parametrize("text", ["", " ", "90", "s", "1y", "-5s", "1h30", "9999999999999w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_a_number_is_no_duration() -> None:
    with pytest.raises(TypeError, match='a timedelta or a string like "2h"'):
        to_timedelta(5)  # type: ignore[arg-type]  # wrong on purpose


@given(st.integers(0, 10**13))
def test_a_written_duration_is_read_back(ms: int) -> None:
    duration = timedelta(milliseconds=ms)

    assert parse_duration(format_duration(duration)) == duration


def test_a_negative_duration_is_none() -> None:
    assert format_duration(timedelta(seconds=-5)) == "0s"


def test_json_is_compact_utf8_without_nan() -> None:
    assert dumps({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'
    assert dumps_bytes("\ud800") == b'"\\ud800"'
    assert json.loads(dumps("\ud800")) == "\ud800"
    with pytest.raises(ValueError, match="JSON"):
        dumps(float("nan"))


@pytest.mark.parametrize(
    ("raw", "memo"),
    [
        ({"data": 1}, Memo(MemoKind.DATA, 1)),
        ({"data": None}, Memo(MemoKind.DATA, None)),
        (None, Memo(MemoKind.DATA, None)),
        ([1], Memo(MemoKind.DATA, [1])),
        ({"data": 1, "name": "x"}, Memo(MemoKind.DATA, {"data": 1, "name": "x"})),
        ({"error": {"name": "E"}}, Memo(MemoKind.ERROR, {"name": "E"})),
        ({"error": "text"}, Memo(MemoKind.DATA, {"error": "text"})),
        ({"input": [1]}, Memo(MemoKind.INPUT, [1])),
        ({"input": 1}, Memo(MemoKind.DATA, {"input": 1})),
    ],
)
def test_memos_are_read_as_what_they_are(raw: object, memo: Memo) -> None:
    assert decode_memo(raw) == memo


def test_an_error_memo_keeps_what_servers_keep() -> None:
    error = {"code": "x", "name": "E", "message": "m", "stack": None, "cause": {"name": "C"}}

    assert error_memo(error) == {"error": {"name": "E", "message": "m", "cause": {"name": "C"}}}


OPS = st.builds(
    Op,
    op=st.sampled_from(Opcode),
    id=st.text("0123456789abcdef", min_size=1),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    display_name=st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    opts=st.none() | st.dictionaries(st.text(), st.integers()),
    data=st.none() | st.integers() | st.lists(st.text()),
    error=st.none() | st.dictionaries(st.text(), st.text()),
    userland_id=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    userland_index=st.none() | st.integers(),
)


@given(OPS)
def test_an_op_is_read_back(op: Op) -> None:
    assert decode_op(op.encode(), "[0]") == op


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["op", "id", "name", "opts", "error", "userland", "displayName"]), inner
        )
    ),
)


@given(JUNK)
def test_anything_else_raises_only_a_protocol_error(raw: Any) -> None:
    try:
        decode_op(raw, "[0]")
    except ProtocolError as error:
        assert str(error)


def test_an_unknown_opcode_is_named() -> None:
    with pytest.raises(ProtocolError, match="unknown opcode 'StepNotFound'") as caught:
        decode_op({"op": "StepNotFound", "id": "x"}, "[3]")

    assert caught.value.code == "unknown_opcode"
