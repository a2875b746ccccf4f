"""Conditions made indexable, and which triggers an event's name fits."""

from collections.abc import Mapping

import pytest

from stepbase.engine import expr
from stepbase.engine.match import Wait, name_matches, wait_for, wildcard_prefixes

EVENT: dict[str, object] = {
    "name": "purchase/paid",
    "data": {"id": "p1", "n": 5, "f": 1.5, "ok": True, "items": [{"id": 7}], "text": 'a "b" && c'},
}


def wait(condition: str | None, event: Mapping[str, object] = EVENT) -> Wait | None:
    return wait_for(condition, event, lambda part: expr.holds(part, {"event": event}))


@pytest.mark.parametrize(
    ("condition", "path", "value"),
    [
        ("event.data.id == async.data.id", "data.id", '"p1"'),
        ("async.data.id == event.data.id", "data.id", '"p1"'),
        ("event.data.n == async.data.n", "data.n", "5"),
        ("async.data.f == event.data.f", "data.f", "1.5"),
        ("async.data.ok == event.data.ok", "data.ok", "true"),
        ("event.data.items[0].id == async.data.id", "data.id", "7"),
        ("async.data.kind == 'full'", "data.kind", '"full"'),
        ('async.data.kind == "fu\\nll"', "data.kind", '"fu\\nll"'),
        ("async.data.kind == 'say \"é\"'", "data.kind", '"say \\"é\\""'),
        ("12.50 == async.data.price", "data.price", "12.5"),
        ("async.data.open == false", "data.open", "false"),
        ('async.data["a b"] == 1', "data.a b", "1"),
        ("async.name == 'x'", "name", '"x"'),
        ("event.data.text == async.data.text", "data.text", '"a \\"b\\" && c"'),
    ],
)
def test_an_equality_becomes_an_index_look_up(condition: str, path: str, value: str) -> None:
    assert wait(condition) == Wait(path, value, None)


@pytest.mark.parametrize(
    ("condition", "residual"),
    [
        ("async.data.n > event.data.n", "(async.data.n > event.data.n)"),
        ("event.data.nope == async.data.id", "(event.data.nope == async.data.id)"),
        ("event.data.items == async.data.items", "(event.data.items == async.data.items)"),
        ("async.data.id == null", "(async.data.id == null)"),
        ("async.data.id != 'a'", "(async.data.id != 'a')"),
        ("async.data.a == async.data.b", "(async.data.a == async.data.b)"),
        ("async == 1", "(async == 1)"),
        ('async.data["a.b"] == 1', '(async.data["a.b"] == 1)'),
        ('async[""] == 1', '(async[""] == 1)'),
        (r"async.data.x == '\x41'", r"(async.data.x == '\x41')"),
        (r'async.data.x == r"\d"', r'(async.data.x == r"\d")'),
        ("async.data.x == 007", "(async.data.x == 007)"),
        ("async.data.x == 5u", "(async.data.x == 5u)"),
        ("async.data.x == 1e999", "(async.data.x == 1e999)"),
        ("async.data.x == -1", "(async.data.x == -1)"),
        ("async.a == 1 || async.b == 2", "(async.a == 1 || async.b == 2)"),
        ("has(async.data.x)", "(has(async.data.x))"),
    ],
)
def test_what_is_no_equality_with_a_scalar_is_left_to_check(condition: str, residual: str) -> None:
    assert wait(condition) == Wait("", "null", residual)


def test_of_several_equalities_the_first_is_indexed_and_the_rest_left() -> None:
    found = wait("event.data.id == async.data.id && async.data.n > 3 && async.data.f == 1.5")

    assert found == Wait("data.id", '"p1"', "(async.data.n > 3) && (async.data.f == 1.5)")


@pytest.mark.parametrize(
    ("condition", "path"),
    [("async.data.items[0] == 7", "data.items.0"), ('async.l["0"] == 7', "l.0")],
)
def test_a_number_in_the_path_is_indexed_and_checked_again(condition: str, path: str) -> None:
    assert wait(condition) == Wait(path, "7", f"({condition})")


def test_no_condition_is_true_for_every_event_of_the_name() -> None:
    assert wait(None) == Wait("", "null", "true")


@pytest.mark.parametrize(
    "condition",
    [
        "false && async.data.id == 1",
        "event.data.n > 100 && event.data.id == async.data.id",
        "async.data.id == 1 && event.data.id == 'other'",
        "event.data.id && async.data.id == 1",
        "has(event.data.nope)",
    ],
)
def test_a_condition_the_runs_event_already_breaks_waits_for_nothing(condition: str) -> None:
    assert wait(condition) is None


def test_a_condition_on_the_runs_event_alone_waits_for_every_event() -> None:
    assert wait("event.data.n == 5") == Wait("", "null", "true")
    assert wait("event.data.nope < 1") == Wait("", "null", "true")


def test_values_of_an_event_never_become_part_of_an_expression() -> None:
    hostile: dict[str, object] = {
        "data": {"id": '" || true || "', "n": 2**70, "l": ["}) || (true"]}
    }

    assert wait("event.data.id == async.data.id", hostile) == Wait(
        "data.id", '"\\" || true || \\""', None
    )
    assert wait("async.data.l == event.data.l && event.data.n > 5", hostile) == Wait(
        "", "null", "(async.data.l == event.data.l)"
    )


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/*", "a/b", True),
        ("a/*", "a/b.c", True),
        ("a/b.*", "a/b.c", True),
        ("a.*", "a.b", True),
        ("*", "anything", True),
        ("a/*", "a/", False),
        ("a/*", "a", False),
        ("a/*", "ab/c", False),
        ("a*", "ab", False),
        ("a*", "a*", True),
        ("a/b", "a/c", False),
    ],
)
def test_a_star_fits_after_the_last_slash_or_dot(pattern: str, name: str, fits: bool) -> None:
    assert name_matches(pattern, name) is fits
    assert (pattern in (name, *wildcard_prefixes(name))) is fits
