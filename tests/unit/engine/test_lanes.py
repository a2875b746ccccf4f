"""Limits as registered, and where the runs of an event wait for them."""

from typing import Any
from uuid import UUID

import pytest

from stepbase.engine import expr
from stepbase.engine.lanes import (
    NO_LANE,
    Lane,
    is_elsewhere,
    lane_of,
    lane_of_next,
    priority_of,
    waiting_for,
)
from stepbase.protocol.lane_options import (
    NO_LIMITS,
    Concurrency,
    LaneOptions,
    Throttle,
    decode_lane_options,
)

FUNCTION = UUID(int=7)


def lane(option: dict[str, object], data: dict[str, object] | None = None, **state: Any) -> Lane:
    event = {"data": data or {}}
    options = decode_lane_options(option, "app-f")
    return lane_of(FUNCTION, options, event, expr.value_of, **state)


@pytest.mark.parametrize(
    ("raw", "limits"),
    [
        (None, ()),
        (0, ()),
        ([], ()),
        (5, (Concurrency(5),)),
        ({"limit": 5}, (Concurrency(5),)),
        ([{"limit": 5, "key": ""}, {"limit": 0}], (Concurrency(5),)),
        (
            [{"limit": 5}, {"limit": 1, "key": "'k'", "scope": "account"}],
            (Concurrency(5), Concurrency(1, "'k'", "account")),
        ),
        ({"fn": [{"limit": 1}]}, ()),
        ({"fn": [{"limit": 1}], "step": [{"limit": 5}]}, (Concurrency(5),)),
        ({"step": [{"limit": 5}]}, (Concurrency(5),)),
    ],
)
def test_concurrency_is_read_in_each_of_its_forms(
    raw: object, limits: tuple[Concurrency, ...]
) -> None:
    assert decode_lane_options({"concurrency": raw}, "app-f").concurrency == limits


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        ({"fn": [{"limit": 2}]}, Concurrency(2)),
        (
            {"fn": {"limit": 2, "key": "event.data.id", "scope": "fn"}},
            Concurrency(2, "event.data.id"),
        ),
        ({"fn": [], "step": [{"limit": 5}]}, None),
        ({"limit": 5}, None),
        (5, None),
    ],
)
def test_a_limit_of_runs_is_read(raw: object, limit: Concurrency | None) -> None:
    read = decode_lane_options({"concurrency": raw}, "app-f")

    assert read.runs == limit
    assert read.stored().get("runs") == (limit and limit.limit)


def test_a_start_under_a_limit_of_runs_waits_apart_by_its_key() -> None:
    runs: dict[str, object] = {"fn": [{"limit": 1, "key": "event.data.id"}]}
    alone = lane({"concurrency": runs}, {"id": 5})
    with_steps = lane({"concurrency": {**runs, "step": [{"limit": 1}]}}, {"id": 5})

    place = f"run:{FUNCTION}:5"
    assert alone.name is not None and alone.name.endswith(f" \x1f\x1f{place}")
    assert waiting_for(alone.name.split("\x1f")[0], None, place) == alone.name
    assert with_steps.name is not None
    assert waiting_for("", with_steps.name.split("\x1f")[0], place) == with_steps.name
    assert lane_of_next(with_steps, FUNCTION, is_paused=False) == (
        Lane(with_steps.name.split("\x1f")[0], with_steps.keys),
        place,
    )
    assert lane_of_next(alone, FUNCTION, is_paused=False) == (NO_LANE, place)
    assert lane_of_next(NO_LANE, FUNCTION, is_paused=True) == (Lane(f"paused:{FUNCTION}"), None)


NONE = LaneOptions()
STEPS = LaneOptions((Concurrency(1, "event.data.id"),))
HIGHER = LaneOptions((Concurrency(9, "event.data.id"),), priority="1")
OTHER = LaneOptions((Concurrency(1, "event.data.other"),))
SHARED = LaneOptions((Concurrency(1, "event.data.id", "env"),))
PACED = LaneOptions(throttle=Throttle(1, 1.0))
RUNS = LaneOptions(runs=Concurrency(1))


