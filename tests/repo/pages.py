"""The documentation as data: pages, their fenced blocks, and what tests are told about them.

A block may name a file (```python file=functions/hello/main.py). An HTML comment `<!-- test: {…} -->` after a
block is for the tests alone:

    {"run": slug, "data": {…}, "gives": …}   calls the function until its run ends; "fails" names the error
                                             instead, "ops" lists what was reported, "answers" are the
                                             memos of steps that a server does, by step id
    {"raises": "SB001"}                      the SQL block above fails with that SQLSTATE
    {"rows": [[…], …]}                       the last statement of the SQL block above returns these rows
    {"belongs_to": "project"}                the database is that project's when the SQL block above begins
    {"shows": "output"}                      the text block above is what a command prints
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.repo.tree import ROOT, shown

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"^<!-- test: (?P<json>.*) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: Where its text begins, from 1.
        file: The file it is the content of, or None.
        notes: What tests are told, in order.
    """

    page: str
    line: int
    language: str
    file: str | None
    text: str
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{self.page}:{self.line}"


@cache
def pages() -> tuple[Path, ...]:
    """Return what users read: README, CONTRIBUTING and everything under docs/, decisions included."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return tuple(sorted(found))


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """Return a page's fenced blocks in order."""
    text = page.read_text("utf-8")
    marks = [(m.start(), m) for m in _FENCE.finditer(text)]
    marks += [(m.start(), m) for m in _NOTE.finditer(text)]
    found: list[Block] = []
    for start, match in sorted(marks, key=lambda mark: mark[0]):
        if match.re is _NOTE:
            found[-1].notes.append(json.loads(match["json"]))
            continue
        language, *options = match["info"].split() or [""]
        named = [option.removeprefix("file=") for option in options if option.startswith("file=")]
        line = text.count("\n", 0, start) + 2
        file = named[0] if named else None
        found.append(Block(shown(page), line, language, file, match["text"]))
    return tuple(found)


def prose(page: Path) -> str:
    """Return a page's text without its fenced blocks and without comments."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def as_json(value: Any) -> Any:
    """Return a column of a row as a page's JSON would have it."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value if isinstance(value, int | float | None) else str(value)
