"""A function's start rules, worked out for one event: plain values that `ingest` applies. Pure.

Policy and expressions are here, arithmetic and locks in SQL. Times are whole microseconds, as in the
database, so that a schedule is exact.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.start_rules import DAY, Batch, RateLimit, StartRules

WHY_NOT_STARTED: Mapping[str, str] = {
    "duplicate": "an event of its id had started the function within 24 hours",
    "idempotent": "its idempotency key was seen within 24 hours",
    "rate_limited": "its rate limit is used up",
    "debounced": "a later event took the place of this one",
    "batched": "it is part of a batch, whose run is for all of its events",
    "skipped": "another run of its singleton was going on",
}
"""`not_started.reason` in words."""

_KEY_CHARS = 128


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a start.

    Attributes:
        name: "once", "rate", "singleton", "debounce" or "batch".
        key: What shares the rule.
        limit: For "rate": how many may start at once above the first. For "singleton": 1 if the newer
            run wins. For "batch": how many events fill it.
        period: Microseconds: for "once" how long it holds, for "rate" the time that one start costs,
            else how long it waits.
        ends: For "debounce": microseconds from the first event after which it starts, or None.
    """

    name: str
    key: str
    limit: int = 0
    period: int = 0
    ends: int | None = None


def rules_for(
    function_id: UUID,
    rules: StartRules,
    event: Mapping[str, object],
    value_of: Callable[[str, Mapping[str, object]], object],
) -> tuple[Rule, ...]:
    """Work out the rules of a start; a limit whose key is false does not hold for the event."""
    found: list[Rule] = []

    def key_of(expression: str | None) -> str | None:
        value = None if expression is None else value_of(expression, {"event": event})
        return None if value is False else written(value)

    if rules.once is not None and (key := key_of(rules.once)) is not None:
        found.append(Rule("once", f"once:{function_id}:{key}", period=_micros(DAY)))
    gathers = rules.batch is not None and _gathers(rules.batch, event, value_of)
    # A batch is many events and one start.
    rate = None if gathers else rules.rate
    if rate is not None and (key := key_of(rate.key)) is not None:
        found.append(_rate(rate, f"rate:{function_id}:{key}"))
    if rules.singleton is not None and (key := key_of(rules.singleton.key)) is not None:
        found.append(Rule("singleton", key, limit=int(rules.singleton.mode == "cancel")))
    if rules.debounce is not None and (key := key_of(rules.debounce.key)) is not None:
        ends = rules.debounce.timeout
        found.append(
            Rule(
                "debounce",
                key,
                period=_micros(rules.debounce.period),
                ends=None if ends is None else _micros(ends),
            )
        )
    if rules.batch is not None and gathers:
        key = written(value_of(rules.batch.key, {"event": event}) if rules.batch.key else None)
        found.append(Rule("batch", key, rules.batch.max_size, _micros(rules.batch.timeout)))
    return tuple(found)


def _gathers(
    batch: Batch,
    event: Mapping[str, object],
    value_of: Callable[[str, Mapping[str, object]], object],
) -> bool:
    """Say whether an event waits for others; who invokes a function waits for a result of its own."""
    if event.get("name") == names.EVENT_FUNCTION_INVOKED:
        return False
    return batch.if_ is None or value_of(batch.if_, {"event": event}) is True


def _rate(rate: RateLimit, key: str) -> Rule:
    return Rule("rate", key, rate.limit // 10, max(_micros(rate.period) // rate.limit, 1))


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def written(value: object) -> str:
    """Write a key's value so that equal values are equal texts; long ones as their hash."""
    try:
        text = dumps(value)
    except (TypeError, ValueError):
        text = str(value)  # what CEL has and JSON has not: a time, bytes
    if len(text) <= _KEY_CHARS:
        return text
    return hashlib.sha256(text.encode()).hexdigest()
