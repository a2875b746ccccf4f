"""The form that sends an event: made of its schema where a function has told one, else JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request

from stepbase.console import form, typed
from stepbase.console.form import Control
from stepbase.console.page import Desk, Page
from stepbase.console.pages.events import listeners
from stepbase.protocol.redact import SHOWN

BY_FORM, BY_JSON = "form", "json"


@dataclass(frozen=True, slots=True)
class Told:
    """What a function tells of an event: its class, and the form of its schema, or why there is none."""

    function: str
    model: str
    controls: tuple[Control, ...] | None
    note: str = ""


async def schemas_of(desk: Desk, name: str) -> list[Told]:
    """Return what the functions tell of an event, one for each class."""
    told: dict[str, Told] = {}
    for row in await desk.reads.all(_SCHEMAS, name):
        raw = json.loads(row["told"])
        schema = raw.get("schema")
        made = form.controls(schema) if isinstance(schema, dict) else None
        note = str(raw.get("note") or ("" if made else "its schema is not that of an object"))
        key = json.dumps(raw)
        told.setdefault(key, Told(row["slug"], str(raw.get("model") or ""), made, note))
    return list(told.values())


def chosen(told: Sequence[Told], function: str) -> Told | None:
    """Return what the asked-for function tells, else the first with a form, else the first."""
    asked = [each for each in told if each.function == function]
    return next(iter([*asked, *(each for each in told if each.controls), *told]), None)


async def send(desk: Desk, request: Request) -> Page:
    """Show the form that sends an event of a name, filled with the last one's data."""
    query = request.query_params
    name = query.get("name", "").strip()
    row = await desk.reads.one(_LAST, name) if name and query.get("from") != "none" else None
    last: object = json.loads(row["payload"]).get("data") if row is not None else None
    data = last if isinstance(last, dict) else {}
    told = await schemas_of(desk, name) if name else []
    one = chosen(told, query.get("of", ""))
    made = (one.controls if one else None) or ()
    values = {**typed.presets(made), **typed.typed_of(made, data)} if data else typed.presets(made)
    is_json = query.get("as") == BY_JSON or not made
    text = json.dumps(data or _sample(made), indent=2, ensure_ascii=False)
    shown = Shown(name, one, is_json, text, values)
    return await page(desk, shown, told=told, last=data if row is not None else None)


@dataclass(frozen=True, slots=True)
class Shown:
    """What stands in the form: JSON text, and what is typed in each control."""

    name: str
    told: Told | None
    is_json: bool
    text: str
    values: Mapping[str, str]
    errors: Mapping[str, str] | None = None
    problem: str = ""


def as_typed(name: str, typed: Mapping[str, str], problem: str) -> Shown:
    """Return what was typed while nobody knows its form: each field as text, or the JSON.

    Sent again it is read as what it is, by the form that is known then.
    """
    of, text = typed.get("of", ""), typed.get("data") or "{}"
    names = [key for key in typed if key.startswith(f"{form.ROOT}.")]
    made = tuple(Control(key, key.removeprefix(f"{form.ROOT}."), "text") for key in names)
    is_json = typed.get("by") != BY_FORM or not made
    return Shown(name, Told(of, "", made or None), is_json, text, typed, problem=problem)


async def page(
    desk: Desk,
    shown: Shown,
    *,
    told: Sequence[Told],
    last: Mapping[str, object] | None = None,
) -> Page:
    """Return the page with a form as it stands."""
    made = (shown.told.controls if shown.told else None) or ()
    starts = [each.config.slug for each in listeners(desk, shown.name)]
    names = [row["name"] for row in await desk.reads.all(_NAMES, 200)] if not shown.name else []
    errors = dict(shown.errors or {})
    base = {"name": shown.name, "of": shown.told.function if shown.told else ""}
    parts = {
        "name": shown.name,
        "names": names,
        "schema": shown.told,
        "others": [each for each in told if each is not shown.told],
        "controls": made,
        "is_json": shown.is_json,
        "text": shown.text,
        "values": shown.values,
        "errors": errors,
        "input_for": form.input_for,
        "labels": {each.path: each.id for each in form.flat(made)},
        "problem": shown.problem,
        "listeners": starts,
        "is_copy": last is not None,
        "left_out": typed.left_out(made, last) if last and made and not shown.is_json else [],
        "has_secrets": last is not None and SHOWN in json.dumps(last),
        "empty_url": "/send?" + urlencode({**base, "from": "none"}),
    }
    data = {
        "name": shown.name,
        "listeners": starts,
        "schema_of": shown.told.model if shown.told else None,
        "errors": errors,
        "problem": shown.problem or None,
    }
    return Page("send.html", "Send an event", parts, data)


def _sample(made: Sequence[Control]) -> dict[str, object]:
    """Return an object with the fields of a form, to begin with in JSON."""
    found: dict[str, object] = {}
    for control in made:
        if control.kind == "group":
            found[control.label] = _sample(control.parts)
        elif control.is_required or control.preset:
            found[control.label] = _value(control)
    return found


def _value(control: Control) -> object:
    if control.preset and control.kind not in ("text", "time"):
        return json.loads(control.preset)
    if control.choices:
        return json.loads(control.choices[0])
    empty: dict[str, object] = {"integer": 0, "number": 0, "boolean": False, "json": None}
    return control.preset or empty.get(control.kind, "")


_LAST = """
select e.payload::text as payload from stepbase.events e where e.name = $1 order by e.id desc limit 1
"""
# The table of functions is small: a row a function.
_SCHEMAS = """
select f.slug, (f.schemas -> $1::text)::text as told from stepbase.functions f
  where f.archived_at is null and f.schemas -> $1::text is not null order by f.slug limit 50
"""
_NAMES = """
select distinct t ->> 'event' as name from stepbase.functions f
  cross join lateral json_array_elements(
    case json_typeof(f.config -> 'triggers') when 'array' then f.config -> 'triggers' end) t
  where f.archived_at is null and t ->> 'event' not like 'inngest/%' order by 1 limit $1
"""
