"""Options that decide when a call may be made, as registered: concurrency, throttle, priority."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.duration import parse_duration

Scope = Literal["fn", "env", "account"]
_MOST = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` calls in flight, per value of the key, in the function or wherever the key is used."""

    limit: int
    key: str | None = None
    scope: Scope = "fn"


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most `limit` starts in a period and `burst` more at once, per value of the key. Seconds."""

    limit: int
    period: float
    burst: int = 1
    key: str | None = None

    @property
    def every(self) -> int:
        """What one start costs, in microseconds."""
        return max(round(self.period * 1_000_000) // self.limit, 1)

    @property
    def slack(self) -> int:
        """How far ahead of the clock the starts may run, in microseconds."""
        return self.every * (self.limit + self.burst - 1)


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """The limits of one function.

    Attributes:
        concurrency: Of calls in flight.
        runs: Of runs that are going on, from their first call to their end.
        priority: CEL that gives seconds.
    """

    concurrency: tuple[Concurrency, ...] = ()
    runs: Concurrency | None = None
    throttle: Throttle | None = None
    priority: str | None = None

    def expressions(self) -> list[tuple[str, str]]:
        """Return every expression with the option it is for."""
        found = [("concurrency.key", each.key) for each in self.concurrency]
        found.append(("concurrency.fn.key", self.runs.key if self.runs is not None else None))
        found.append(("throttle.key", self.throttle.key if self.throttle is not None else None))
        found.append(("priority.run", self.priority))
        return [(where, text) for where, text in found if text is not None]

    def stored(self) -> dict[str, object]:
        """Return what the store keeps beside the function, for `lease`."""
        stored: dict[str, object] = {"limits": [each.limit for each in self.concurrency]}
        if self.runs is not None:
            stored["runs"] = self.runs.limit
        if self.throttle is not None:
            stored |= {"every": self.throttle.every, "slack": self.throttle.slack}
        return stored


NO_LIMITS = LaneOptions()


def decode_lane_options(raw: Mapping[str, object], slug: str) -> LaneOptions:
    """Read the limits of a function of a sync.

    Raises:
        ProtocolError: Naming the function, the option and what it must be.
    """
    concurrency = raw.get("concurrency")
    runs: object = None
    if isinstance(concurrency, dict) and ("fn" in concurrency or "step" in concurrency):
        runs, concurrency = concurrency.get("fn"), concurrency.get("step")
    return LaneOptions(
        concurrency=_concurrency(concurrency, slug),
        runs=_runs(runs, slug),
        throttle=_throttle(raw.get("throttle"), slug),
        priority=_priority(raw.get("priority"), slug),
    )


def _concurrency(raw: object, slug: str) -> tuple[Concurrency, ...]:
    limits = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if len(limits) > names.MAX_CONCURRENCY_LIMITS:
        most = f"at most {names.MAX_CONCURRENCY_LIMITS} limits"
        raise _invalid(slug, "concurrency", most, f"{len(limits)} limits")
    return tuple(each for limit in limits if (each := _limit(limit, slug)) is not None)


def _runs(raw: object, slug: str) -> Concurrency | None:
    limits = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if not limits:
        return None
    if len(limits) > 1 or not isinstance(limits[0], dict):
        raise _invalid(slug, "concurrency.fn", "a list of one limit", raw)
    scope = limits[0].get("scope") or "fn"
    if scope != "fn":
        raise _invalid(slug, "concurrency.fn.scope", "'fn'", scope)
    return Concurrency(
        _count(limits[0].get("limit"), slug, "concurrency.fn.limit", 1),
        _expression(limits[0].get("key"), slug, "concurrency.fn.key"),
    )


def _limit(raw: object, slug: str) -> Concurrency | None:
    given = raw if isinstance(raw, dict) else {"limit": raw}
    limit = given.get("limit")
    if limit is None or limit == 0:
        return None
    scope = given.get("scope") or "fn"
    if scope != "fn" and scope != "env" and scope != "account":
        raise _invalid(slug, "concurrency.scope", "'fn', 'env' or 'account'", scope)
    key = _expression(given.get("key"), slug, "concurrency.key")
    if key is None and scope != "fn":
        raise _invalid(slug, "concurrency.key", f"given with the scope {scope!r}", None)
    return Concurrency(_count(limit, slug, "concurrency.limit", 1), key, scope)


def _throttle(raw: object, slug: str) -> Throttle | None:
    if not raw:
        return None
    if not isinstance(raw, dict):
        raise _invalid(slug, "throttle", "a JSON object", raw)
    burst = raw.get("burst")
    return Throttle(
        limit=_count(raw.get("limit"), slug, "throttle.limit", 1),
        period=_period(raw.get("period"), slug),
        burst=1 if burst is None else _count(burst, slug, "throttle.burst", 0),
        key=_expression(raw.get("key"), slug, "throttle.key"),
    )


def _priority(raw: object, slug: str) -> str | None:
    if not raw:
        return None
    if not isinstance(raw, dict):
        raise _invalid(slug, "priority", "a JSON object", raw)
    return _expression(raw.get("run"), slug, "priority.run")


def _expression(value: object, slug: str, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _invalid(slug, where, "a CEL expression", value)
    return value


def _count(value: object, slug: str, where: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise _invalid(slug, where, f"an integer, {least} or more", value)
    return value


def _period(value: object, slug: str) -> float:
    try:
        seconds = parse_duration(value).total_seconds() if isinstance(value, str) else 0.0
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise _invalid(slug, "throttle.period", 'a duration like "10s"', value)
    return seconds


def _invalid(slug: str, where: str, expected: str, got: object) -> ProtocolError:
    return ProtocolError(
        f"function {slug!r}: {where} must be {expected}, got {got!r:.80}", code="invalid_function"
    )
