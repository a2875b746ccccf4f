"""Expressions evaluated: CEL, with Inngest's dialect at the edges."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepbase.engine import expr
from stepbase.errors import ProtocolError

EVENT = {
    "name": "shop/paid",
    "ts": 1700000000000,
    "data": {"id": "p1", "n": 5, "f": 1.5, "tags": ["a", "b"], "deep": {"ok": True}, "a b": 1},
}


@pytest.mark.parametrize(
    "source",
    [
        "event.data.id == 'p1'",
        'event.data.id == "p1" && event.data.n >= 5',
        "event.data.n == 5.0",
        "event.data.f < 2.0",
        "event.data.tags[1] == 'b'",
        "'a' in event.data.tags",
        "event.data.deep.ok",
        "event.data['a b'] == 1",
        "event.data.id.startsWith('p')",
        "size(event.data.tags) == 2",
        "has(event.data.id) && has( event.data.deep.ok )",
        "!has(event.data.nope)",
        "event.name == 'shop/paid' && event.ts > 0",
        "event.data.tags.exists(tag, tag == 'b')",
        # Inngest's dialect: what is missing is null, and null is 0 where a number is asked for.
        "event.data.nope == null",
        "event.data.nope.deeper[3].still == null",
        "event.data.nope < 1 && event.data.nope >= 0",
        "event.data.nope + 1 == 1",
        "event.data.nope == null && event.data.nope < 1 && !has(event.data.nope)",
    ],
)
def test_it_holds(source: str) -> None:
    assert expr.holds(source, {"event": EVENT})


@pytest.mark.parametrize(
    "source",
    [
        "event.data.id == 'p2'",
        "event.data.nope == 1",
        "event.data.nope == 'null'",
        "has(event.data.nope)",
        "event.data.nope > 0",
        "'null' == event.data.nope",
    ],
)
def test_it_does_not_hold(source: str) -> None:
    assert not expr.holds(source, {"event": EVENT})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("event.data.n", "expression must give true or false and counts as false"),
        ("event.data.id", "expression must give true or false and counts as false"),
        ("event.data.nope", "expression must give true or false and counts as false"),
        ("event.data.id > 5", "expression could not be evaluated and counts as false"),
        ("unknown == 1", "expression could not be evaluated and counts as false"),
        (
            "event.data.nope.startsWith('x')",
            "expression could not be evaluated and counts as false",
        ),
    ],
)
def test_what_is_no_boolean_counts_as_false_and_says_so(
    source: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not expr.holds(source, {"event": EVENT})

    assert message in caplog.messages


@pytest.mark.parametrize("source", ["event.data.(", "", "event.data.id ==", "1 +", "'open", "a b"])
def test_what_is_no_cel_is_refused_and_shown(source: str) -> None:
    with pytest.raises(ProtocolError, match="not a valid CEL expression") as caught:
        expr.compile_expression(source)

    assert repr(source) in str(caught.value)


def test_a_very_long_expression_is_refused_before_the_parser_sees_it() -> None:
    with pytest.raises(ProtocolError, match="40001 characters, 8192 are allowed"):
        expr.compile_expression("1" + "+1" * 20_000)


def test_a_stored_expression_that_no_longer_compiles_counts_as_false(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not expr.holds("event.data.(", {"event": EVENT})
    assert "stored expression counts as false" in caplog.messages


def test_an_expression_is_compiled_once() -> None:
    assert expr.compile_expression("event.x == 1") is expr.compile_expression("event.x == 1")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="event.data[]()'\"&|!=<>?:+- 01{}", max_size=40))
def test_any_text_is_either_an_expression_or_a_protocol_error(source: str) -> None:
    try:
        compiled = expr.compile_expression(source)
    except ProtocolError:
        return
    assert compiled.is_true({"event": EVENT}) in (True, False)
