"""Lays out generated Python as ruff's formatter does, so that formatting it changes nothing. Pure.

Only what generated modules consist of: calls, signatures, literals of dicts, imports, docstrings.
"""

import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

INDENT = "    "


@dataclass(frozen=True, slots=True)
class Bracket:
    """Something in brackets: its head and opening bracket, its items, its closing bracket and tail.

    Attributes:
        is_display: Whether it is a literal of a dict, whose items never share a line of their own.
        has_comma: Whether a comma follows the last item when each has its line; subscripts of one have none.
    """

    head: str
    items: Sequence["str | Bracket"]
    tail: str
    is_display: bool = False
    has_comma: bool = True

    def flat(self) -> str:
        """Return it on one line."""
        return self.head + ", ".join(_flat(item) for item in self.items) + self.tail


def _flat(item: "str | Bracket") -> str:
    return item if isinstance(item, str) else item.flat()


def lay_out(item: "str | Bracket", width: int, depth: int = 0, after: str = "") -> list[str]:
    """Return the lines of something: on one if it fits, its items on one, or an item a line.

    Args:
        depth: How many levels it is indented.
        after: What follows on its last line, a comma perhaps.
    """
    indent = INDENT * depth
    line = f"{indent}{_flat(item)}{after}"
    if isinstance(item, str) or len(line) <= width or not item.items:
        return [line]
    together = f"{indent}{INDENT}{', '.join(_flat(each) for each in item.items)}"
    if not item.is_display and len(together) <= width:
        inner = [together]
    else:
        comma = "," if item.has_comma else ""
        inner = [text for each in item.items for text in lay_out(each, width, depth + 1, comma)]
    return [f"{indent}{item.head}", *inner, f"{indent}{item.tail}{after}"]


def docstring(text: str, width: int, depth: int) -> list[str]:
    """Return the lines of a docstring; only lines that are too long are broken."""
    indent = INDENT * depth
    safe = text.replace("\\", "\\\\").replace('"""', "'''")
    given = inspect.cleandoc(safe).rstrip().splitlines() or [""]
    opening = '""" ' if given[0].startswith('"') else '"""'
    if len(given) == 1:
        width -= 4  # the closing quotes stay on the line of a docstring that has but one
    lines = [
        line
        for number, each in enumerate(given)
        for line in _wrapped(each.rstrip(), width, indent, opening if number == 0 else "")
    ]
    if len(lines) == 1:
        space = " " if lines[0].endswith('"') else ""  # four quotes in a row end it too early
        return [f'{lines[0]}{space}"""']
    return [*lines, f'{indent}"""']


def _wrapped(line: str, width: int, indent: str, opening: str) -> list[str]:
    words = line.lstrip()
    further = indent + " " * (len(line) - len(words))
    filled = textwrap.wrap(
        words,
        width,
        initial_indent=further + opening,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled or [f"{indent}{opening}".rstrip()]
