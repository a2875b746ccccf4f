"""Checks that definitions and steps share: durations as the wire has them, expressions and paths."""

from datetime import timedelta
from typing import Any

from stepbase.errors import DefinitionError
from stepbase.protocol.duration import to_timedelta

_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_SECOND = timedelta(seconds=1)


def wire_duration(
    value: timedelta | str,
    where: str,
    *,
    least: timedelta = _SECOND,
    most: timedelta | None = None,
    units: str = "wdhms",
) -> str:
    """Write a duration in the largest unit that divides it, as the official Python SDK does.

    Raises:
        DefinitionError: If it is no duration, not whole seconds, or outside the limits.
    """
    try:
        duration = to_timedelta(value)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{where}: {error}") from error
    if duration < least or (most is not None and duration > most) or duration.microseconds:
        limit = (
            f"at least {_words(least)}" if most is None else f"{_words(least)} to {_words(most)}"
        )
        raise DefinitionError(f"{where}: expected {limit}, in whole seconds; got {value!r}")
    seconds = duration.days * 86_400 + duration.seconds
    for unit, size in _UNITS:
        if unit in units and seconds % size == 0:
            return f"{seconds // size}{unit}"
    raise AssertionError("seconds divide everything")


def _words(duration: timedelta) -> str:
    return wire_duration(duration, "", least=timedelta(0))


def check_expression(value: object, where: str) -> None:
    """Refuse what cannot be a CEL expression at all.

    Raises:
        DefinitionError: If it is not text, or empty.
    """
    if not isinstance(value, str) or not value.strip():
        raise DefinitionError(
            f'{where}: expected a CEL expression such as "event.data.user_id", got {value!r}'
        )


def check_path(path: object, where: str) -> None:
    """Check that a path like `data.source_id` can be looked up in two events.

    Raises:
        DefinitionError: If it is not of that form.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if (
        len(parts) < 2
        or parts[0] not in ("data", "user")
        or not all(part.isidentifier() for part in parts)
    ):
        raise DefinitionError(
            f'{where}: expected a path such as "data.source_id" or "user.id", got {path!r}'
        )


def check_path_in_model(path: str, model: Any, where: str) -> None:
    """Check that a path like `data.source_id` names a field of an event class.

    Raises:
        DefinitionError: If a part of the path is no field; the message lists the fields there are.
    """
    parts = path.split(".")
    if parts[0] != "data":
        return
    for part in parts[1:]:
        fields = getattr(model, "model_fields", None)
        if not isinstance(fields, dict):
            return  # below a dict or a plain type: nothing is known
        known = {info.alias or name: info.annotation for name, info in fields.items()}
        if part not in known:
            raise DefinitionError(
                f"{where}: {path!r} is not in {model.__name__}, which has {', '.join(known) or 'no fields'}"
            )
        model = known[part]
