"""A form made of an event's JSON schema. Pure; `console.typed` reads what somebody typed into it.

A property becomes one control: text, a number, a choice, a time; an object of known properties becomes a
group of them; what has no form of its own (lists, maps, several kinds of value) is typed as JSON. A control's
name is its path, `data.address.city`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

ROOT = "data"
# What a browser's own input for times takes; whatever else stands in it, it empties without a word.
_PICKED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?|\d{4}-\d\d-\d\d")
_DEEPEST = 4
_MOST = 200
_INPUTS = {"date-time": "datetime-local", "date": "date", "email": "email", "uri": "url"}
_HINTS = {
    "date-time": "UTC",
    "uuid": "a UUID",
    "time": "a time as 09:30:00",
    "duration": "a span as PT1H30M",
}

Schema = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Control:
    """One property.

    Attributes:
        path: Where it is in the event, the control's name.
        label: Its own name, for people.
        kind: "text", "number", "integer", "boolean", "choice", "time", "json" or "group".
        input: The `type` of an HTML input.
        hint: What its description and its bounds say.
        choices: JSON texts, of a choice.
        is_nullable: None may stand there; an empty control is that if it is required.
        parts: The controls of a group.
        format: As the schema says.
        preset: What stands there at first, as typed.
    """

    path: str
    label: str
    kind: str
    input: str = "text"
    hint: str = ""
    is_required: bool = False
    is_nullable: bool = False
    choices: tuple[str, ...] = ()
    parts: tuple["Control", ...] = ()
    format: str = ""
    preset: str = ""
    schema: Schema = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The control's id on the page."""
        return "f-" + self.path.replace(" ", "_")


def input_for(control: Control, value: str) -> str:
    """Return the input that keeps a value as it is: `control.input`, else "text" or "textarea".

    A browser takes newlines out of inputs, and empties those for times and dates of what it cannot show,
    such as microseconds.
    """
    if "\n" in value:
        return "textarea"
    if control.input in ("datetime-local", "date") and value and not _is_picked(control, value):
        return "text"
    return control.input


def _is_picked(control: Control, value: str) -> bool:
    if not _PICKED.fullmatch(value) or ("T" in value) != (control.input == "datetime-local"):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def controls(schema: Schema) -> tuple[Control, ...] | None:
    """Return a form's controls; None if the schema is not of an object with known properties."""
    whole = _resolved(schema, schema, 0)
    properties = whole.get("properties")
    if not isinstance(properties, Mapping) or not properties or len(properties) > _MOST:
        return None
    return tuple(_parts(whole, schema, ROOT, 0))


def flat(made: Iterable[Control]) -> list[Control]:
    """Return the controls in which something is typed: those of groups in their place."""
    return [each for one in made for each in (flat(one.parts) if one.parts else [one])]


def _parts(whole: Schema, root: Schema, path: str, depth: int) -> Iterator[Control]:
    required = whole.get("required")
    names = set(map(str, required)) if isinstance(required, list) else set()
    properties = whole.get("properties")
    for name, each in properties.items() if isinstance(properties, Mapping) else ():
        if isinstance(each, Mapping):
            yield _control(str(name), each, root, f"{path}.{name}", str(name) in names, depth)


def _control(
    name: str, given: Schema, root: Schema, path: str, is_required: bool, depth: int
) -> Control:
    schema, is_nullable = _without_null(_resolved(given, root, 0), root)
    about = {**schema, **{key: given[key] for key in ("description", "default") if key in given}}
    kind = _kind(schema)
    if kind == "group" and depth + 1 >= _DEEPEST:
        kind = "json"
    form = str(schema.get("format") or "")
    return Control(
        path=path,
        label=name,
        kind=kind,
        input=_INPUTS.get(form, "text") if kind in ("text", "time") else kind,
        hint=_hint(about, form if kind in ("text", "time") else "", kind),
        is_required=is_required,
        is_nullable=is_nullable,
        choices=tuple(text_of(each) for each in _choices(schema)),
        parts=tuple(_parts(schema, root, path, depth + 1)) if kind == "group" else (),
        format=form,
        preset=_preset(about.get("default"), kind, form),
        schema=schema,
    )


