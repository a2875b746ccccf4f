"""Values on their way out and back: Python → JSON text → the type the annotation names.

What JSON or a database cannot hold exactly is refused before it leaves the process, naming the step
and the path (integers beyond 2^53, NaN, infinities, NUL, lone surrogates). Decimals and big
integers travel as strings, so they need a return annotation (or `returns=`) to come back typed.

The common case, plain JSON values, is left to the C encoder; only text that looks suspicious is
walked in Python. pydantic is loaded when a type asks for it.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from types import NoneType
from typing import Any, Final
from uuid import UUID

from stepbase.errors import DefinitionError
from stepbase.protocol import names
from stepbase.sdk.fault import CodedError
from stepbase.supabase.call import MAX_SAFE_INTEGER
from stepbase.supabase.call import UNTYPED as UNTYPED

_SUSPICIOUS: Final = re.compile(r"\d{16}|\\u0000")
_AS_IS: Final = frozenset({UNTYPED, Any, object, str, bool, None, NoneType, dict, list})


class _Refused(Exception):
    """A value that cannot leave, without its path."""


def _plain(value: Any) -> Any:
    """Turn one object that JSON does not know into one it does; the encoder goes on inside."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        return dump(value, mode="json", by_alias=True)
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    if isinstance(value, timedelta):
        return iso_duration(value)
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise _Refused(
        f"{type(value).__name__} is not JSON: return plain data, a pydantic model or a dataclass"
    )


def iso_duration(value: timedelta) -> str:
    """Write a timedelta as ISO 8601, exactly; pydantic reads it back."""
    micros = value // timedelta(microseconds=1)
    seconds, fraction = divmod(abs(micros), 1_000_000)
    return f"{'-' if micros < 0 else ''}PT{seconds}.{fraction:06d}S"


_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


def encode(value: object, returns: object, what: str) -> str:
    """Write a result as JSON text.

    Args:
        returns: The annotation it will be read back with, or `UNTYPED`.
        what: Whose result it is, for messages, e.g. ``'step "charge"'``.

    Raises:
        CodedError: Final; if the value cannot be kept. The message names the path, e.g. ``$.items[3]``.
    """
    try:
        text = _encode(value)
        size = len(text.encode())
    except (TypeError, ValueError, _Refused, RecursionError):
        try:
            text = _encode(_walk(value, returns, what, "$"))
        except RecursionError:
            raise _error(what, "$", "it is nested too deeply, or contains itself") from None
        size = len(text.encode())
    else:
        if _SUSPICIOUS.search(text):
            walked = _walk(value, returns, what, "$")
            text = _encode(walked)
            _check_big_integers_return(value, walked, returns, what)
    if size > names.MAX_STEP_OUTPUT_BYTES:
        raise CodedError(
            f"{what} returned {size} bytes of JSON, {names.MAX_STEP_OUTPUT_BYTES} are allowed: "
            "store it and return a reference",
            "output_too_large",
        )
    return text


