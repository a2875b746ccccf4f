"""Durations: `timedelta` or "1h30m" from users, strings on the wire."""

import re
from datetime import timedelta

_UNIT_MS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_LARGEST_FIRST = ("w", "d", "h", "m", "s", "ms")


def parse_duration(text: str) -> timedelta:
    """Read "90s", "1h30m", "2d" or "1w"; units are ms, s, m, h, d, w.

    Raises:
        ValueError: If the text is anything else; the message shows the form.
    """
    compact = text.replace(" ", "")
    if not compact or _PART.sub("", compact):
        raise ValueError(f'not a duration: {text!r}; write for example "30s", "1h30m", "2d", "1w"')
    ms = sum(float(number) * _UNIT_MS[unit] for number, unit in _PART.findall(compact))
    try:
        return timedelta(milliseconds=ms)
    except OverflowError as error:
        raise ValueError(f"a duration of {ms / 86_400_000:.3g} days is too long") from error


def to_timedelta(value: timedelta | str) -> timedelta:
    """Accept both spellings users have for a duration.

    Raises:
        ValueError: If a string is not a duration.
        TypeError: If it is neither a string nor a timedelta.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise TypeError(f'a duration is a timedelta or a string like "2h", got {value!r}')


def format_duration(value: timedelta) -> str:
    """Write a duration as the wire has it, e.g. "1d2h"; "0s" when it is not positive."""
    left = round(value.total_seconds() * 1000)
    if left <= 0:
        return "0s"
    parts = []
    for unit in _LARGEST_FIRST:
        count, left = divmod(left, _UNIT_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