@pytest.mark.parametrize(
    ("then", "now", "later", "new"),
    [
        (NONE, NONE, False, False),
        (STEPS, STEPS, False, False),
        (STEPS, HIGHER, False, False),
        (STEPS, NONE, False, False),
        (NONE, STEPS, True, True),
        (OTHER, STEPS, True, True),
        (SHARED, STEPS, True, True),
        (PACED, PACED, False, False),
        (NONE, PACED, False, True),
        (STEPS, PACED, False, True),
        (NONE, RUNS, False, True),
        (PACED, RUNS, False, True),
        (RUNS, RUNS, False, False),
    ],
)
def test_a_call_is_elsewhere_when_its_lane_is_of_other_keys(
    then: LaneOptions, now: LaneOptions, later: bool, new: bool
) -> None:
    start = lane_of(FUNCTION, then, {"data": {"id": 5}}, expr.value_of)
    after, _ = lane_of_next(start, FUNCTION, is_paused=False)

    assert is_elsewhere(FUNCTION, now, after.name, None, is_new=False) is later
    assert is_elsewhere(FUNCTION, now, after.name, start.name, is_new=True) is new


def test_a_throttle_without_a_burst_has_a_burst_of_one() -> None:
    read = decode_lane_options({"throttle": {"limit": 3, "period": "10s"}}, "app-f").throttle

    assert read == Throttle(3, 10.0, 1)
    assert (read.every, read.slack) == (3_333_333, 9_999_999)


def test_without_limits_there_is_no_lane() -> None:
    assert decode_lane_options({}, "app-f") == NO_LIMITS
    assert lane({}) == NO_LANE


def test_runs_share_a_lane_when_their_keys_are_equal() -> None:
    option: dict[str, object] = {"concurrency": {"limit": 1, "key": "event.data.id"}}

    assert lane(option, {"id": "a"}) == lane(option, {"id": "a"}) != lane(option, {"id": "b"})
    assert lane(option, {"id": "5"}) != lane(option, {"id": 5})
    assert lane(option, {"id": "a"}).keys == (f'fn:{FUNCTION}:"a"', None)


def test_a_missing_key_is_null_and_a_long_one_is_cut() -> None:
    option: dict[str, object] = {"concurrency": {"limit": 1, "key": "event.data.id"}}

    assert lane(option).keys[0] == f"fn:{FUNCTION}:null"
    long = lane(option, {"id": "x" * 10_000}).keys[0]
    assert long is not None and len(long) < 120


def test_keys_of_env_and_account_belong_to_no_function() -> None:
    options = LaneOptions((Concurrency(1, "'k'", "account"), Concurrency(1, "'k'", "env")))

    keys = lane_of(FUNCTION, options, {}, expr.value_of).keys

    assert keys == ('account:"k"', 'env:"k"')


def test_two_limits_of_one_key_are_counted_apart() -> None:
    first, second = lane({"concurrency": [{"limit": 1}, {"limit": 2}]}).keys

    assert first != second


def test_throttled_starts_wait_apart_from_the_calls_after_them() -> None:
    limits: dict[str, object] = {"concurrency": 1}
    throttled = lane({**limits, "throttle": {"limit": 1, "period": "1s", "key": "event.data.t"}})

    assert throttled.name is not None
    assert throttled.name.endswith(f" fn:{FUNCTION}:\x1ft:{FUNCTION}:null")
    assert throttled.keys == lane(limits).keys


def test_runs_of_a_paused_function_wait_in_a_lane_in_any_case() -> None:
    assert lane({}, is_paused=True).name == f"paused:{FUNCTION}"
    assert lane({"concurrency": 1}, is_paused=True) == lane({"concurrency": 1})


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (120, 120),
        (-5, -5),
        (2.9, 2),
        (10**30, 43_200),
        (-(10**9), -43_200),
        ("9", 0),
        (True, 0),
        (None, 0),
    ],
)
def test_priority_is_whole_seconds_within_bounds(given: object, seconds: float) -> None:
    options = LaneOptions(priority="event.data.p")

    assert priority_of(options, {"data": {"p": given}}, expr.value_of) == seconds
    assert priority_of(NO_LIMITS, {}, expr.value_of) == 0
