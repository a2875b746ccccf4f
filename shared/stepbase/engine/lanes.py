"""Where a run's calls wait when they are limited, and which come first: worked out at its start. Pure.

Which call may be made is decided by `lease`, which counts; here is only what it counts by. See
`lanes.sql`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from stepbase.protocol.jsontext import dumps
from stepbase.protocol.lane_options import Concurrency, LaneOptions

Evaluate = Callable[[str, Mapping[str, object]], object]

MAX_PRIORITY_SECONDS = 43_200
_KEY_CHARS = 128
_PART = "\x1f"  # as in lanes.sql: the lane, a throttle's key, the key of a place


@dataclass(frozen=True, slots=True)
class Lane:
    """Where calls wait; without a name they do not.

    Attributes:
        keys: What a call counts for while it is made, one for each limit of the function; what a run
            counts for while it is going on is in the name.
    """

    name: str | None = None
    keys: tuple[str | None, str | None] = (None, None)


NO_LANE = Lane()


def lane_of(
    function_id: UUID,
    options: LaneOptions,
    event: Mapping[str, object],
    value_of: Evaluate | None,
    *,
    is_paused: bool = False,
) -> Lane:
    """Return the lane of a run that an event starts; without `value_of` there are no limits."""
    if value_of is None or not (options.concurrency or options.throttle or options.runs):
        return Lane(f"paused:{function_id}") if is_paused else NO_LANE
    found = [_key(function_id, each, event, value_of) for each in options.concurrency]
    if len(found) == 2 and found[0] == found[1]:
        found[1] += ":2"  # both limits hold, each with its own count
    keys = (found[0] if found else None, found[1] if len(found) > 1 else None)
    name = f"{front_of(function_id, options)}{' '.join(found)}"
    throttle = run = ""
    if options.throttle is not None:
        throttle = f"t:{function_id}:{_written(options.throttle.key, event, value_of)}"
    if options.runs is not None:
        run = f"run:{function_id}:{_written(options.runs.key, event, value_of)}"
    return Lane(_PART.join((name, throttle, run)).rstrip(_PART), keys)


def front_of(function_id: UUID, options: LaneOptions) -> str:
    """Return what the lanes of a function begin with as long as it has these keys."""
    return f"{function_id} {_shape(options)} "


@lru_cache(4096)
def _shape(options: LaneOptions) -> str:
    shape = [[each.scope, each.key] for each in options.concurrency]
    others = [each and [each.key] for each in (options.throttle, options.runs)]
    return hashlib.sha256(dumps([shape, others]).encode()).hexdigest()[:8]


def waiting_for(front: str, lane: str | None, place: str) -> str:
    """Return where runs without a throttle wait for this place."""
    return _PART.join((lane or front, "", place))


def is_elsewhere(
    function_id: UUID,
    options: LaneOptions,
    lane: str | None,
    waited: str | None,
    *,
    is_new: bool,
) -> bool:
    """Say whether a call waited in no lane, or one of other keys, although its function has limits now.

    Args:
        lane: Where the run's calls wait.
        waited: Where this one did.
        is_new: It is a run's first call.
    """
    if is_new and (options.throttle is not None or options.runs is not None):
        lane = waited
    elif not options.concurrency:
        return False
    return lane is None or not lane.startswith(front_of(function_id, options))


def lane_of_next(start: Lane, function_id: UUID, *, is_paused: bool) -> tuple[Lane, str | None]:
    """Return the lane of a run's later calls, and its place, by the lane where it would start."""
    front, _, place = (*(start.name or "").split(_PART), "", "")[:3]
    name = front if start.keys[0] is not None else None
    if name is None and is_paused:
        name = f"paused:{function_id}"
    return Lane(name, start.keys), place or None


def _key(
    function_id: UUID, limit: Concurrency, event: Mapping[str, object], value_of: Evaluate
) -> str:
    value = _written(limit.key, event, value_of)
    return (
        f"{limit.scope}:{function_id}:{value}" if limit.scope == "fn" else f"{limit.scope}:{value}"
    )


def _written(expression: str | None, event: Mapping[str, object], value_of: Evaluate) -> str:
    """Write a key's value so that equal values are equal texts; long ones as their hash."""
    if expression is None:
        return ""
    value = value_of(expression, {"event": event})
    try:
        text = dumps(value)
    except (TypeError, ValueError):
        text = dumps(str(value))  # what CEL has and JSON has not: a time, bytes
    if len(text) <= _KEY_CHARS and text.isascii():
        return text
    return hashlib.sha256(text.encode()).hexdigest()


def priority_of(
    options: LaneOptions, event: Mapping[str, object], value_of: Evaluate | None
) -> float:
    """Return by how many seconds a run goes before others; 0 if its expression gives no number."""
    if options.priority is None or value_of is None:
        return 0.0
    value = value_of(options.priority, {"event": event})
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return 0.0
    return float(math.trunc(min(max(value, -MAX_PRIORITY_SECONDS), MAX_PRIORITY_SECONDS)))
