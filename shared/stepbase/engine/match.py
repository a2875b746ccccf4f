"""Waiting for an event, made indexable: CEL conditions become `path = value` and a residual. Pure.

`event.data.source_id == async.data.source_id` names, for one run, one value at one path of the
awaited event. Stored like that, the one refund among a million sleeping runs is an index look-up.
What cannot be written so stays as a residual, checked by the engine when path and value match; an
expression without any usable equality has path '' and is checked for every event of its name.

The residual is kept as it was written, over both events: one text for all runs of a function, so it is
compiled once, and no value of an event is ever made part of an expression.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stepbase.engine import celtext
from stepbase.engine.celtext import PathKey, Token
from stepbase.protocol.jsontext import dumps

AWAITED = "async"


@dataclass(frozen=True, slots=True)
class Wait:
    """When an event counts.

    Attributes:
        path: Dotted path into the awaited event, or '' for "check the residual for each".
        value: JSON literal that must be there ('null' when path is '').
        residual: The rest of the condition, as CEL over `event` and `async`, or None.
    """

    path: str = ""
    value: str = "null"
    residual: str | None = None


ALWAYS = Wait(residual="true")


def wait_for(
    condition: str | None, event: Mapping[str, object], is_true: Callable[[str], bool]
) -> Wait | None:
    """Turn a condition over `event` (the run's) and `async` (the awaited one) into a Wait.

    Args:
        event: The run's event: the value that an equality asks for is taken from it now.
        is_true: Evaluates a condition over the run's event alone.

    Returns:
        The wait, or None if the condition can never hold.
    """
    if condition is None:
        return ALWAYS
    found: _Equality | None = None
    rest: list[str] = []
    for part in celtext.conjuncts(condition):
        if AWAITED not in celtext.roots(part):
            if not is_true(part):
                return None
            continue
        equality = _equality(part, event) if found is None else None
        found = found or equality
        if equality is None or not equality.is_exact:
            rest.append(part)
    residual = " && ".join(f"({part})" for part in rest) or None
    if found is None:
        return Wait(residual=residual or "true")
    return Wait(path=found.path, value=found.value, residual=residual)


@dataclass(frozen=True, slots=True)
class _Equality:
    """A conjunct `async.… == value`; not exact if the index finds more than the condition does."""

    path: str
    value: str
    is_exact: bool


def _equality(part: str, event: Mapping[str, object]) -> _Equality | None:
    """Read a conjunct as an equality with a scalar, either way round."""
    tokens = [token for token in celtext.tokenize(part) if token.kind != "space"]
    if len(tokens) != 3 or tokens[1].text != "==":
        return None
    for side, other in ((tokens[0], tokens[2]), (tokens[2], tokens[0])):
        path, value = _dotted(side), _scalar(other, event)
        if path is not None and value is not None:
            # In SQL a number finds a list's element and an object's field alike.
            is_exact = not any(_is_number(key) for key in side.keys)
            return _Equality(path, value, is_exact)
    return None


def _dotted(token: Token) -> str | None:
    if token.kind != "path" or token.keys[0] != AWAITED:
        return None
    keys = [str(key) for key in token.keys[1:]]
    return None if any("." in key for key in keys) else ".".join(keys) or None


def _is_number(key: PathKey) -> bool:
    return isinstance(key, int) or key.strip().lstrip("+-").isdigit()


def _scalar(token: Token, event: Mapping[str, object]) -> str | None:
    """Return the JSON literal a token stands for: a literal's own, or the run's event's at a path."""
    if token.kind == "path" and token.keys[0] == "event":
        value = celtext.lookup(event, token.keys[1:])
        return dumps(value) if isinstance(value, str | bool | int | float) else None
    text = token.text
    if token.kind == "string" and text[0] == "'" and "\\" not in text:
        return dumps(text[1:-1])
    if token.kind not in ("string", "number") and text not in ("true", "false"):
        return None
    try:
        return dumps(json.loads(text))
    except ValueError:
        # A spelling that JSON does not have, such as r"…", 5u or 007.
        return None


def name_matches(pattern: str, name: str) -> bool:
    """Say whether an event name fits a trigger: equal, or a `*` after the last `/` or `.`."""
    if pattern == name or pattern == "*":
        return True
    return pattern.endswith(("/*", ".*")) and name.startswith(pattern[:-1]) and name != pattern[:-1]


def wildcard_prefixes(name: str) -> list[str]:
    """Return every wildcard pattern that fits a name, so that a dict look-up finds its functions."""
    cuts = [i for i, char in enumerate(name) if char in "/."]
    return ["*", *(name[: i + 1] + "*" for i in cuts if i + 1 < len(name))]
