"""Expressions as text: find the paths in a CEL expression, replace them, split it. Pure.

Inngest's dialect reads a missing attribute as null, where CEL raises. So every path that starts at a
root (`event.data.x`, `async.data["y"][0]`) is lifted out of the text before CEL sees it: `expr` binds
it to a variable whose value it looked up itself.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

PathKey = str | int
Use = Literal["value", "number", "presence"]

_NUMERIC = frozenset({"<", "<=", ">", ">=", "+", "-", "*", "/", "%"})

_TOKEN = re.compile(
    r"""
      (?P<string> [rR]?(?:"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*') )
    | (?P<path> (?<![\w.]) [A-Za-z_]\w*
        (?: \s*\.\s*[A-Za-z_]\w* | \s*\[\s*\d+\s*\]
          | \s*\[\s*"(?:[^"\\]|\\.)*"\s*\] | \s*\[\s*'[^'\\]*'\s*\] )* )
    | (?P<number> \d+(?:\.\d+)?(?:[eE][+-]?\d+)?u? )
    | (?P<op> && | \|\| | == | != | <= | >= | [<>()\[\]{}?:,!+\-*/%.] )
    | (?P<space> \s+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_PART = re.compile(
    r"""\.\s*(\w+) | \[\s*(\d+)\s*\] | \[\s*("(?:[^"\\]|\\.)*")\s*\] | \[\s*'([^'\\]*)'\s*\]""",
    re.X,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression; joining all `text`s gives the expression back.

    Attributes:
        kind: string, path, number, op, space or other.
        text: As written.
        keys: For a path: its root and the keys below it.
    """

    kind: str
    text: str
    keys: tuple[PathKey, ...] = ()


def tokenize(expression: str) -> list[Token]:
    """Cut an expression into tokens; a method call (`event.data.x.startsWith(`) ends its path early."""
    tokens: list[Token] = []
    for found in _TOKEN.finditer(expression):
        kind, text = found.lastgroup or "other", found.group()
        if kind != "path":
            tokens.append(Token(kind, text))
            continue
        is_call = expression[found.end() :].lstrip().startswith("(")
        head, method = _split_method(text) if is_call else (text, "")
        if head:
            tokens.append(Token("path", head, _keys(head)))
        if method:
            tokens.append(Token("other", method))
    return tokens


def _split_method(text: str) -> tuple[str, str]:
    dot = text.rfind(".")
    return (text[:dot], text[dot:]) if dot >= 0 else ("", text)


def _keys(text: str) -> tuple[PathKey, ...]:
    root = re.match(r"\w+", text)
    assert root is not None  # the token's regex starts with an identifier
    keys: list[PathKey] = [root.group()]
    for name, index, double, single in _PART.findall(text[root.end() :]):
        if index:
            keys.append(int(index))
        else:
            keys.append(name or (json.loads(double) if double else single))
    return tuple(keys)


def lookup(value: object, keys: tuple[PathKey, ...]) -> object:
    """Follow keys into a JSON value; None where there is nothing."""
    for key in keys:
        if isinstance(value, Mapping) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def replace_paths(
    expression: str, replacement: Callable[[tuple[PathKey, ...], Use], str | None]
) -> str:
    """Rewrite each path for which `replacement` returns a text; of `has(path)` all is replaced.

    Args:
        replacement: Told what the path is used for: a "number" beside a comparison of size or an
            arithmetic sign, "presence" in `has(…)`, else a "value".
    """
    tokens = tokenize(expression)
    out = [token.text for token in tokens]
    solid = [i for i, token in enumerate(tokens) if token.kind != "space"]
    texts = ["", "", *(out[i] for i in solid), ""]
    for n, i in enumerate(solid):
        if tokens[i].kind != "path":
            continue
        function, before, after = texts[n], texts[n + 1], texts[n + 3]
        is_has = (function, before, after) == ("has", "(", ")")
        is_number = before in _NUMERIC or after in _NUMERIC
        use: Use = "presence" if is_has else "number" if is_number else "value"
        new = replacement(tokens[i].keys, use)
        if new is None:
            continue
        out[i] = new
        if is_has:
            out[solid[n - 2]] = out[solid[n - 1]] = out[solid[n + 1]] = ""
    return "".join(out)


def conjuncts(expression: str) -> list[str]:
    """Split at the top-level `&&`; an expression with a top-level `||` or `?` is one conjunct."""
    parts: list[list[str]] = [[]]
    depth = 0
    tokens = tokenize(expression)
    if any(a.text == b.text == "/" for a, b in zip(tokens, tokens[1:], strict=False)):
        # What follows is a comment, and may hold anything.
        return [expression.strip()]
    for token in tokens:
        if token.kind == "op" and token.text in "([{":
            depth += 1
        elif token.kind == "op" and token.text in ")]}":
            depth -= 1
        elif depth == 0 and token.text in ("||", "?"):
            return [expression.strip()]
        elif depth == 0 and token.text == "&&":
            parts.append([])
            continue
        parts[-1].append(token.text)
    return ["".join(part).strip() for part in parts]


def roots(expression: str) -> set[str]:
    """Return the roots of all paths in an expression."""
    return {str(t.keys[0]) for t in tokenize(expression) if t.kind == "path"}
