"""Events: what `/e/…` accepts, and the form in which functions see them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.sessions import decode_sessions

_TS_MIN = 315_532_800_000  # 1980-01-01, milliseconds
_TS_MAX = 4_102_444_800_000  # 2100-01-01


@dataclass(frozen=True, slots=True)
class EventIn:
    """An accepted event, before it has an internal id.

    Attributes:
        name: 1–512 characters, not starting with `inngest/` unless the server made it.
        data: A JSON object.
        id: The sender's id (de-duplicates for 24 hours), or None.
        ts: Milliseconds since 1970, or None for "now".
        user: A JSON object, or None.
        v: The sender's version of the payload, or None.
        sessions: What else it belongs to, by name.
    """

    name: str
    data: dict[str, object]
    id: str | None = None
    ts: int | None = None
    user: dict[str, object] | None = None
    v: str | None = None
    sessions: Mapping[str, str] = field(default_factory=dict)


def decode_event(raw: object, *, is_internal: bool = False) -> EventIn:
    """Read one event of an ingest request (vector `api-event-ingest.json`).

    `data._inngest` is the server's own and is dropped unless `is_internal`.

    Raises:
        ProtocolError: If a field is missing or has the wrong form; the message names it.
    """
    if not isinstance(raw, dict):
        raise ProtocolError(f"an event must be a JSON object, got {_kind(raw)}")
    name = _name(raw.get("name"), is_internal=is_internal)
    data = _object(raw, "data") or {}
    if "_inngest" in data and not is_internal:
        data = {key: value for key, value in data.items() if key != "_inngest"}
    return EventIn(
        name=name,
        data=data,
        id=_text(raw, "id") or None,
        ts=_timestamp(raw.get("ts")),
        user=_object(raw, "user"),
        v=_text(raw, "v"),
        sessions=decode_sessions(raw.get("meta")),
    )


def _name(name: object, *, is_internal: bool) -> str:
    if name is None or name == "":
        raise ProtocolError("event name is empty")
    if not isinstance(name, str):
        raise ProtocolError(f"event name must be a string, got {_kind(name)}")
    if len(name) > names.MAX_EVENT_NAME:
        raise ProtocolError(
            f"event name has {len(name)} characters, {names.MAX_EVENT_NAME} are allowed: {name[:60]}…"
        )
    if name.startswith(names.INTERNAL_PREFIX) and not is_internal:
        raise ProtocolError(f"event name is reserved for internal use: {name}")
    return name


def _object(raw: Mapping[str, object], field: str) -> dict[str, object] | None:
    value = raw.get(field)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ProtocolError(f"event field {field!r} must be a JSON object, got {_kind(value)}")
    return value


def _text(raw: Mapping[str, object], field: str) -> str | None:
    value = raw.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ProtocolError(f"event field {field!r} must be a string, got {_kind(value)}")
    if "\x00" in value:
        raise ProtocolError(f"event field {field!r} contains a NUL character; remove it")
    return value


def _timestamp(ts: object) -> int | None:
    if ts is None or ts == 0:
        return None
    if isinstance(ts, bool) or not isinstance(ts, int | float) or int(ts) != ts:
        raise ProtocolError(f"event field 'ts' must be whole milliseconds since 1970, got {ts!r}")
    if not _TS_MIN <= ts <= _TS_MAX:
        raise ProtocolError(
            f"event field 'ts' must lie between 1980 and 2100 in milliseconds, got {ts!r}"
        )
    return int(ts)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean"}
    return kinds.get(type(value), "number")


def payload(event: EventIn, internal_id: str, now_ms: int) -> dict[str, object]:
    """Return the event as functions see it: id, ts and user are always there (vector `03-call…`)."""
    seen: dict[str, object] = {
        "data": event.data,
        "id": event.id or internal_id,
        "name": event.name,
        "ts": now_ms if event.ts is None else event.ts,
        "user": event.user or {},
    }
    if event.v is not None:
        seen["v"] = event.v
    if event.sessions:
        seen["meta"] = {"sessions": event.sessions}
    return seen
