"""Options that decide at an event's arrival whether, when and with what a run starts, as registered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stepbase.errors import ProtocolError
from stepbase.protocol.duration import parse_duration

DAY = 86_400.0
WEEK = 7 * DAY
MAX_BATCH = 1000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many starts in a period, per value of the key; the rest is dropped. Seconds."""

    limit: int
    period: float
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Singleton:
    """One run at a time, per value of the key."""

    mode: Literal["skip", "cancel"] = "skip"
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Debounce:
    """Start with the last event, once none came for `period`, or `timeout` after the first. Seconds."""

    period: float
    timeout: float | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Start with up to `max_size` events, at the latest `timeout` seconds after the first.

    Attributes:
        if_: CEL over `event`: where it does not hold, the event starts a run alone, at once.
    """

    max_size: int
    timeout: float
    key: str | None = None
    if_: str | None = None


@dataclass(frozen=True, slots=True)
class StartRules:
    """The rules of one function; `once` is the CEL key of `idempotency`."""

    once: str | None = None
    rate: RateLimit | None = None
    singleton: Singleton | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None

    def expressions(self) -> list[tuple[str, str]]:
        """Return every expression with the option it is for."""
        found = [("idempotency", self.once)]
        for option, rule in (
            ("rateLimit", self.rate),
            ("singleton", self.singleton),
            ("debounce", self.debounce),
            ("batchEvents", self.batch),
        ):
            found.append((f"{option}.key", rule.key if rule is not None else None))
        found.append(("batchEvents.if", self.batch.if_ if self.batch is not None else None))
        return [(where, text) for where, text in found if text is not None]


NO_RULES = StartRules()


def decode_start_rules(raw: Mapping[str, object], slug: str) -> StartRules:
    """Read the rules of a function of a sync.

    Raises:
        ProtocolError: Naming the function, the option and what it must be.
    """
    return StartRules(
        once=_text(raw.get("idempotency"), slug, "idempotency"),
        rate=_rate(_object(raw.get("rateLimit"), slug, "rateLimit"), slug),
        singleton=_singleton(_object(raw.get("singleton"), slug, "singleton"), slug),
        debounce=_debounce(_object(raw.get("debounce"), slug, "debounce"), slug),
        batch=_batch(_object(raw.get("batchEvents"), slug, "batchEvents"), slug),
    )


def _rate(raw: Mapping[str, object] | None, slug: str) -> RateLimit | None:
    if raw is None:
        return None
    return RateLimit(
        limit=_count(raw.get("limit"), slug, "rateLimit.limit", 1_000_000_000),
        period=_span(raw.get("period"), slug, "rateLimit.period", DAY),
        key=_text(raw.get("key"), slug, "rateLimit.key"),
    )


def _singleton(raw: Mapping[str, object] | None, slug: str) -> Singleton | None:
    if raw is None:
        return None
    mode = raw.get("mode") or "skip"
    if mode != "skip" and mode != "cancel":
        raise _invalid(slug, "singleton.mode", "'skip' or 'cancel'", mode)
    return Singleton(mode, _text(raw.get("key"), slug, "singleton.key"))


def _debounce(raw: Mapping[str, object] | None, slug: str) -> Debounce | None:
    if raw is None:
        return None
    timeout = raw.get("timeout")
    return Debounce(
        period=_span(raw.get("period"), slug, "debounce.period", WEEK),
        timeout=_span(timeout, slug, "debounce.timeout", 52 * WEEK) if timeout else None,
        key=_text(raw.get("key"), slug, "debounce.key"),
    )


def _batch(raw: Mapping[str, object] | None, slug: str) -> Batch | None:
    if raw is None:
        return None
    return Batch(
        max_size=_count(raw.get("maxSize"), slug, "batchEvents.maxSize", MAX_BATCH),
        timeout=_span(raw.get("timeout"), slug, "batchEvents.timeout", WEEK),
        key=_text(raw.get("key"), slug, "batchEvents.key"),
        if_=_text(raw.get("if"), slug, "batchEvents.if"),
    )


def _object(value: object, slug: str, where: str) -> Mapping[str, object] | None:
    if not value:
        return None
    if not isinstance(value, dict):
        raise _invalid(slug, where, "a JSON object", value)
    return value


def _text(value: object, slug: str, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _invalid(slug, where, "a CEL expression", value)
    return value


def _count(value: object, slug: str, where: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _invalid(slug, where, f"an integer from 1 to {most}", value)
    return value


def _span(value: object, slug: str, where: str, most: float) -> float:
    try:
        seconds = parse_duration(value).total_seconds() if isinstance(value, str) else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= most:
        raise _invalid(slug, where, f'a duration like "10s", at most {most / DAY:.0f} days', value)
    return seconds


def _invalid(slug: str, where: str, expected: str, got: object) -> ProtocolError:
    return ProtocolError(
        f"function {slug!r}: {where} must be {expected}, got {got!r:.80}", code="invalid_function"
    )
