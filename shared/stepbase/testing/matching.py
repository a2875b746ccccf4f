"""Whether an event ends a pause: what the engine asks its index, asked of one event. Pure."""

import json
from collections.abc import Callable, Mapping

from stepbase.engine import celtext
from stepbase.engine.match import Wait
from stepbase.engine.starts import Event

Holds = Callable[[str, Mapping[str, object]], bool]
"""Evaluates a CEL expression over named roots."""


def fits(wait: Wait, own: Event, event: Event, holds: Holds) -> bool:
    """Say whether an event is what a pause of a run with the event `own` waits for."""
    if wait.path and not _same(_at(event.parsed, wait.path), json.loads(wait.value)):
        return False
    if wait.residual is None or wait.residual == "true":
        return True
    return holds(wait.residual, {"event": own.parsed, "async": event.parsed})


def _at(value: object, path: str) -> object:
    """Follow a dotted path as PostgreSQL's `#>` does: a number also finds a list's element."""
    for key in path.split("."):
        is_place = isinstance(value, list) and key.lstrip("-").isdigit()
        value = celtext.lookup(value, (int(key) if is_place else key,))
    return value


def _same(left: object, right: object) -> bool:
    """Compare scalars as JSON: 5 is 5.0 but not "5" or true; null, lists and objects equal nothing."""
    kinds = [
        "number" if isinstance(each, int | float) and not isinstance(each, bool) else type(each)
        for each in (left, right)
    ]
    return kinds[0] == kinds[1] and isinstance(left, str | int | float) and left == right
