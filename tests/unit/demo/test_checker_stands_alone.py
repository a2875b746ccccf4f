"""The checker judges the framework, so it must not be made of it."""

import ast
import sys
from pathlib import Path

import stepbase.demo

CHECKER = Path(stepbase.demo.__file__).with_name("checker.py")


def test_the_checker_imports_the_standard_library_and_asyncpg_alone() -> None:
    found: set[str] = set()
    for node in ast.walk(ast.parse(CHECKER.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found.add(str(node.module).partition(".")[0])

    assert found - set(sys.stdlib_module_names) == {"asyncpg"}


def test_the_checker_loads_nothing_by_name() -> None:
    text = CHECKER.read_text("utf-8")

    assert "importlib" not in text and "__import__" not in text and "exec(" not in text
