"""Sessions of an event: two layers become one."""

import pytest

from stepbase.errors import ProtocolError
from stepbase.protocol.event import decode_event, payload
from stepbase.protocol.sessions import MAX_SESSIONS, decode_sessions

INHERITED = {f"i{n}": "run" for n in range(MAX_SESSIONS)}


@pytest.mark.parametrize(
    ("meta", "sessions"),
    [
        (None, {}),
        ({}, {}),
        ({"sessions": {}, "other": 1}, {}),
        ({"sessions": {"a": "x", "b": 7}}, {"a": "x", "b": "7"}),
        ({"propagated_sessions": {"a": "x"}}, {"a": "x"}),
        ({"sessions": {"a": "own"}, "propagated_sessions": {"a": "x", "b": "y"}}, {"a": "own", "b": "y"}),
        ({"sessions": {"a": None}, "propagated_sessions": {"a": "x", "b": "y"}}, {"b": "y"}),
        ({"sessions": None, "propagated_sessions": {"a": "x"}}, {}),
        ({"sessions": {"z": 1}, "propagated_sessions": INHERITED},
         {"z": "1", "i0": "run", "i1": "run", "i2": "run", "i3": "run"}),
    ],
)  # fmt: skip
def test_own_sessions_go_before_inherited_ones(meta: object, sessions: dict[str, str]) -> None:
    assert decode_sessions(meta) == sessions


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ([], "'meta'"),
        ({"sessions": []}, "meta.sessions"),
        ({"sessions": {"a": True}}, "'a'"),
        ({"sessions": {"a": ""}}, "'a'"),
        ({"sessions": {"": "x"}}, "''"),
        ({"propagated_sessions": {"a": {}}}, "meta.propagated_sessions"),
        ({"sessions": {"é" * 65: "x"}}, "too long"),
        ({"sessions": {"a": "x" * 513}}, "too long"),
        ({"sessions": {str(n): n for n in range(MAX_SESSIONS + 1)}}, "at most 5"),
    ],
)
def test_what_is_no_session_is_refused(meta: object, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode_sessions(meta)


def test_functions_see_the_sessions_of_an_event() -> None:
    event = decode_event({"name": "a", "meta": {"sessions": {"chat": 1}}})

    assert payload(event, "id", 1)["meta"] == {"sessions": {"chat": "1"}}
    assert "meta" not in payload(decode_event({"name": "a", "meta": {}}), "id", 1)