def _preset(default: object, kind: str, form: str) -> str:
    """Return a default as it is typed; one that is empty stands for itself when nothing is."""
    return "" if default in (None, "", [], {}) else shown(default, kind, form)


def _resolved(schema: Schema, root: Schema, hops: int) -> Schema:
    """Follow `$ref` and an `allOf` of one: pydantic writes both for a property that has a description."""
    inner: object = None
    reference, every = schema.get("$ref"), schema.get("allOf")
    if isinstance(reference, str) and reference.startswith("#/"):
        inner = root
        for part in reference[2:].split("/"):
            inner = inner.get(part) if isinstance(inner, Mapping) else None
    elif isinstance(every, list) and len(every) == 1:
        inner = every[0]
    if not isinstance(inner, Mapping) or hops > 8:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
    return {**_resolved(inner, root, hops + 1), **rest}


def _without_null(schema: Schema, root: Schema) -> tuple[Schema, bool]:
    """Take `null` out of an `anyOf` of two; a number that may be text (Decimal) is text."""
    kinds = schema.get("anyOf")
    if not isinstance(kinds, list):
        return schema, False
    all_of_them = [_resolved(each, root, 0) for each in kinds if isinstance(each, Mapping)]
    others = [each for each in all_of_them if each.get("type") != "null"]
    is_nullable = len(others) < len(all_of_them)
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(others) == 1:
        return {**others[0], **rest}, is_nullable
    if sorted(str(each.get("type")) for each in others) == ["number", "string"]:
        return {**rest, "type": "string", "format": "decimal"}, is_nullable
    return {**rest, "anyOf": others}, is_nullable


def _kind(schema: Schema) -> str:
    if _choices(schema):
        return "choice"
    kind = schema.get("type")
    if kind == "object" and isinstance(schema.get("properties"), Mapping):
        return "group"
    if kind == "string":
        return "time" if schema.get("format") == "date-time" else "text"
    return str(kind) if kind in ("number", "integer", "boolean") else "json"


def _choices(schema: Schema) -> Sequence[object]:
    if "const" in schema:
        return (schema["const"],)
    many = schema.get("enum")
    return many if isinstance(many, list) else ()


def _hint(schema: Schema, form: str, kind: str) -> str:
    said = [str(schema["description"])] if schema.get("description") else []
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "at least"), ("exclusiveMinimum", "more than"), ("maximum", "at most"),
            ("exclusiveMaximum", "less than"), ("multipleOf", "a multiple of"),
        )
        if key in schema
    ]  # fmt: skip
    bounds += [
        f"{word} {schema[key]} characters"
        for key, word in (("minLength", "at least"), ("maxLength", "at most"))
        if key in schema
    ]
    if form in _HINTS:
        bounds.append(_HINTS[form])
    if kind == "json":
        bounds.append(f"JSON, {form_of(schema)}")
    return "; ".join([*said, ", ".join(bounds)] if bounds else said)


def form_of(schema: Schema) -> str:
    """Say what JSON a control takes."""
    return {"array": "a list", "object": "an object"}.get(str(schema.get("type")), "any value")


def shown(value: object, kind: str, form: str) -> str:
    """Return a value as it is typed into a control of a kind."""
    if kind == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    if kind == "time" and isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
            at = at.astimezone(UTC) if at.tzinfo else at
        except (ValueError, OverflowError):  # no time, or one before the year 1 in UTC
            return value
        part = "auto" if at.microsecond % 1000 or not at.microsecond else "milliseconds"
        return at.replace(tzinfo=None).isoformat(timespec=part)
    if kind == "text" and isinstance(value, str):
        return value
    return text_of(value)


def text_of(value: object) -> str:
    """Write a value as JSON."""
    return json.dumps(value, ensure_ascii=False)
