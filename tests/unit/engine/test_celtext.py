"""Expressions as text: tokens, paths, conjuncts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.engine import celtext
from stepbase.engine.celtext import PathKey, Use


@given(st.text(max_size=60) | st.text(alphabet="ab.[]()\"'\\ 01&|=<>?:event", max_size=60))
def test_the_tokens_of_any_text_join_to_that_text(text: str) -> None:
    assert "".join(token.text for token in celtext.tokenize(text)) == text


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("event", ("event",)),
        ("event.data.id", ("event", "data", "id")),
        ("event . data\n. id", ("event", "data", "id")),
        ("event.data.items[0].id", ("event", "data", "items", 0, "id")),
        ('event.data["a b"]', ("event", "data", "a b")),
        ("event.data['a.b']", ("event", "data", "a.b")),
        (r'event.data["say \"é\""]', ("event", "data", 'say "é"')),
        ('event["data"]["0"]', ("event", "data", "0")),
    ],
)
def test_a_path_is_one_token_with_its_keys(text: str, keys: tuple[PathKey, ...]) -> None:
    [token] = celtext.tokenize(text)

    assert (token.kind, token.keys) == ("path", keys)


def test_a_method_ends_the_path_before_it() -> None:
    paths = [t.keys for t in celtext.tokenize('event.data.x.startsWith("a.b")') if t.kind == "path"]

    assert paths == [("event", "data", "x")]


def test_a_function_is_no_path() -> None:
    assert celtext.roots("size(event.data.x) > int('1')") == {"event"}


@pytest.mark.parametrize("text", ['"event.data.x"', "'async'", r'"a\"event.y"', r"r'\event.z'"])
def test_what_stands_in_a_string_is_no_path(text: str) -> None:
    assert celtext.roots(text) == set()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (("data", "id"), 7),
        (("data", "items", 1), "b"),
        (("data", "items", 9), None),
        (("data", "items", "1"), None),
        (("data", "0"), "zero"),
        (("data", 0), None),
        (("data", "id", "deeper"), None),
        (("nope", "at", "all"), None),
        ((), {"data": {"id": 7, "items": ["a", "b"], "0": "zero"}}),
    ],
)
def test_what_is_not_there_is_null(keys: tuple[PathKey, ...], found: object) -> None:
    event = {"data": {"id": 7, "items": ["a", "b"], "0": "zero"}}

    assert celtext.lookup(event, keys) == found


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("event.a == 1", {"a": "value"}),
        ("event.a < event.b", {"a": "number", "b": "number"}),
        ("1 >= event.a", {"a": "number"}),
        ("event.a+1 == 2", {"a": "number"}),
        ("has(event.a)", {"a": "presence"}),
        ("has( event.a )", {"a": "presence"}),
        ("!has(event.a) && event.a2 > 1", {"a": "presence", "a2": "number"}),
        ("size(event.a) > 1", {"a": "value"}),
        ("event.a ? event.b : event.c", {"a": "value", "b": "value", "c": "value"}),
    ],
)
def test_a_path_is_replaced_by_what_it_is_used_for(text: str, uses: dict[str, Use]) -> None:
    seen: dict[str, Use] = {}

    def replacement(keys: tuple[PathKey, ...], use: Use) -> str:
        seen[str(keys[-1])] = use
        return "v"

    celtext.replace_paths(text, replacement)

    assert seen == uses


def test_has_is_replaced_with_its_parentheses() -> None:
    assert celtext.replace_paths("!has( event.a ) || x", lambda *_: "v") == "! v  || v"


def test_paths_that_are_not_ours_stay() -> None:
    text = "event.items.exists(x, x == 1)"

    replaced = celtext.replace_paths(text, lambda keys, _: "v0" if keys[0] == "event" else None)

    assert replaced == "v0.exists(x, x == 1)"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("a && b&&c", ["a", "b", "c"]),
        ("a == 'x && y' && b", ["a == 'x && y'", "b"]),
        ('a == "\\" && " && b', ['a == "\\" && "', "b"]),
        ("(a && b) && c", ["(a && b)", "c"]),
        ("[a && b][0] && {'k': a && b}.k", ["[a && b][0]", "{'k': a && b}.k"]),
        ("a && b || c", ["a && b || c"]),
        ("a && (b || c)", ["a", "(b || c)"]),
        ("a ? b && c : d", ["a ? b && c : d"]),
        ("a && b // and && this", ["a && b // and && this"]),
        ("a == 'http://x' && b", ["a == 'http://x'", "b"]),
    ],
)
def test_conjuncts_are_cut_at_the_top_only(text: str, parts: list[str]) -> None:
    assert celtext.conjuncts(text) == parts
