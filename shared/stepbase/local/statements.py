"""Splits an SQL script into statements and knows the line each begins on. Pure.

Only what decides where a statement ends is understood: quotes, dollar quotes, comments and the
`begin atomic … end` body of an SQL-standard function. Everything else is PostgreSQL's business.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | --[^\n]* )
  | (?P<comment> /\* )
  | (?P<dollar> \$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$ )
  | (?P<escape> [eE]'(?:[^'\\]|\\.|'')*' )
  | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" )
  | (?P<end> ; )
  | (?P<word> [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, without its semicolon, and the line (from 1) it begins on."""

    text: str
    line: int


def split(script: str) -> Iterator[Statement]:
    """Yield the statements of `script` in order; text that never ends belongs to the last."""
    begin: int | None = None
    position = 0
    words: list[str] = []
    while position < len(script):
        match = _TOKEN.match(script, position)
        assert match is not None, "the last alternative takes any character"
        kind, position = match.lastgroup, match.end()
        if kind == "comment":
            position = _after_comment(script, position)
        if kind in ("space", "comment"):
            continue
        if kind == "end" and not _in_atomic_body(words):
            if begin is not None:
                yield _statement(script, begin, match.start())
            begin, words = None, []
            continue
        begin = match.start() if begin is None else begin
        if kind == "dollar":
            position = _after_dollar_quote(script, position, match[0])
        elif kind == "word":
            words.append(match[0].lower())
    if begin is not None:
        yield _statement(script, begin, len(script))


def _statement(script: str, begin: int, end: int) -> Statement:
    return Statement(script[begin:end].rstrip(), script.count("\n", 0, begin) + 1)


def _after_comment(script: str, position: int) -> int:
    """Return where the block comment opened before `position` ends; they nest in SQL."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(script, position)):
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position if not depth else len(script)


def _after_dollar_quote(script: str, position: int, quote: str) -> int:
    closing = script.find(quote, position)
    return len(script) if closing < 0 else closing + len(quote)


def _in_atomic_body(words: list[str]) -> bool:
    """Say whether a `begin atomic` body is still open after these words of a statement."""
    if words[:1] != ["create"] or "atomic" not in words:
        return False
    body = words[words.index("atomic") :]
    return body.count("end") <= body.count("case")
