"""Sessions of an event: what it belongs to besides its run, by name. From `meta` of the wire.

An SDK sends two layers: `sessions`, which the sender wrote, and `propagated_sessions`, those of the run
that sends. Null in the first cuts off the second: one name, or all.
"""

from stepbase.errors import ProtocolError

MAX_SESSIONS = 5
_MAX_NAME_BYTES = 128
_MAX_ID_BYTES = 512


def decode_sessions(meta: object) -> dict[str, str]:
    """Return an event's sessions: the sender's own, and of the inherited ones as many as there is room for.

    Raises:
        ProtocolError: If something in it has the wrong form, or is too much.
    """
    if meta is None:
        return {}
    if not isinstance(meta, dict):
        raise ProtocolError("event field 'meta' must be a JSON object")
    own = _layer(meta, "sessions")
    sessions = {name: id_ for name, id_ in own.items() if id_ is not None}
    if len(sessions) > MAX_SESSIONS:
        raise ProtocolError(f"an event has at most {MAX_SESSIONS} sessions, got {len(sessions)}")
    if "sessions" in meta and meta["sessions"] is None:
        return sessions
    inherited = _layer(meta, "propagated_sessions")
    for name in sorted(inherited.keys() - own.keys(), key=str.encode):
        id_ = inherited[name]
        if id_ is not None and len(sessions) < MAX_SESSIONS:
            sessions[name] = id_
    return sessions


def _layer(meta: dict[str, object], field: str) -> dict[str, str | None]:
    raw = meta.get(field)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ProtocolError(f"event field 'meta.{field}' must be a JSON object")
    return {name: _id(name, id_, field) for name, id_ in raw.items()}


def _id(name: str, raw: object, field: str) -> str | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, str | int | float) or raw == "" or name == "":
        raise ProtocolError(f"session {name!r} in 'meta.{field}' must be a string or a number")
    id_ = str(raw)
    if len(name.encode()) > _MAX_NAME_BYTES or len(id_.encode()) > _MAX_ID_BYTES:
        raise ProtocolError(
            f"session {name[:20]!r} in 'meta.{field}' is too long: a name has at most {_MAX_NAME_BYTES} "
            f"bytes, an id {_MAX_ID_BYTES}"
        )
    return id_
