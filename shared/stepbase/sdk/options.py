"""Function options: declared as small classes, checked at definition, written as the wire has them.

Limits are the server's (`docs/protocol.md`, registration): what it would refuse or silently change at
sync is refused here, at import, with a message that says what is allowed.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from stepbase.errors import DefinitionError
from stepbase.sdk.check import (
    check_expression,
    check_path,
    check_path_in_model,
    wire_duration,
)
from stepbase.sdk.event import event_name_of

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)


def _count(value: object, where: str, least: int, most: int | None = None) -> None:
    ok = isinstance(value, int) and not isinstance(value, bool)
    if not ok or value < least or (most is not None and value > most):  # type: ignore[operator]  # ok: it is an int
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise DefinitionError(f"{where}: expected a whole number, {limit}; got {value!r}")


def _key(value: object, where: str) -> None:
    if value is not None:
        check_expression(value, where)


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` steps or runs at the same time, per value of `key`; what is over waits.

    Args:
        limit: 1 or more.
        key: CEL expression, e.g. ``"event.data.merchant_id"``; needed for scopes env and account.
        scope: Who shares the limit: this function (``"fn"``), the environment or the account.
        of: What is counted: ``"steps"`` while their code runs, or ``"runs"`` from their first call until
            they end, sleeps and waits included (in this function only; one such limit).
    """

    limit: int
    key: str | None = None
    scope: Literal["fn", "env", "account"] | None = None
    of: Literal["steps", "runs"] = "steps"

    def __post_init__(self) -> None:
        _count(self.limit, "Concurrency(limit=…)", 1)
        _key(self.key, "Concurrency(key=…)")
        if self.scope not in (None, "fn", "env", "account"):
            raise DefinitionError(
                f'Concurrency(scope=…): expected "fn", "env" or "account", got {self.scope!r}'
            )
        if self.scope in ("env", "account") and self.key is None:
            raise DefinitionError(
                f"Concurrency(scope={self.scope!r}) needs a key: functions with the same key share it"
            )
        if self.of not in ("steps", "runs"):
            raise DefinitionError(f'Concurrency(of=…): expected "steps" or "runs", got {self.of!r}')
        if self.of == "runs" and self.scope not in (None, "fn"):
            raise DefinitionError(
                f'Concurrency(of="runs", scope={self.scope!r}): runs are limited in their function only'
            )

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this limit."""
        return _without_none(key=self.key, limit=self.limit, scope=self.scope)


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most `limit` starts in each `period` (1 s to 7 d), `burst` more at once; what is over waits."""

    limit: int
    period: timedelta | str
    burst: int = 1
    key: str | None = None

    def __post_init__(self) -> None:
        _count(self.limit, "Throttle(limit=…)", 1)
        _count(self.burst, "Throttle(burst=…)", 1)
        wire_duration(self.period, "Throttle(period=…)", most=_WEEK)
        _key(self.key, "Throttle(key=…)")

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this limit."""
        period = wire_duration(self.period, "Throttle(period=…)")
        return _without_none(key=self.key, limit=self.limit, period=period, burst=self.burst)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` starts in each `period` (1 s to 24 h); what is over is dropped."""

    limit: int
    period: timedelta | str
    key: str | None = None

    def __post_init__(self) -> None:
        _count(self.limit, "RateLimit(limit=…)", 1)
        wire_duration(self.period, "RateLimit(period=…)", most=_DAY)
        _key(self.key, "RateLimit(key=…)")

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this limit."""
        period = wire_duration(self.period, "RateLimit(period=…)")
        return _without_none(key=self.key, limit=self.limit, period=period)


@dataclass(frozen=True, slots=True)
class Debounce:
    """Wait until no event came for `period` (1 s to 7 d), then run with the last; `timeout` at most."""

    period: timedelta | str
    key: str | None = None
    timeout: timedelta | str | None = None

    def __post_init__(self) -> None:
        wire_duration(self.period, "Debounce(period=…)", most=_WEEK)
        _key(self.key, "Debounce(key=…)")
        if self.timeout is not None:
            wire_duration(self.timeout, "Debounce(timeout=…)")

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this option."""
        timeout = self.timeout and wire_duration(self.timeout, "Debounce(timeout=…)")
        period = wire_duration(self.period, "Debounce(period=…)")
        return _without_none(key=self.key, period=period, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Priority:
    """Start a run as if it had been queued that many seconds earlier (CEL; -600 to 600)."""

    run: str

    def __post_init__(self) -> None:
        check_expression(self.run, "Priority(run=…)")

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this option."""
        return {"run": self.run}


@dataclass(frozen=True, slots=True)
class Batch:
    """Run once for up to `max_size` events (2 or more), or what came within `timeout` (1 s to 10 m).

    The handler takes ``events``. `if_` picks the events that are batched; others run alone.
    """

    max_size: int
    timeout: timedelta | str
    key: str | None = None
    if_: str | None = None

    def __post_init__(self) -> None:
        _count(self.max_size, "Batch(max_size=…)", 2)
        wire_duration(self.timeout, "Batch(timeout=…)", most=timedelta(minutes=10))
        _key(self.key, "Batch(key=…)")
        _key(self.if_, "Batch(if_=…)")

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this option; its timeout knows only h, m and s."""
        timeout = wire_duration(self.timeout, "Batch(timeout=…)", units="hms")
        fields = _without_none(maxSize=self.max_size, timeout=timeout, key=self.key)
        return fields if self.if_ is None else {**fields, "if": self.if_}


@dataclass(frozen=True, slots=True)
class Singleton:
    """At most one run at a time per `key`: a new event is skipped, or cancels the running one."""

    key: str | None = None
    mode: Literal["skip", "cancel"] = "skip"

    def __post_init__(self) -> None:
        _key(self.key, "Singleton(key=…)")
        if self.mode not in ("skip", "cancel"):
            raise DefinitionError(
                f'Singleton(mode=…): expected "skip" or "cancel", got {self.mode!r}'
            )

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this option."""
        return _without_none(key=self.key, mode=self.mode)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Cancel a run that has not started, or not finished, in time."""

    start: timedelta | str | None = None
    finish: timedelta | str | None = None

    def __post_init__(self) -> None:
        if self.start is None and self.finish is None:
            raise DefinitionError("Timeouts(…): give start=, finish=, or both")
        self.wire()

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this option."""
        return _without_none(
            start=self.start and wire_duration(self.start, "Timeouts(start=…)"),
            finish=self.finish and wire_duration(self.finish, "Timeouts(finish=…)"),
        )


@dataclass(frozen=True, slots=True)
class CancelOn:
    """Cancel the run when an event arrives that belongs to it.

    Args:
        event: An event class or name.
        match: A path that must be equal in both events, e.g. ``"data.source_id"``; checked against
            both event classes where they are given.
        if_: Instead of `match`: a CEL expression over ``event`` (the run's) and ``async`` (the new one).
        timeout: How long after the start the event still cancels; a year if not given.
    """

    event: Any
    match: str | None = None
    if_: str | None = None
    timeout: timedelta | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.event, str) and event_name_of(self.event) is None:
            raise DefinitionError(
                f"CancelOn({self.event!r}): expected an EventData class with a name, or an event name"
            )
        if self.match is not None and self.if_ is not None:
            raise DefinitionError("CancelOn(…): give match= or if_=, not both")
        _key(self.if_, "CancelOn(if_=…)")
        if self.match is not None:
            check_path(self.match, "CancelOn(match=…)")
            if not isinstance(self.event, str):
                check_path_in_model(self.match, self.event, "CancelOn(match=…)")
        if self.timeout is not None:
            wire_duration(self.timeout, "CancelOn(timeout=…)")

    def check_against(self, model: Any, where: str) -> None:
        """Check that `match` names a field of the event class that starts the run.

        Raises:
            DefinitionError: If not; the message lists the fields there are.
        """
        if self.match is not None:
            check_path_in_model(self.match, model, where)

    @property
    def name(self) -> str:
        """The event's name."""
        return self.event if isinstance(self.event, str) else event_name_of(self.event) or ""

    def wire(self) -> dict[str, Any]:
        """Return the object that registers this option; `match` becomes an equality."""
        condition = f"event.{self.match} == async.{self.match}" if self.match else self.if_
        timeout = self.timeout and wire_duration(self.timeout, "CancelOn(timeout=…)")
        fields = _without_none(event=self.name, timeout=timeout)
        return fields if condition is None else {**fields, "if": condition}


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What only stepbase's own engine can do; Inngest ignores it, and sync says so in the log.

    Args:
        retry_delay: First pause between attempts instead of the schedule of 15 s, 30 s, 1 m, …; it
            doubles from attempt to attempt up to an hour.
        look_back: For every wait for an event that does not say it itself (`step.wait_for_event`): events
            that arrived at most this long before it began count too.
    """

    retry_delay: timedelta | str | None = None
    look_back: timedelta | str | None = None

    def __post_init__(self) -> None:
        self.wire()

    def wire(self) -> dict[str, Any]:
        """Return the object that registers these options."""
        return _without_none(
            retryDelay=self.retry_delay
            and wire_duration(self.retry_delay, "EngineOptions(retry_delay=…)", most=_DAY),
            lookBack=self.look_back
            and wire_duration(self.look_back, "EngineOptions(look_back=…)", most=_DAY),
        )