def _walk(value: Any, returns: object, what: str, path: str) -> Any:
    """Copy a value as plain JSON, refusing with the path what must not leave."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _check_text(value, what, path)
    if isinstance(value, int):
        return _check_integer(int(value), returns, what, path)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise _error(what, path, f"{value} is not a JSON number; return None or a string")
        return value
    if isinstance(value, Mapping):
        return {
            _key(key, what, path): _walk(item, returns, what, f"{path}.{key}")
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_walk(item, returns, what, f"{path}[{i}]") for i, item in enumerate(value)]
    try:
        return _walk(_plain(value), returns, what, path)
    except _Refused as error:
        raise _error(what, path, str(error)) from None


def _key(key: Any, what: str, path: str) -> Any:
    if isinstance(key, str):
        return _check_text(key, what, f"{path} (key)")
    if key is None or isinstance(key, int | float):
        return key  # the encoder writes these as strings
    try:
        plain = _plain(key)
    except _Refused:
        plain = None
    if not isinstance(plain, str):
        raise _error(what, path, f"the key {key!r:.60} is no string")
    return plain


def _check_text(text: str, what: str, path: str) -> str:
    if "\x00" in text:
        raise _error(what, path, "the string contains a NUL character, which Postgres cannot store")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _error(
            what, path, "the string contains a lone surrogate (half a character); it is not UTF-8"
        ) from None
    return text


def _check_integer(value: int, returns: object, what: str, path: str) -> int | str:
    if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        return value
    if is_plain(returns):
        raise _big_integer(what, path, value)
    return str(value)


def _big_integer(what: str, path: str, value: int) -> CodedError:
    return _error(
        what,
        path,
        f"the integer {value} is beyond 2^53, where JSON readers lose digits: annotate the return "
        "type (-> int, or a model with an int field), or return a string",
    )


def _check_big_integers_return(value: Any, walked: Any, returns: object, what: str) -> None:
    """Make sure that integers sent as strings come back as integers through the annotation."""
    if is_plain(returns):
        return
    if decode(json.loads(_encode(walked)), returns, what) != value:
        raise _error(what, "$", "an integer beyond 2^53 does not come back through its annotation")


def _error(what: str, path: str, problem: str) -> CodedError:
    return CodedError(
        f"{what} returned a value that cannot be kept: {path}: {problem}", "output_unserializable"
    )


def is_plain(returns: object) -> bool:
    """Say whether values of this annotation come back as plain JSON, with nothing to convert."""
    try:
        return returns in _AS_IS
    except TypeError:
        return False


def decode(value: Any, returns: object, what: str) -> Any:
    """Read a JSON value back as the annotated type.

    Raises:
        CodedError: Final; if the value does not fit the annotation. The message names the field.
    """
    if is_plain(returns) or (returns is int and type(value) is int):
        return value
    adapter = _adapter(returns)
    try:
        return adapter.validate_python(value)
    except ValueError:
        pass
    try:
        # Strict models take "2030-01-01" for a date only when they know that it was JSON.
        return adapter.validate_json(_encode(value))
    except ValueError as error:
        raise CodedError(f"{what}: {explain(error)}", "output_invalid") from error


@lru_cache(maxsize=1024)
def _adapter(returns: Any) -> Any:
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(returns)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise DefinitionError(
            f"the return annotation {returns!r} is no type that JSON can be read into: "
            "use a pydantic model, a dataclass or plain data, or pass returns=object"
        ) from error


def explain(error: ValueError) -> str:
    """Say in one line what pydantic found: each field's path and problem."""
    errors: Callable[..., list[Mapping[str, Any]]] | None = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    found = errors(include_url=False, include_input=False)
    shown = "; ".join(
        f"{'.'.join(str(part) for part in each['loc']) or 'value'}: {each['msg']}"
        for each in found[:5]
    )
    return shown if len(found) <= 5 else f"{shown}; and {len(found) - 5} more"


def returns_of(function: Any) -> Any:
    """Return the return annotation of a callable, or `UNTYPED`.

    Raises:
        DefinitionError: If it is written as text that names nothing.
    """
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    annotations = getattr(function, "__annotations__", None)
    if not isinstance(annotations, dict):
        function = type(function).__call__
        annotations = getattr(function, "__annotations__", None) or {}
    found = annotations.get("return", UNTYPED)
    return _resolve(found, function) if isinstance(found, str) else found


def _resolve(text: str, function: Any) -> Any:
    import typing

    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    local = dict(
        zip(getattr(code, "co_freevars", ()), (_content(cell) for cell in cells), strict=False)
    )
    try:
        hints = typing.get_type_hints(function, localns=local)
    except NameError as error:
        raise DefinitionError(
            f'the return annotation "{text}" of {getattr(function, "__qualname__", function)} cannot be '
            f"resolved ({error}): import it at run time, or pass returns=…"
        ) from error
    return hints.get("return", UNTYPED)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
