"""Checks that definitions share: durations as the wire has them, and expressions."""

from datetime import timedelta

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
