"""Values on their way out and back: Python → JSON text → the type the annotation names.

What JSON or a database cannot hold exactly is refused before it leaves the process, naming the step
and the path (integers beyond 2^53, NaN, infinities, NUL, lone surrogates). Decimals and big
integers travel as strings, so they need a return annotation (or `returns=`) to come back typed.

The common case, plain JSON values, is left to the C encoder; only text that looks suspicious is
walked in Python. pydantic is loaded when a type asks for it.
"""

import json
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from types import FunctionType, NoneType
from typing import Any, Final
from uuid import UUID

from stepbase.errors import DefinitionError
from stepbase.protocol import names
from stepbase.sdk.fault import CodedError
from stepbase.supabase.call import MAX_SAFE_INTEGER
from stepbase.supabase.call import UNTYPED as UNTYPED

_SUSPICIOUS: Final = re.compile(r"(?<![.\d])\d{16}|\\u0000")
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
    if isinstance(value, Coroutine):
        name = getattr(value, "__name__", "a coroutine function")
        raise _Refused(f"{name}(…) was called and not awaited: write await before it")
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
        is_suspicious = _SUSPICIOUS.search(text) is not None
    except (TypeError, ValueError, _Refused, RecursionError):
        is_suspicious = True
    if is_suspicious:
        text = _encode_slowly(value, returns, what)
        size = len(text.encode())
    if size > names.MAX_STEP_OUTPUT_BYTES:
        raise CodedError(
            f"{what} returned {size} bytes of JSON, {names.MAX_STEP_OUTPUT_BYTES} are allowed: "
            "store it and return a reference",
            "output_too_large",
        )
    return text


def _encode_slowly(value: object, returns: object, what: str) -> str:
    walk = _Walk(what, is_plain(returns))
    try:
        walked = walk.copy(value, "$")
    except RecursionError:
        raise _error(what, "$", "it is nested too deeply, or contains itself") from None
    text = _encode(walked)
    if walk.has_big_integers and decode(json.loads(text), returns, what) != value:
        raise _error(what, "$", "an integer beyond 2^53 does not come back through its annotation")
    return text


class _Walk:
    """Copies a value as plain JSON, refusing with the path what must not leave."""

    def __init__(self, what: str, is_untyped: bool) -> None:
        self._what = what
        self._is_untyped = is_untyped
        self.has_big_integers = False

    def copy(self, value: Any, path: str) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return _check_text(value, self._what, path)
        if isinstance(value, int):
            return self._integer(int(value), path)
        if isinstance(value, float):
            if not math.isfinite(value):
                problem = f"{value} is not a JSON number; return None or a string"
                raise _error(self._what, path, problem)
            return value
        if isinstance(value, Mapping):
            return {
                _key(key, self._what, path): self.copy(item, f"{path}.{key}")
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.copy(item, f"{path}[{i}]") for i, item in enumerate(value)]
        try:
            return self.copy(_plain(value), path)
        except _Refused as error:
            raise _error(self._what, path, str(error)) from None

    def _integer(self, value: int, path: str) -> int | str:
        if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            return value
        if self._is_untyped:
            raise _error(
                self._what,
                path,
                f"the integer {value} is beyond 2^53, where JSON readers lose digits: annotate the "
                "return type (-> int, or a model with an int field), or return a string",
            )
        self.has_big_integers = True
        return str(value)


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
    if type(function) is not FunctionType:
        while isinstance(function, partial):
            function = function.func
        function = getattr(function, "__func__", function)
        if not isinstance(getattr(function, "__annotations__", None), dict):
            function = type(function).__call__
    annotations = getattr(function, "__annotations__", None) or {}
    found = annotations.get("return", UNTYPED)
    if not isinstance(found, str):
        return _awaited(found)
    try:
        return _awaited(resolve(found, function))
    except NameError as error:
        raise DefinitionError(
            f'the return annotation "{found}" of {getattr(function, "__qualname__", function)} cannot '
            f"be resolved ({error}): import it at run time, or pass returns=…"
        ) from error


def _awaited(annotation: Any) -> Any:
    """Return what awaiting gives, for functions that return an awaitable without being async."""
    if getattr(annotation, "__origin__", None) in (Awaitable, Coroutine):
        return annotation.__args__[-1]
    return annotation


def resolve(text: str, function: Any) -> Any:
    """Return what an annotation of a function, written as text, stands for.

    Each is resolved alone: others may name what exists for the type checker only.

    Raises:
        NameError: If it names something that is not there.
    """
    import types
    import typing

    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    freevars = getattr(code, "co_freevars", ())
    local = dict(zip(freevars, (_content(cell) for cell in cells), strict=False))
    holder = types.SimpleNamespace(__annotations__={"it": text})
    return typing.get_type_hints(holder, getattr(function, "__globals__", {}), local)["it"]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
