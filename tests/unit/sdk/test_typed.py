"""Values on their way out and back."""

import enum
import json
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from stepbase import DefinitionError, NonRetriableError
from stepbase.sdk import typed
from stepbase.sdk.typed import UNTYPED, decode, encode, returns_of

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(JSON)
def test_plain_json_comes_back_as_it_was(value: Any) -> None:
    assert json.loads(encode(value, UNTYPED, "x")) == value


@given(st.integers())
def test_any_integer_comes_back_through_its_annotation(value: int) -> None:
    assert decode(json.loads(encode(value, int, "x")), int, "x") == value


@given(st.text())
def test_text_is_either_kept_exactly_or_refused(value: str) -> None:
    is_bad = "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value)
    if is_bad:
        with pytest.raises(NonRetriableError):
            encode(value, UNTYPED, "x")
    else:
        assert json.loads(encode(value, UNTYPED, "x")) == value


def test_a_backslash_that_looks_like_nul_is_kept() -> None:
    assert encode("\\u0000", UNTYPED, "x") == '"\\\\u0000"'


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    colour: "Colour"


class Colour(enum.Enum):
    RED = "red"


class Key(enum.Enum):
    A = "a"


def test_strict_models_read_json_as_json() -> None:
    Strict.model_rebuild()

    assert decode({"colour": "red"}, Strict, "x") == Strict(colour=Colour.RED)


def test_mappings_and_keys_become_objects() -> None:
    value = MappingProxyType({Key.A: 1})

    assert encode({"m": MappingProxyType({"a": 1})}, UNTYPED, "x") == '{"m":{"a":1}}'
    assert encode(value, UNTYPED, "x") == '{"a":1}'
    assert (
        encode({7: "a", False: "b", None: "c"}, UNTYPED, "x") == '{"7":"a","false":"b","null":"c"}'
    )


def test_a_big_integer_that_would_come_back_as_text_is_refused() -> None:
    class Loose(BaseModel):
        value: Any

    with pytest.raises(NonRetriableError, match="does not come back through its annotation"):
        encode(Loose(value=2**60), Loose, "x")


def test_a_value_that_does_not_fit_names_every_field() -> None:
    @dataclass
    class Point:
        x: int
        y: int

    with pytest.raises(NonRetriableError, match=r"x: .*; y: "):
        decode({"x": "a", "y": "b"}, Point, "step")
    with pytest.raises(NonRetriableError, match="and 2 more"):
        decode(["a"] * 7, list[int], "step")


def test_an_annotation_that_is_no_type_is_refused() -> None:
    with pytest.raises(DefinitionError, match="is no type that JSON can be read into"):
        decode({}, open, "x")


def annotated() -> "list[int]":
    return []


def unresolved() -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821  # the point
    return 1


class Callable_:
    def __call__(self) -> int:
        return 1

    def method(self) -> "str":
        return ""


def test_return_annotations_are_found() -> None:
    class Local(BaseModel):
        n: int

    def closed() -> "Local":
        return Local(n=1)

    assert returns_of(annotated) == list[int]
    assert returns_of(partial(annotated)) == list[int]
    assert returns_of(lambda: 1) is UNTYPED
    assert returns_of(Callable_()) is int
    assert returns_of(Callable_().method) is str
    assert returns_of(len) is UNTYPED
    assert returns_of(closed) is Local


def test_an_annotation_that_names_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="import it at run time"):
        returns_of(unresolved)


def test_an_awaitable_is_annotated_by_what_it_gives() -> None:
    def lazily() -> Awaitable[int]:
        raise NotImplementedError

    def later() -> "Coroutine[Any, Any, str]":
        raise NotImplementedError

    assert returns_of(lazily) is int
    assert returns_of(later) is str


def test_other_annotations_need_not_be_there() -> None:
    def typed_for_the_checker(event: "Nowhere") -> "list[int]":  # type: ignore[name-defined]  # noqa: F821  # the point
        return []

    assert returns_of(typed_for_the_checker) == list[int]


@pytest.mark.parametrize("value", [0.1234567890123456, [1e-300, 1.7976931348623157e308]])
def test_long_fractions_are_kept(value: Any) -> None:
    assert json.loads(encode(value, UNTYPED, "x")) == value


def test_unhashable_annotations_are_not_plain() -> None:
    assert typed.is_plain(Any)
    assert not typed.is_plain([])
