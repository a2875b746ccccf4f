"""Expressions evaluated: a maintained CEL library, with Inngest's dialect at the edges.

A missing attribute is null; null compared with a number counts as 0. An expression must give a
boolean: anything else, and any error, means "no", with a log line that says why.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cel

from stepbase.engine import celtext
from stepbase.engine.celtext import PathKey
from stepbase.errors import ProtocolError
from stepbase.protocol import jsontext

_log = logging.getLogger("stepbase.engine.expr")
_ROOTS = frozenset({"event", "async", "vars"})


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression and the paths it reads, one per variable."""

    source: str
    program: cel.Program
    paths: tuple[tuple[str, tuple[PathKey, ...]], ...]

    def is_true(self, roots: Mapping[str, object]) -> bool:
        """Evaluate over e.g. `{"event": …, "async": …}`; True only for the boolean true."""
        values = {name: celtext.lookup(roots, keys) for name, keys in self.paths}
        try:
            result = self._run(values)
        except (
            Exception
        ) as error:  # the library raises TypeError, ValueError, RuntimeError, KeyError
            _log.warning(
                "expression could not be evaluated and counts as false",
                extra={"expression": self.source, "reason": str(error)[:200]},
            )
            return False
        if not isinstance(result, bool):
            _log.warning(
                "expression must give true or false and counts as false",
                extra={"expression": self.source, "type": type(result).__name__},
            )
        return result is True

    def _run(self, values: dict[str, object]) -> object:
        try:
            return self.program.execute(values)
        except TypeError:
            if None not in values.values():
                raise
            # Inngest's dialect: null compared with a number is 0.
            return self.program.execute({k: 0 if v is None else v for k, v in values.items()})


@lru_cache(maxsize=10_000)
def compile_expression(source: str) -> Expression:
    """Compile once; the cache holds 10,000.

    Raises:
        ProtocolError: If it is not CEL; the message shows where.
    """
    paths: dict[tuple[PathKey, ...], str] = {}

    def variable(keys: tuple[PathKey, ...]) -> str | None:
        return paths.setdefault(keys, f"v{len(paths)}") if keys[0] in _ROOTS else None

    text = celtext.replace_paths(source, variable)
    try:
        program = cel.compile(text)
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise ProtocolError(
            f"not a valid CEL expression: {source!r:.200} ({reason})", code="invalid_expression"
        ) from error
    return Expression(source, program, tuple((name, keys) for keys, name in paths.items()))


def holds(source: str, roots: Mapping[str, object]) -> bool:
    """Compile (or take from the cache) and evaluate."""
    return compile_expression(source).is_true(roots)


def literal(value: object) -> str:
    """Write a JSON value as a CEL literal."""
    return jsontext.dumps(value)
