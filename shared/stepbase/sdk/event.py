"""Events as handlers see them and as senders write them. Loads no pydantic."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from stepbase import clock
from stepbase.errors import DefinitionError

T_co = TypeVar("T_co", covariant=True)


class Event(Generic[T_co]):
    """A named fact with data, an id and a time; the same class for events received and sent.

    ::

        Event("order/paid", {"order_id": 7})                          # untyped
        Event(data=OrderPaid(order_id=7), id="order-7", user={"id": 1})  # named by its class

    Attributes:
        id: De-duplicates: a server starts at most one run per function and id in 24 hours. Empty
            until sent: the server then gives one.
        name: For example ``"order/paid"``.
        data: The payload: the trigger's event class, or a dict.
        ts: When it happened, an aware UTC datetime; a time in the future delays the run until then.
        user: Who caused it, or an empty dict; hand it to ``step.rpc(as_user=…)``.
        v: The sender's version of the payload, or None.
    """

    __slots__ = ("data", "id", "name", "ts", "user", "v")

    data: T_co

    def __init__(
        self,
        name: str | None = None,
        data: T_co | None = None,
        *,
        id: str | None = None,
        ts: datetime | None = None,
        user: Mapping[str, Any] | None = None,
        v: str | None = None,
    ) -> None:
        own_name = event_name_of(type(data))
        if name is None and own_name is None:
            raise DefinitionError(
                'an Event needs a name: Event("order/paid", {...}), or data that is an EventData'
            )
        if ts is not None and ts.tzinfo is None:
            raise DefinitionError(
                "Event(ts=…) needs a timezone: got a naive datetime; use datetime.now(UTC)"
            )
        self.name: str = name or own_name or ""
        self.data = {} if data is None else data  # type: ignore[assignment]  # no payload is an empty object
        self.id: str = id or ""
        self.ts: datetime = ts or clock.utcnow()
        self.user: Mapping[str, Any] = user or {}
        self.v = v

    def __repr__(self) -> str:
        return f"Event({self.name!r}, id={self.id!r})"


def event_name_of(payload_type: object) -> str | None:
    """Return the event name an `EventData` subclass declares, or None for anything else."""
    name = getattr(payload_type, "__event_name__", None)
    return name if isinstance(name, str) and name else None


def from_payload(raw: Mapping[str, Any], data: Any) -> Event[Any]:
    """Build the event a handler sees from the wire's object and its (validated) data."""
    event: Event[Any] = Event.__new__(Event)
    event.id = raw.get("id") or ""
    event.name = raw.get("name") or ""
    event.data = data
    ms = raw.get("ts")
    event.ts = datetime.fromtimestamp(ms / 1000, UTC) if ms else clock.utcnow()
    event.user = raw.get("user") or {}
    event.v = raw.get("v")
    return event


if TYPE_CHECKING:
    # Loads pydantic, which the first event class pays for.
    from stepbase.sdk.event_data import EventData

    Sendable: TypeAlias = EventData | Event[Any] | Mapping[str, Any]
    """What may be sent: an `EventData` instance, an `Event`, or a dict with at least a name."""
else:
    Sendable = Any


def to_events(given: Sendable | Sequence[Sendable]) -> list[Event[Any]]:
    """Read what may be sent.

    Raises:
        DefinitionError: If something is no event; the message says what is.
    """
    items: Sequence[object] = given if isinstance(given, list | tuple) else [given]
    return [_to_event(item) for item in items]


def _to_event(item: object) -> Event[Any]:
    if isinstance(item, Event):
        return item
    if event_name_of(type(item)) is not None:
        return Event(data=item)
    if isinstance(item, Mapping) and isinstance(item.get("name"), str):
        unknown = set(item) - {"name", "data", "id", "ts", "user", "v"}
        if not unknown:
            return Event(**item)
        raise DefinitionError(f"an event has no field {', '.join(sorted(unknown))}: {item!r:.80}")
    raise DefinitionError(
        f'cannot send {item!r:.80}: expected an EventData instance, Event("name", {{…}}), '
        'or a dict with "name" and "data"'
    )
