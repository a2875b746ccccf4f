"""Which runs an event starts, and with what."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.engine import expr
from stepbase.engine.match import Wait
from stepbase.engine.starts import Event, Function, Functions, Start, event_time, plan_starts
from stepbase.protocol.ids import hash_step_id
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.sync import CancelConfig, FunctionConfig, TriggerConfig

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)


def function(slug: str, *triggers: TriggerConfig, **changes: object) -> Function:
    config = FunctionConfig(slug, slug, "http://x", triggers, **changes)  # type: ignore[arg-type]
    return Function(UUID(int=sum(slug.encode())), "app", 1, config)


def on(event: str, expression: str | None = None) -> TriggerConfig:
    return TriggerConfig(event, expression)


def event(name: str, data: Mapping[str, object] | None = None, **changes: object) -> Event:
    parsed = {"data": data or {}, "id": "e", "name": name, "ts": 0, "user": {}}
    given = {"id": "01E", "event_id": None, "ts": NOW, **changes}
    return Event(name=name, payload=dumps(parsed), parsed=parsed, **given)  # type: ignore[arg-type]


def plan(events: list[Event], *functions: Function) -> list[Start]:
    ids = count(1)
    return plan_starts(
        events, Functions(functions), expr.holds, lambda: f"R{next(ids)}", NOW, expr.value_of
    )


def started(name: str, *functions: Function) -> list[str]:
    return [start.function.config.slug for start in plan([event(name)], *functions)]


@pytest.mark.parametrize(
    ("name", "slugs"),
    [
        ("shop/order.paid", ["exact", "dot", "slash", "all"]),
        ("shop/order.sent", ["dot", "slash", "all"]),
        ("shop/other", ["slash", "all"]),
        ("shop", ["all"]),
        ("shop/", ["all"]),
    ],
)
def test_an_event_starts_functions_by_name_and_by_star(name: str, slugs: list[str]) -> None:
    functions = [
        function("exact", on("shop/order.paid")),
        function("dot", on("shop/order.*")),
        function("slash", on("shop/*")),
        function("all", on("*")),
        function("literal", on("shop*")),
        function("nothing"),
        function("cron", TriggerConfig(cron="* * * * *")),
    ]

    assert sorted(started(name, *functions)) == sorted(slugs)


def test_a_function_starts_once_though_several_triggers_match() -> None:
    both = function("f", on("a/b"), on("a/*"), on("*"), on("a/b", "true"))

    assert started("a/b", both) == ["f"]


def test_a_condition_decides_and_another_trigger_may_still_start_it() -> None:
    big = function("big", on("a", "event.data.n > 5"))
    either = function("either", on("a", "event.data.n > 5"), on("a", "event.data.n < 2"))

    starts = plan([event("a", {"n": 9}), event("a", {"n": 3}), event("a", {"n": 1})], big, either)

    assert [(s.event, s.function.config.slug) for s in starts] == [
        (1, "big"), (1, "either"), (3, "either"),
    ]  # fmt: skip


def test_archived_functions_do_not_start_and_runs_of_paused_ones_wait() -> None:
    known = function("f", on("a"))
    archived = Function(known.function_id, "app", 1, known.config, is_archived=True)
    paused = Function(known.function_id, "app", 1, known.config, is_paused=True)

    assert started("a", archived) == []
    [waiting] = plan([event("a")], paused)
    assert waiting.lane.name == f"paused:{known.function_id}"
    assert Functions([archived]).by_id[known.function_id] is archived, "its runs go on"


def test_a_start_takes_the_senders_id_and_waits_for_a_future_time() -> None:
    later = NOW + timedelta(hours=1)

    [first, second] = plan(
        [event("a", event_id="mine"), event("a", ts=later)],
        function("f", on("a"), start_timeout=9.0),
    )

    assert (first.event, first.run_id, first.key, first.due) == (1, "R1", "mine", None)
    assert (second.event, second.run_id, second.key, second.due) == (2, "R2", None, later)
    assert first.deadline == 9.0


def test_each_cancel_on_becomes_a_pause_unless_it_can_never_match() -> None:
    cancels = (
        CancelConfig("stop", "event.data.id == async.data.id", 60.0),
        CancelConfig("never", "event.data.id == 'other'"),
        CancelConfig("any"),
    )

    [start] = plan([event("a", {"id": 7})], function("f", on("a"), cancels=cancels))

    assert [(p.event_name, p.wait, p.expires) for p in start.pauses] == [
        ("stop", Wait("data.id", "7", None), 60.0),
        ("any", Wait("", "null", "true"), 365 * 86_400.0),
    ]
    assert [p.hash for p in start.pauses] == [hash_step_id("cancel:0"), hash_step_id("cancel:2")]


def test_an_events_time_is_milliseconds() -> None:
    assert event_time(1700000000500) == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(value=DATA)
def test_no_event_makes_planning_fail(value: object) -> None:
    """What raises here would refuse the event for ever, and stop the relay that brings it."""
    cancels = tuple(
        CancelConfig("stop", condition)
        for condition in (
            "event.data.x == async.data.x",
            "event.data.x > 5 && async.data.y == event.data.x",
            "async.data.y < event.data.x || event.data.x[0] == async.data.x",
            "event.data.x.y.z == 'a' && async.data.x == 1",
        )
    )
    guarded = function(
        "f", on("a", "event.data.x == 1 || event.data.x != 1 || true"), cancels=cancels
    )

    [start] = plan([event("a", {"x": value})], guarded)

    assert len(start.pauses) <= 4
