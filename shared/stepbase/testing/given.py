"""Events as tests give them: with the lab's time, and in the form in which a server takes them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from stepbase import clock, standin
from stepbase.protocol import names
from stepbase.protocol.event import EventIn, decode_event
from stepbase.protocol.jsontext import loads
from stepbase.sdk import typed
from stepbase.sdk.event import Event, Sendable, to_events
from stepbase.sdk.function import Function
from stepbase.sdk.trigger import EventTrigger

Given: TypeAlias = "Sendable | Sequence[Sendable] | None"
"""What starts a function: an event, its data, a batch of events, or nothing."""

_SCHEDULED: Final = "inngest/scheduled.timer"


def real_now() -> datetime:
    """Return what time it is outside of every lab."""
    token = standin.current.set(None)
    try:
        return clock.utcnow()
    finally:
        standin.current.reset(token)


def stamped(event: Event[Any], began: datetime, now: datetime) -> Event[Any]:
    """Give an event that took its time from the real clock, since the lab began, the lab's time."""
    if began <= event.ts <= real_now():
        event.ts = now
    return event


def events_for(function: Function[Any], given: Given) -> list[Event[Any]]:
    """Return the events to start a function with: those given, or one with that data."""
    if given is None or (isinstance(given, Mapping) and "name" not in given):
        return [Event(_name_for(function), dict(given or {}))]
    return to_events(given)


def _name_for(function: Function[Any]) -> str:
    events = [each.name for each in function.triggers if isinstance(each, EventTrigger)]
    if events and "*" not in events[0]:
        return events[0]
    return _SCHEDULED if function.triggers and not events else names.EVENT_FUNCTION_INVOKED


def received(event: Event[Any]) -> EventIn:
    """Return an event as a server has it; names of the server's own are allowed.

    Raises:
        ProtocolError: If it is none.
        CodedError: If its data cannot be sent.
    """
    raw = {
        "name": event.name,
        "data": loads(typed.encode(event.data, type(event.data), f'event "{event.name}"')),
        "ts": round(event.ts.timestamp() * 1000),
        "user": dict(event.user),
        "id": event.id or None,
        "v": event.v,
    }
    return decode_event(raw, is_internal=True)
