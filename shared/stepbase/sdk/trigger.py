"""Triggers: what starts a run. Checked where they are declared, written as the wire has them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from stepbase.errors import DefinitionError
from stepbase.protocol import names
from stepbase.sdk.check import wire_duration
from stepbase.sdk.event import event_name_of

MAX_TRIGGER_EVENT_NAME = 255
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,\-?#L]+")


def check_event_name(name: str, where: str) -> str:
    """Return the name if an event may be called that.

    Raises:
        DefinitionError: If it is empty, too long, or reserved; the message says what is allowed.
    """
    if not isinstance(name, str) or not name or name != name.strip() or "\x00" in name:
        raise DefinitionError(
            f'{where}: an event name is text like "order/paid", without spaces around it; got {name!r}'
        )
    if len(name) > MAX_TRIGGER_EVENT_NAME:
        raise DefinitionError(
            f"{where}: an event name has at most {MAX_TRIGGER_EVENT_NAME} characters, got {len(name)}"
        )
    return name


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """Starts a run for each event of a name, if the expression (CEL) holds.

    Attributes:
        name: The event's name; a trailing ``*`` after ``/`` or ``.`` matches any rest.
        expression: For example ``"event.data.amount > 100"``, or None for every event.
        model: The event class that checks the payload, or None.
    """

    name: str
    expression: str | None = None
    model: Any = None

    def __post_init__(self) -> None:
        check_event_name(self.name, "on=…")
        if self.expression is not None and not str(self.expression).strip():
            raise DefinitionError(
                f"trigger {self.name!r}: the expression is empty; leave .where(…) away to match every event"
            )

    def wire(self) -> dict[str, str]:
        """Return the object that registers this trigger."""
        if self.expression is None:
            return {"event": self.name}
        return {"event": self.name, "expression": self.expression}


@dataclass(frozen=True, slots=True)
class Cron:
    """Starts a run on a schedule: five fields (minute hour day month weekday).

    Args:
        expression: For example ``"0 9 * * 1-5"``.
        tz: IANA name of the time zone it is meant in, e.g. ``"Asia/Bangkok"``; UTC if not given.
        jitter: Spreads the starts over this long, 1 second to 5 minutes.

    Raises:
        DefinitionError: If the expression, the zone or the jitter is not of that form.
    """

    expression: str
    tz: str | None = None
    jitter: timedelta | str | None = None

    def __post_init__(self) -> None:
        fields = str(self.expression).split()
        if len(fields) != 5 or not all(_CRON_FIELD.fullmatch(field) for field in fields):
            raise DefinitionError(
                f"Cron({self.expression!r}): expected five fields, minute hour day month weekday, "
                'for example "0 9 * * 1-5"; descriptors like @daily are not supported'
            )
        if self.tz is not None:
            _check_zone(self.tz)
        if self.jitter is not None:
            wire_duration(self.jitter, "Cron(jitter=…)", most=timedelta(minutes=5))

    def wire(self) -> dict[str, str]:
        """Return the object that registers this trigger."""
        zone = f"TZ={self.tz} " if self.tz else ""
        wire = {"cron": zone + " ".join(self.expression.split())}
        if self.jitter is not None:
            wire["jitter"] = wire_duration(self.jitter, "Cron(jitter=…)")
        return wire


def _check_zone(tz: str) -> None:
    import zoneinfo  # most apps have no schedule

    try:
        zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        if not zoneinfo.available_timezones():
            return  # a slim image without a time zone database; the server will check
        raise DefinitionError(
            f'Cron(tz={tz!r}): not a known time zone; use an IANA name such as "Asia/Bangkok"'
        ) from error


Trigger = EventTrigger | Cron


def to_triggers(on: object) -> tuple[Trigger, ...]:
    """Read the `on=` of a function: an event class, a name, a trigger, a list of them, or None.

    Raises:
        DefinitionError: If something in it is no trigger, there are too many, or one is repeated.
    """
    if on is None:
        return ()
    items: Iterable[object] = on if isinstance(on, list | tuple) else (on,)
    triggers = tuple(_to_trigger(item) for item in items)
    if len(triggers) > names.MAX_TRIGGERS:
        raise DefinitionError(
            f"on=…: a function has at most {names.MAX_TRIGGERS} triggers, got {len(triggers)}"
        )
    wires = [trigger.wire() for trigger in triggers]
    for i, wire in enumerate(wires):
        if wire in wires[:i]:
            raise DefinitionError(f"on=…: the trigger {wire} is given twice")
    return triggers


def _to_trigger(item: object) -> Trigger:
    if isinstance(item, EventTrigger | Cron):
        return item
    if isinstance(item, str):
        return EventTrigger(item)
    name = event_name_of(item)
    if name is not None:
        return EventTrigger(name, None, item)
    raise DefinitionError(
        f"on={item!r}: expected an EventData class with a name, an event name such as "
        '"order/paid", Cron("0 9 * * *"), SomeEvent.where("…"), or a list of these'
    )
