"""The form that makes a run again from a step, with other arguments for it: one text area for each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request

from stepbase.console.page import Desk, Page, not_found
from stepbase.errors import StoreError
from stepbase.protocol.jsontext import find_unstorable, loads
from stepbase.protocol.redact import SHOWN

_MOST = 20
_FIELD = "argument-"


@dataclass(frozen=True, slots=True)
class Typed:
    """What stands in the text areas.

    Attributes:
        texts: As it was typed, one an argument.
        values: What that is, if nothing is wrong; empty: the step keeps its own arguments.
        errors: What is wrong, by the number of the argument.
    """

    texts: Sequence[str]
    values: Sequence[object] = ()
    errors: Mapping[int, str] = field(default_factory=dict)


def read(form: Mapping[str, str]) -> Typed:
    """Read the text areas of a form; those that are empty at the end count for nothing."""
    texts = [form.get(f"{_FIELD}{n}", "") for n in range(_MOST)]
    shown = max([n + 1 for n in range(_MOST) if f"{_FIELD}{n}" in form], default=1)
    given = max([n + 1 for n, text in enumerate(texts) if text.strip()], default=0)
    values, errors = [], {}
    for n, text in enumerate(texts[:given]):
        try:
            values.append(_value(text))
        except ValueError as error:
            errors[n] = str(error)
    return Typed(texts[:shown], [] if errors else values, errors)


def _value(text: str) -> object:
    if not text.strip():
        raise ValueError("is empty, and one behind it is not: write null for no value")
    try:
        value = loads(text)
    except RecursionError:
        raise ValueError("is not JSON that can be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        hint = "" if text.lstrip()[0] in '{["-0123456789' else ': a text stands in "…"'
        raise ValueError(
            f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}{hint}"
        ) from error
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if SHOWN in text:
        raise ValueError(
            f'has "{SHOWN}" in it: a secret was taken out there; write it, or leave all empty'
        )
    unstorable = find_unstorable(value, "it")
    if unstorable is not None:
        raise ValueError(unstorable)
    return value


async def again(desk: Desk, request: Request) -> Page:
    """Show the form of a step, empty or with the arguments that an earlier repetition gave it."""
    given = await desk.reads.one(
        _EDITS, request.path_params["run_id"], request.query_params.get("step", "")
    )
    values = json.loads(given["input"]) if given is not None and given["input"] else []
    texts = [json.dumps(each, indent=2, ensure_ascii=False) for each in values[:_MOST]]
    return await page(desk, request, request.query_params.get("step", ""), Typed(texts or [""]))


async def page(
    desk: Desk, request: Request, step: str, typed: Typed, problem: str = "", status: int = 200
) -> Page:
    """Show the form with what was typed, and beside it what is wrong with it."""
    run_id = request.path_params["run_id"]
    try:
        row = await desk.reads.one(_STEP, run_id, step)
    except StoreError as error:  # what was typed is kept, beside what is not known now
        row = {**_UNKNOWN, "hash": step}
        problem, status = problem or str(error), 503
    if row is None:
        return not_found(
            f"Run {run_id} has no such step", "Open the run: each step has a link to this form."
        )
    shown = {
        "run_id": run_id,
        "step": row,
        "typed": typed,
        "field": _FIELD,
        "may_add": len(typed.texts) < _MOST,
        "problem": problem,
    }
    data = {"run_id": run_id, "step": row["name"], "arguments": list(typed.texts)}
    return Page("again.html", f"Run again from {row['name']}", shown, data, status)


_UNKNOWN = {"name": "this step", "function": "its function", "kept": None, "ended_at": "unknown"}
_STEP = """
select k.hash, k.name, k.op, k.status, f.slug as function, r.ended_at, r.status as run_status,
       (select count(*) from stepbase.steps b
          where b.run_id = $1 and b.pos < k.pos and b.status in ('done', 'failed')) as kept
  from stepbase.steps k
  join stepbase.runs r on r.run_id = k.run_id
  left join stepbase.functions f on f.function_id = r.function_id
  where k.run_id = $1 and k.hash = $2
"""
_EDITS = """
select r.edits -> $2 ->> 'input' as input from stepbase.runs r where r.run_id = $1
"""
