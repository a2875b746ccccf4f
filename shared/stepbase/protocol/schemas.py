"""JSON schemas of the events that functions declare, as an app tells our engine. Ours: rule 4.10.

They are for people: the console makes a form of them. Nothing is started or refused by them, so one that is
too large is left out with a note, never a reason to refuse a sync.
"""

from collections.abc import Mapping
from typing import Final

from stepbase.errors import ProtocolError
from stepbase.protocol.jsontext import dumps

MAX_SCHEMA_BYTES: Final = 16 * 1024
MAX_ALL_BYTES: Final = 512 * 1024
"""Of all schemas of a sync together."""

Schemas = Mapping[str, Mapping[str, Mapping[str, object]]]
"""By the function's slug and the event's name: ``{"model": str}`` with ``"schema"`` or a ``"note"``."""


def entry(model: str, schema: Mapping[str, object], room: int = MAX_ALL_BYTES) -> dict[str, object]:
    """Return what is told of one event: its schema, or why it is left out.

    Args:
        model: What the class is called.
        room: Bytes that are left of a sync's.
    """
    size = len(dumps(schema).encode())
    if size > MAX_SCHEMA_BYTES:
        return {
            "model": model,
            "note": f"its schema has {size} bytes, more than {MAX_SCHEMA_BYTES}",
        }
    if size > room:
        return {
            "model": model,
            "note": f"all schemas together have more than {MAX_ALL_BYTES} bytes",
        }
    return {"model": model, "schema": dict(schema)}


def decode_schemas(raw: object) -> Schemas | None:
    """Read the `stepbase` object of a sync; None if it tells no schemas.

    Raises:
        ProtocolError: If it is not of the form; the message says where.
    """
    if raw is None:
        return None
    told = raw.get("schemas") if isinstance(raw, dict) else raw
    if told is None:
        return None
    room = MAX_ALL_BYTES
    decoded: dict[str, dict[str, dict[str, object]]] = {}
    for slug, events in _object(told, "stepbase.schemas").items():
        known = decoded.setdefault(slug, {})
        for event, each in _object(events, f"stepbase.schemas[{slug!r}]").items():
            known[event] = _entry(each, f"stepbase.schemas[{slug!r}][{event!r}]", room)
            room -= len(dumps(known[event]).encode())
    return decoded


def _entry(raw: object, where: str, room: int) -> dict[str, object]:
    given = _object(raw, where)
    model = str(given.get("model") or "")[:200]
    if "schema" not in given:
        return {"model": model, "note": str(given.get("note") or "it has none")[:500]}
    return entry(model, _object(given["schema"], f"{where}.schema"), room)


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ProtocolError(
            f"{where} must be a JSON object, got {value!r:.80}", code="invalid_function"
        )
    return value
