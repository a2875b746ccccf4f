"""Expressions evaluated: a maintained CEL library, with Inngest's dialect at the edges.

A missing attribute is null; where a number is asked for (`<`, `>=`, `+` and the like beside it) null
counts as 0. An expression must give a boolean: anything else, and any error, means "no", with a log
line that says why.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cel

from stepbase.engine import celtext
from stepbase.engine.celtext import PathKey, Use
from stepbase.errors import ProtocolError

_log = logging.getLogger("stepbase.engine.expr")
_ROOTS = frozenset({"event", "async", "vars"})
# The library's parser recurses: from some 30,000 characters on it can take the process down.
_MAX_CHARS = 8192


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression and the paths it reads, one per variable."""

    source: str
    program: cel.Program
    paths: tuple[tuple[str, tuple[PathKey, ...], Use], ...]

    def value(self, roots: Mapping[str, object]) -> object:
        """Evaluate over e.g. `{"event": …, "async": …}`; None if that fails, with a log line."""
        is_there, result = self._evaluate(roots, "null")
        return result if is_there else None

    def is_true(self, roots: Mapping[str, object]) -> bool:
        """Evaluate; True only for the boolean true."""
        is_there, result = self._evaluate(roots, "false")
        if is_there and not isinstance(result, bool):
            _log.warning(
                "expression must give true or false and counts as false",
                extra={"expression": self.source, "type": type(result).__name__},
            )
        return result is True

    def _evaluate(self, roots: Mapping[str, object], counts_as: str) -> tuple[bool, object]:
        values = {name: _value(celtext.lookup(roots, keys), use) for name, keys, use in self.paths}
        try:
            return True, self.program.execute(values)
        except Exception as error:  # TypeError, ValueError, RuntimeError, KeyError: no common root
            _log.warning(
                f"expression could not be evaluated and counts as {counts_as}",
                extra={"expression": self.source, "reason": str(error)[:200]},
            )
            return False, None


def _value(value: object, use: Use) -> object:
    if use == "presence":
        return value is not None
    return 0 if value is None and use == "number" else value


@lru_cache(maxsize=10_000)
def compile_expression(source: str) -> Expression:
    """Compile once; the cache holds 10,000.

    Raises:
        ProtocolError: If it is not CEL, or too long; the message shows where.
    """
    if len(source) > _MAX_CHARS:
        raise ProtocolError(
            f"an expression has {len(source)} characters, {_MAX_CHARS} are allowed: {source!r:.60}",
            code="invalid_expression",
        )
    paths: dict[tuple[tuple[PathKey, ...], Use], str] = {}

    def variable(keys: tuple[PathKey, ...], use: Use) -> str | None:
        return paths.setdefault((keys, use), f"v{len(paths)}") if keys[0] in _ROOTS else None

    text = celtext.replace_paths(source, variable)
    try:
        program = cel.compile(text)
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise ProtocolError(
            f"not a valid CEL expression: {source!r:.200} ({reason})", code="invalid_expression"
        ) from error
    return Expression(source, program, tuple((name, *path) for path, name in paths.items()))


def holds(source: str, roots: Mapping[str, object]) -> bool:
    """Compile (or take from the cache) and evaluate; what does not compile is false.

    Expressions are compiled when an app syncs, so that one only fails here if the library changed
    since; an event must not be refused for it.
    """
    try:
        compiled = compile_expression(source)
    except ProtocolError as error:
        _log.error("stored expression counts as false", extra={"reason": str(error)})
        return False
    return compiled.is_true(roots)


def value_of(source: str, roots: Mapping[str, object]) -> object:
    """As `holds`, for an expression that gives any value; what does not compile is None."""
    try:
        compiled = compile_expression(source)
    except ProtocolError as error:
        _log.error("stored expression counts as null", extra={"reason": str(error)})
        return None
    return compiled.value(roots)
