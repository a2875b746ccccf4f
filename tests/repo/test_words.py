"""One word per thing: names we define do not use the words we decided against (docs/concepts.md)."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from tests.repo.tree import MIGRATIONS, assert_none, parsed, python, shown

INSTEAD = {
    "service": "app",
    "job": "function, or queue item",
    "workflow": "function",
    "lambda": "function folder",
    "procedure": "SQL function",
    "publisher": "relay",
    "instance": "run",
    "execution": "run",
    "invocation": "call",
    "activity": "step",
    "checkpoint": "memo",
    "command": "op",
    "waiter": "pause",
    "waiters": "pauses",
    "registration": "sync",
    "vacuum": "sweep",
}

ALLOWED = {
    "checkpoint": ("the wire's word for steps reported while their call goes on", {
        "checkpoint", "checkpoints", "post_checkpoint", "Checkpoint", "_CHECKPOINT",
        "stepbase.checkpoint",
    }),
    "command": ("a command of a shell", {"command", "_command", "_COMMAND", "get_command", "Command"}),
    "job": ("the wire's name of a queue item's key", {"job", "job_id", "JOB_ID"}),
    "execution": ("one call while the SDK works on it; a version of the wire", {
        "execution", "Execution", "EXECUTION_VERSION", "before_execution", "after_execution",
    }),
    "invocation": ("how a statement calls an SQL function, in the gateway", {"invocation"}),
    "registration": ("the wire's word for the body of a sync", {"registration"}),
    "service": ("a role of Supabase; a process that serves one ASGI application", {
        "service_role", "service", "Service",
    }),
}  # fmt: skip

NO_FILE_NAMES = ("utils", "helpers", "common", "manager", "base", "lib", "misc")

_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def names() -> Iterator[tuple[str, str]]:
    """Yield (where, name) for everything our Python defines: modules, functions, classes, variables."""
    for path in python("shared", "functions"):
        yield shown(path), path.stem
        for node in ast.walk(parsed(path)):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    yield shown(path), node.name
                case ast.arg():
                    yield shown(path), node.arg
                case ast.Name(ctx=ast.Store()):
                    yield shown(path), node.id
                case ast.Attribute(ctx=ast.Store()):
                    yield shown(path), node.attr


def sql_names() -> Iterator[tuple[str, str]]:
    """Yield (where, name) for tables, functions, views, parameters and variables of our SQL."""
    pattern = re.compile(
        r"create (?:or replace )?(?:function|table|view|type) (?P<a>[\w.]+)|\b(?P<b>[pv]_\w+)"
    )
    for path in MIGRATIONS.glob("*.sql"):
        for match in pattern.finditer(path.read_text("utf-8")):
            yield shown(path), match["a"] or match["b"]


def words(name: str) -> set[str]:
    """Cut a name into its words, in lower case."""
    return {word.lower() for word in _WORD.findall(name)}


def test_names_use_our_words() -> None:
    found = set()
    for where, name in [*names(), *sql_names()]:
        for word in words(name) & INSTEAD.keys():
            if name not in ALLOWED.get(word, ("", set()))[1]:
                found.add(f"{where}: {name}: say {INSTEAD[word]}, not {word}")

    assert_none(sorted(found))


@cache
def _names_alone() -> set[str]:
    return {name for _, name in [*names(), *sql_names()]}


@pytest.mark.parametrize("word", ALLOWED)
def test_what_is_allowed_is_used(word: str) -> None:
    assert_none(ALLOWED[word][1] - _names_alone())


def test_no_module_is_a_drawer_for_everything() -> None:
    assert_none(
        shown(path)
        for path in python("shared", "functions")
        if words(path.stem) & set(NO_FILE_NAMES)
    )
