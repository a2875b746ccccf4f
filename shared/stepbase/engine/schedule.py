"""Cron schedules: which instants they have, how far jitter puts one off, and the event that tells. Pure.

Daylight saving: a fixed time that the clocks skip fires when they have moved on, one that comes twice
fires the first time only; `*` and `*/n` in the hour or minute follow the time that passes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import cronsim

from stepbase.protocol import names
from stepbase.protocol.duration import parse_duration
from stepbase.protocol.event import EventIn
from stepbase.protocol.jsontext import dumps

_ZONE_PREFIXES = ("TZ=", "CRON_TZ=")
_JITTER = (timedelta(seconds=1), timedelta(minutes=5))
_ABOUT = "_inngest"


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule that is due, as the store has it.

    Attributes:
        slug: Of its function.
        scheduled_at: The instant that is due, or None if the first is still to be worked out.
        fire_at: The same with jitter.
        looked_at: The database's time.
    """

    function_id: UUID
    n: int
    spec: str
    jitter: str | None
    slug: str
    is_paused: bool
    scheduled_at: datetime | None
    fire_at: datetime | None
    looked_at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """A schedule goes on from the instant `was` to the next, and the event of `was` is sent.

    Attributes:
        scheduled_at, fire_at: The next instant, without and with jitter; None: there is none.
        event_id, payload: The outbox row to write, or None.
    """

    function_id: UUID
    n: int
    spec: str
    was: datetime | None
    scheduled_at: datetime | None
    fire_at: datetime | None
    event_id: str | None
    payload: str | None


def check(spec: str, jitter: str | None) -> None:
    """Check a schedule at sync: five fields, perhaps after `TZ=Area/City `, and a jitter.

    Raises:
        ValueError: Saying what is wrong.
    """
    fields, zone = _split(spec)
    try:
        if len(fields.split()) != 5:
            raise ValueError(f"{len(fields.split())} fields instead of 5")
        next(cronsim.CronSim(fields, datetime(2026, 1, 1, tzinfo=UTC).astimezone(zone)))
    except (cronsim.CronSimError, ValueError, StopIteration) as error:
        raise ValueError(
            f"cron {spec!r} is not a schedule ({error}); "
            'expected five fields such as "0 9 * * 1-5", optionally after "TZ=Area/City "'
        ) from error
    if jitter is not None and not _JITTER[0] <= parse_duration(jitter) <= _JITTER[1]:
        raise ValueError(f"the jitter of a cron must lie between 1s and 5m, got {jitter!r}")


def _split(spec: str) -> tuple[str, ZoneInfo]:
    head, _, rest = spec.partition(" ")
    if not head.startswith(_ZONE_PREFIXES):
        return spec, ZoneInfo("UTC")
    try:
        return rest, ZoneInfo(head.partition("=")[2])
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"cron {spec!r} names an unknown time zone") from error


def next_instant(spec: str, after: datetime) -> datetime | None:
    """Return a schedule's first instant after a time, or None if it has no more."""
    fields, zone = _split(spec)
    found: datetime | None = next(cronsim.CronSim(fields, after.astimezone(zone)), None)
    return None if found is None else found.astimezone(UTC)


def delay(function_id: UUID, spec: str, jitter: str | None, instant: datetime) -> timedelta:
    """Return how much later than its instant a schedule fires: the same wherever it is asked."""
    if jitter is None:
        return timedelta(0)
    span = parse_duration(jitter) - _JITTER[0]
    seed = f"{function_id} {spec} {instant.timestamp():.0f}".encode()
    share = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big") / 2**64
    return timedelta(seconds=round((_JITTER[0] + span * share).total_seconds(), 3))


def move(due: Due, event_id: str) -> Move:
    """Return what becomes of a schedule that is due.

    Instants that passed while no engine ran are not made up for: the one that is due fires, late, and the
    next is the first that is still to come. A paused function's instants pass without an event.
    """
    try:
        following = next_instant(due.spec, due.looked_at)
    except ValueError:
        following = None  # checked at sync: the time zone has been removed since
    fires = due.fire_at is not None and not due.is_paused
    return Move(
        due.function_id,
        due.n,
        due.spec,
        due.scheduled_at,
        following,
        following and following + delay(due.function_id, due.spec, due.jitter, following),
        event_id if fires else None,
        dumps(_event(due)) if fires else None,
    )


def _event(due: Due) -> Mapping[str, object]:
    """Return the event of an instant (vector `24-cron-call.json`), addressed to its function."""
    assert due.scheduled_at is not None and due.fire_at is not None  # it fires
    scheduled = _text(due.scheduled_at)
    data = {"cron": due.spec, "fireAt": _text(due.fire_at), "scheduledAt": scheduled}
    return {
        "name": names.EVENT_SCHEDULED,
        "id": scheduled,
        "ts": int(due.fire_at.timestamp() * 1000),
        "data": {**data, _ABOUT: {"fn_id": due.slug}},
    }


def _text(instant: datetime) -> str:
    spec = "milliseconds" if instant.microsecond else "seconds"
    return instant.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")


def addressed(event: EventIn) -> tuple[str | None, EventIn]:
    """Return the slug of the one function a schedule's event is for, and the event without it."""
    about = event.data.get(_ABOUT)
    if event.name != names.EVENT_SCHEDULED or not isinstance(about, dict):
        return None, event
    data = {key: value for key, value in event.data.items() if key != _ABOUT}
    return str(about.get("fn_id")), replace(event, data=data)
