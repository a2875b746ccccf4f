"""Waiting for an event, made indexable: CEL conditions become `path = value` and a residual. Pure.

`event.data.source_id == async.data.source_id` names, for one run, one value at one path of the
awaited event. Stored like that, the one refund among a million sleeping runs is an index look-up.
What cannot be written so stays as a residual, checked by the engine when path and value match; an
expression without any usable equality has path '' and is checked for every event of its name.
"""

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
        residual: The rest of the condition, as CEL over `async`, or None.
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
        event: The run's event: its values are put into the condition now.
        is_true: Evaluates a condition without paths.

    Returns:
        The wait, or None if the condition can never hold.
    """
    if condition is None:
        return ALWAYS

    def literal(keys: tuple[PathKey, ...]) -> str | None:
        return dumps(celtext.lookup(event, keys[1:])) if keys[0] == "event" else None

    found: tuple[str, str] | None = None
    rest: list[str] = []
    for part in celtext.conjuncts(celtext.replace_paths(condition, literal)):
        if AWAITED not in celtext.roots(part):
            if not is_true(part):
                return None
            continue
        equality = _equality(part) if found is None else None
        if equality is None:
            rest.append(part)
        else:
            found = equality
    residual = " && ".join(f"({part})" for part in rest) or None
    if found is None:
        return Wait(residual=residual or "true")
    return Wait(path=found[0], value=found[1], residual=residual)


def _equality(part: str) -> tuple[str, str] | None:
    """Return (path, JSON literal) if the conjunct is `async.… == literal`, either way round."""
    tokens = [token for token in celtext.tokenize(part) if token.kind != "space"]
    if len(tokens) != 3 or tokens[1].text != "==":
        return None
    for side, other in ((tokens[0], tokens[2]), (tokens[2], tokens[0])):
        path, value = _dotted(side), _json_literal(other)
        if path is not None and value is not None:
            return path, value
    return None


def _dotted(token: Token) -> str | None:
    if token.kind != "path" or token.keys[0] != AWAITED or len(token.keys) < 2:
        return None
    keys = [str(key) for key in token.keys[1:]]
    return None if any("." in key for key in keys) else ".".join(keys)


def _json_literal(token: Token) -> str | None:
    if token.kind == "string" and token.text[0] == '"':
        return token.text
    if token.kind == "string" and token.text[0] == "'" and not set('"\\') & set(token.text):
        return f'"{token.text[1:-1]}"'
    if token.kind == "number" and not token.text.endswith("u"):
        return token.text
    return token.text if token.text in ("true", "false") else None


def name_matches(pattern: str, name: str) -> bool:
    """Say whether an event name fits a trigger: equal, or a `*` after the last `/` or `.`."""
    if pattern == name or pattern == "*":
        return True
    return pattern.endswith(("/*", ".*")) and name.startswith(pattern[:-1]) and name != pattern[:-1]


def wildcard_prefixes(name: str) -> list[str]:
    """Return every wildcard pattern that fits a name, so that a dict look-up finds its functions."""
    cuts = [i for i, char in enumerate(name) if char in "/."]
    return ["*", *(name[: i + 1] + "*" for i in cuts if i + 1 < len(name))]
