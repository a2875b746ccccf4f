"""An awaited event found through the index is the one the condition itself would find, and no other."""

import json
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from stepbase.engine import expr
from stepbase.engine.match import Wait, wait_for

KEYS = st.sampled_from(["id", "n", "x", "items", "0", "a b", "null"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**53, 2**53 + 1, 2**63, 2**70, -(2**70)])
    | st.sampled_from([0.0, 1.0, 1.5, -2.0, 1e30, 1e-7, 123456.5])
    | st.text(alphabet=string.ascii_letters + "\"'\\ &|?\n\té☃😀", max_size=4)
    | st.sampled_from(["1", "true", "null", "a && b", 'say "hi"', "x" * 70])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)
DATA = st.dictionaries(KEYS, VALUES, max_size=4)
EVENT = st.fixed_dictionaries({"name": st.sampled_from(["a/b", "c"]), "data": DATA})

FIELDS = st.sampled_from(
    ["data.id", "data.n", 'data["a b"]', "data.items[0]", 'data["0"]', "data.items.id", "name"]
)
EVENT_PATH = FIELDS.map(lambda field: f"event.{field}")
ASYNC_PATH = FIELDS.map(lambda field: f"async.{field}")
LITERAL = st.sampled_from(
    ["1", "1.0", "0", "'1'", '"a && b"', "true", "null", r'"\x31"', "007", "-1", "2.5e0", "'é'"]
)
OPERAND = EVENT_PATH | ASYNC_PATH | LITERAL
COMPARISON = st.tuples(OPERAND, st.sampled_from(["==", "==", "==", "!=", "<", ">="]), OPERAND).map(
    " ".join
) | (EVENT_PATH | ASYNC_PATH).map("has({})".format)
CONDITION = st.recursive(
    COMPARISON,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" && ", " && ", " || "]), inner).map("".join)
        | inner.map("({})".format)
        | inner.map("!({})".format)
    ),
    max_leaves=4,
)


def canon(value: object) -> str | None:
    """Write a scalar as the SQL function of that name does, as far as equality goes."""
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(int(value)) if value == int(value) else repr(value)
    return None


def follow(event: object, path: str) -> object:
    """Follow a dotted path as `#>` does: digits index lists and name keys alike."""
    for key in path.split("."):
        if isinstance(event, dict):
            event = event.get(key)
        elif isinstance(event, list) and key.lstrip("-").isdigit():
            event = event[int(key)] if -len(event) <= int(key) < len(event) else None
        else:
            return None
    return event


def is_found(wait: Wait, run_event: object, event: object) -> bool:
    """Find the event as the engine does: by the index first, then by what is left to check."""
    if wait.path:
        value = canon(follow(event, wait.path))
        if value is None or value != canon(json.loads(wait.value)):
            return False
    return wait.residual is None or expr.holds(wait.residual, {"event": run_event, "async": event})


def holds(condition: str, run_event: dict[str, object], event: dict[str, object]) -> bool:
    """Evaluate the condition as it stands."""
    return expr.holds(condition, {"event": run_event, "async": event})


@settings(max_examples=400, deadline=None)
@given(condition=CONDITION, run_event=EVENT, event=EVENT)
def test_an_indexed_wait_finds_what_the_condition_says(
    condition: str, run_event: dict[str, object], event: dict[str, object]
) -> None:
    wait = wait_for(condition, run_event, lambda part: expr.holds(part, {"event": run_event}))

    found = wait is not None and is_found(wait, run_event, event)

    assert found == holds(condition, run_event, event)


@settings(max_examples=150, deadline=None)
@given(run_event=EVENT, event=EVENT, field=FIELDS)
def test_the_same_field_in_both_events_is_found_when_it_is_equal(
    run_event: dict[str, object], event: dict[str, object], field: str
) -> None:
    condition = f"event.{field} == async.{field}"

    wait = wait_for(condition, run_event, lambda _: True)

    assert wait is not None
    assert is_found(wait, run_event, event) == holds(condition, run_event, event)
