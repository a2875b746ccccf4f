"""How many steps a handler has, read from its source: what a plan that counts executions will count.

An upper bound for straight code (both branches of an `if` count), a lower one where a step is in a loop.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

VERBS = frozenset(
    {
        "fetch", "infer", "invoke", "rpc", "run", "send_event", "send_signal", "sleep", "sleep_until",
        "insert", "upsert", "update", "delete", "wait_for_event", "wait_for_signal", "wrap",
    }
)  # fmt: skip
"""The step's methods that are steps; `parallel`, `race`, `timeout`, `patch` and keys are none."""

_LOOPS = (
    ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steps:
    """How many there are, and whether it may be more: some are in a loop, or the source is not known."""

    count: int
    is_least: bool


def steps_of(handler: Callable[..., Any]) -> Steps:
    """Count the steps in a handler's source; helpers it calls are not looked into."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(handler)))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return Steps(0, is_least=True)
    counter = _Counter()
    counter.visit(tree)
    return Steps(counter.count, counter.is_least)


class _Counter(ast.NodeVisitor):
    """Counts calls like `step.rpc(…)` and `step.table(…).insert(…)`."""

    def __init__(self) -> None:
        self.count = 0
        self.is_least = False
        self._depth = 0

    def visit(self, node: ast.AST) -> None:
        is_loop = isinstance(node, _LOOPS)
        self._depth += is_loop
        if isinstance(node, ast.Call):
            self._call(node)
        self.generic_visit(node)
        self._depth -= is_loop

    def _call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and _root(function) == "step":
            if function.attr in VERBS:
                self.count += 1
                self.is_least |= self._depth > 0
        elif any(isinstance(each, ast.Name) and each.id == "step" for each in node.args):
            self.is_least = True  # a helper that may have steps of its own


def _root(node: ast.expr) -> str | None:
    """Return the name that an attribute chain begins with: `step` for `step.ai.infer`."""
    while True:
        match node:
            case ast.Attribute(value=value):
                node = value
            case ast.Call(func=value):
                node = value
            case ast.Name(id=name):
                return name
            case _:
                return None
