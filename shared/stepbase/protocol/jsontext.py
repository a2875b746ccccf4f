"""JSON text as both halves write and read it: compact, UTF-8 where that is possible, never NaN."""

import json
import math
from typing import Final

_dumps: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_dumps_ascii: Final = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, separators=(",", ":")
).encode


def dumps(value: object) -> str:
    """Write a JSON value compactly; lone surrogates, which UTF-8 has no bytes for, are escaped.

    Raises:
        ValueError: For NaN, infinities and circular values.
        TypeError: For what JSON cannot hold.
    """
    text = _dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _dumps_ascii(value)
    return text


def dumps_bytes(value: object) -> bytes:
    """Write a JSON value as the bytes that go on the wire; raises as `dumps` does."""
    text = _dumps(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _dumps_ascii(value).encode()


def loads(text: str | bytes) -> object:
    """Read JSON strictly: what it returns can be written again with `dumps`.

    Raises:
        ValueError: If it is not JSON. Python's own reader also takes NaN, Infinity, numbers that
            become infinite, and halves of characters as bytes; this one does not.
        RecursionError: If it is nested too deeply.
    """
    value: object = _decode(text if isinstance(text, str) else text.decode())
    return value


def find_unstorable(value: object, where: str) -> str | None:
    """Return what Postgres could not keep in a JSON value and where it is, or None.

    Args:
        where: What to call the value itself, e.g. ``"event"``; inner places are paths from there.
    """
    if isinstance(value, dict):
        inner = [
            problem
            for key, each in value.items()
            for problem in (
                find_unstorable(key, f"a key of {where}"),
                find_unstorable(each, f"{where}.{key}"),
            )
        ]
    elif isinstance(value, list):
        inner = [find_unstorable(each, f"{where}[{i}]") for i, each in enumerate(value)]
    else:
        return _unstorable_text(value, where) if isinstance(value, str) else None
    return next((problem for problem in inner if problem is not None), None)


def _unstorable_text(text: str, where: str) -> str | None:
    if "\x00" in text:
        return f"{where} contains a NUL character, which Postgres cannot keep"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return f"{where} contains half a surrogate pair, which is no character"
    return None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_decode: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant).decode
