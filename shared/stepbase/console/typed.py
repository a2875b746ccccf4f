"""What somebody typed into a form, as the data of an event; and back. Pure.

What is typed is text, kept by the control's path, so that a form that comes back shows it again. Checked
here: that each is of its type, what is required, choices, bounds and lengths. Everything else that a class
may ask for is checked by the function itself, whose run then says so.
"""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from uuid import UUID

from stepbase.console.form import Control, form_of, shown
from stepbase.protocol.jsontext import loads
from stepbase.protocol.redact import SHOWN

Json = object
_CHECKED = ("date", "time", "uuid", "decimal")
WHOLE = ""
"""The path of what is wrong with the data as a whole."""


@dataclass(frozen=True, slots=True)
class Typed:
    """What came of a form: the event's data, and what is wrong with which control (by path)."""

    data: dict[str, Json]
    errors: Mapping[str, str]


def typed_of(made: Sequence[Control], data: Mapping[str, object]) -> dict[str, str]:
    """Return what stands in each control for an event's data, by path."""
    found: dict[str, str] = {}
    for control in made:
        value = data.get(control.label)
        if control.kind == "group":
            inner = value if isinstance(value, Mapping) else {}
            found |= typed_of(control.parts, inner)
        elif value is not None and value != SHOWN:
            found[control.path] = shown(value, control.kind, control.format)
    return found


def presets(made: Sequence[Control]) -> dict[str, str]:
    """Return what stands in each control at first, by path."""
    found: dict[str, str] = {}
    for control in made:
        found |= presets(control.parts) if control.parts else {control.path: control.preset}
    return found


def left_out(made: Sequence[Control], data: Mapping[str, object]) -> list[str]:
    """Return the fields of an event's data that the form has no control for."""
    return sorted(set(data) - {control.label for control in made})


def read(made: Sequence[Control], typed: Mapping[str, str]) -> Typed:
    """Read what was typed, as the event's data."""
    errors: dict[str, str] = {}
    data, _ = _group(made, typed, errors, is_asked=True)
    return Typed(data, errors)


def _group(
    made: Sequence[Control], typed: Mapping[str, str], errors: dict[str, str], *, is_asked: bool
) -> tuple[dict[str, Json], bool]:
    """Return a group's value, and whether anything was typed into it."""
    data: dict[str, Json] = {}
    is_filled = False
    for control in made:
        if control.kind == "group":
            asked = is_asked and control.is_required
            found: dict[str, str] = {}
            value, has_any = _group(control.parts, typed, found, is_asked=asked)
            if has_any or asked:
                if not asked:
                    found = {}
                    value, _ = _group(control.parts, typed, found, is_asked=True)
                data[control.label] = value
                errors |= found
            is_filled |= has_any
            continue
        text = _as_typed(control, typed.get(control.path, ""))
        if text == "":
            if control.is_required and control.is_nullable:
                data[control.label] = None
            elif control.is_required and is_asked:
                errors[control.path] = "is required"
            continue
        is_filled |= text != control.preset
        try:
            data[control.label] = _checked(control, text)
        except (ValueError, RecursionError) as error:
            errors[control.path] = str(error)
            data[control.label] = text  # for whoever goes on as JSON
    return data, is_filled


def _as_typed(control: Control, text: str) -> str:
    """Return what somebody typed: a browser sends a newline as two characters; of text all are kept."""
    text = text.replace("\r\n", "\n")
    if control.kind == "text" and control.format not in _CHECKED:
        return text
    return text.strip() if control.kind == "json" else text.strip("\n")


def _checked(control: Control, text: str) -> Json:
    """Return a control's value.

    Raises:
        ValueError: Saying what was expected.
    """
    value = _converted(control, text)
    for key, holds, word in _BOUNDS:
        bound = control.schema.get(key)
        if (
            isinstance(bound, int | float)
            and isinstance(value, int | float)
            and not holds(value, bound)
        ):
            raise ValueError(f"must be {word} {bound}")
    if isinstance(value, str):
        least, most = control.schema.get("minLength"), control.schema.get("maxLength")
        if isinstance(least, int) and len(value) < least:
            raise ValueError(f"must have at least {least} characters, has {len(value)}")
        if isinstance(most, int) and len(value) > most:
            raise ValueError(f"must have at most {most} characters, has {len(value)}")
    return value


def _converted(control: Control, text: str) -> Json:
    match control.kind:
        case "integer":
            return _number(text, int, "a whole number")
        case "number":
            return _number(text, float, "a number")
        case "boolean":
            if text not in ("true", "false"):
                raise ValueError(f"must be true or false, got {text[:40]!r}")
            return text == "true"
        case "choice":
            if text not in control.choices:
                raise ValueError(f"must be one of {', '.join(control.choices)}")
            return json.loads(text)
        case "json":
            return _json(control, text)
        case "time":
            return _instant(text)
    return _text(control.format, text)


def _number(text: str, kind: type[int] | type[float], what: str) -> int | float:
    try:
        value = int(text) if kind is int or text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise ValueError(f"must be {what}, got {text[:40]!r}") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"must be {what}, got {text[:40]!r}")
    return value


def _json(control: Control, text: str) -> Json:
    try:
        value = loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    wanted = {"array": list, "object": dict}.get(str(control.schema.get("type")))
    if wanted is not None and not isinstance(value, wanted):
        raise ValueError(f"must be {form_of(control.schema)}, as JSON")
    return value


def _instant(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"must be a time as 2026-11-24T09:30, got {text[:40]!r}") from None
    return at.isoformat().replace("+00:00", "Z")


def _text(form: str, text: str) -> str:
    try:
        if form == "date":
            date.fromisoformat(text)
        elif form == "time":
            time.fromisoformat(text)
        elif form == "uuid":
            UUID(text)
        elif form == "decimal":
            _number(text, float, "a number")
    except ValueError:
        what = {"date": "a date as 2026-11-24", "time": "a time as 09:30:00", "uuid": "a UUID"}
        raise ValueError(f"must be {what.get(form, 'a number')}, got {text[:40]!r}") from None
    return text


_BOUNDS: tuple[tuple[str, Callable[[float, float], bool], str], ...] = (
    ("minimum", operator.ge, "at least"),
    ("exclusiveMinimum", operator.gt, "more than"),
    ("maximum", operator.le, "at most"),
    ("exclusiveMaximum", operator.lt, "less than"),
)
