"""JSON text as both halves write it: compact, UTF-8 where that is possible, never NaN."""

import json
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
