"""Comparing two answers but for what `differences.py` lists."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.interop.differences import CANNOT_BE_EQUAL, DIFFERENCES, HEADERS, Difference, Sdk
from tests.support.sdk_calls import Reply


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two answers.

    Attributes:
        unexplained: One line for each path that differs without being on the list.
        used: The entries of the list that explained something.
    """

    unexplained: list[str]
    used: frozenset[Difference]

    @property
    def names(self) -> set[str]:
        """The differences on purpose that were seen."""
        return {each.name for each in self.used} - {""}


def document(reply: Reply) -> dict[str, Any]:
    """Return what is compared of an answer."""
    headers = {name: reply.headers[name] for name in HEADERS if name in reply.headers}
    body = json.loads(reply.content) if reply.content else None
    return {"status": reply.status, "headers": headers, "body": body}


def unexplained(shape: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return one line for each path that differs from Python's without being on the list."""
    return compare("python", shape, ours, theirs).unexplained


def compare(sdk: Sdk, shape: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Comparison:
    """Compare an answer of ours with one of an official SDK; the first entry that fits explains."""
    allowed = [
        each
        for each in CANNOT_BE_EQUAL + DIFFERENCES
        if sdk in each.sdks and (each.shapes is None or shape in each.shapes)
    ]
    allowed.sort(key=lambda each: each.path == "*")
    mine, other = dict(_leaves(ours, "$")), dict(_leaves(theirs, "$"))
    lines, used = [], set()
    for path in sorted(mine.keys() | other.keys()):
        left, right = mine.get(path, "absent"), other.get(path, "absent")
        if left == right:
            continue
        found = next((each for each in allowed if _pattern(each.path).fullmatch(path)), None)
        if found is None:
            lines.append(f"{shape}: {path}: ours {left!r:.80}, {sdk} {right!r:.80}")
        else:
            used.add(found)
    return Comparison(lines, frozenset(used))


@cache
def _pattern(path: str) -> re.Pattern[str]:
    # A path that is a whole object or list covers what is inside, unless it ends in "=".
    if path == "*":
        return re.compile(".*")
    inside = "" if path.endswith("=") else r"(?:[.\[].*)?"
    return re.compile(re.escape(path.removesuffix("=")).replace(r"\[\*\]", r"\[\d+\]") + inside)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, (type(value).__name__, value)
