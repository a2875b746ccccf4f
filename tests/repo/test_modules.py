"""Rules about our Python: sizes, ignored types, paths, dependencies."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from tests.repo.tree import PACKAGES, ROOT, assert_none, files, module_name, parsed, python, shown

STOP = 500
AIM = 300

MOST_IGNORED_TYPES = 8
"""`type: ignore` in what is shipped. Lower it when one goes; raise it only with a reason in the commit."""
MOST_IGNORED_TYPES_IN_TESTS = 36

BROUGHT_ALONG = {
    # What a dependency brings and is made of, used where that dependency is used.
    "flask": "functions-framework",  # its requests and responses
    "watchdog": "functions-framework",  # its reloader; `stepbase host --reload` watches with the same
    "postgrest": "supabase",  # its errors
    "typing_extensions": "pydantic",  # its types, for type checkers alone
}

MACHINE_PATHS = re.compile(
    r"(?<![\w.:~/-])/(?:root|home|Users|tmp|mnt|opt|srv|work|workspace|workspaces)/\w"
)
NAMED_ON_PURPOSE = {
    "shared/stepbase/local/account.py": "where a temporary folder may be",
}


def project() -> dict[str, object]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def lines_of(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_no_module_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {
        shown(path): lines_of(path) for path in python("shared", "functions", "bench", "scripts")
    }

    long = sorted(((n, name) for name, n in sizes.items() if n > AIM), reverse=True)
    with capsys.disabled():
        print(
            f"\nmodules over {AIM} lines:", ", ".join(f"{name} {n}" for n, name in long) or "none"
        )
    assert_none(f"{name} {n}" for n, name in long if n > STOP)


def test_ruff_holds_complexity_to_ten() -> None:
    ruff = project()["tool"]["ruff"]  # type: ignore[index]  # a table
    lint = ruff["lint"]

    assert "C90" in lint["select"]
    assert lint["mccabe"]["max-complexity"] <= 10
    allowed_anyway = [
        f"{shown(path)}: {line.strip()}"
        for path in python("shared", "functions", "bench")
        for line in path.read_text("utf-8").splitlines()
        if "noqa" in line and "C901" in line
    ]
    assert_none(allowed_anyway)


def ignored_types(*folders: str) -> list[str]:
    return [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in python(*folders)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"#\s*type:\s*ignore", line)
    ]


def test_ignored_types_do_not_become_more() -> None:
    found = ignored_types("shared", "functions", "bench")

    assert len(found) <= MOST_IGNORED_TYPES, "\n".join(found)
    assert len(ignored_types("tests")) <= MOST_IGNORED_TYPES_IN_TESTS


def test_every_ignored_type_says_which_and_why() -> None:
    vague = [
        each
        for each in ignored_types("shared", "functions", "bench")
        if not re.search(r"#\s*type:\s*ignore\[[a-z, -]+\]\s+#\s*\w", each)
    ]

    assert_none(vague)


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = []
    for path in files():
        name = shown(path)
        if name in NAMED_ON_PURPOSE or name.startswith("tests/vectors/"):
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match.group()}…" for match in MACHINE_PATHS.finditer(text)]

    assert_none(found)


def imports_of(path: Path) -> Iterator[str]:
    """Yield the top-level names of everything a module imports, lazily or not."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


def declared(*extras: str) -> set[str]:
    """Return the distributions that pyproject names, in lower case."""
    table = project()["project"]
    assert isinstance(table, dict)
    lists = [table["dependencies"]]
    lists += [table["optional-dependencies"][extra] for extra in extras]
    names = (re.match(r"[\w.-]+", each) for each in sum(lists, []))
    return {name.group().lower().replace("_", "-") for name in names if name}


@cache
def _providers() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def distributions(import_name: str) -> set[str]:
    """Return the distributions that provide an import name, in lower case."""
    return {each.lower().replace("_", "-") for each in _providers().get(import_name, [])}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("functions/*/requirements.txt")), ids=lambda path: path.parent.name
)
def test_a_function_folder_requires_what_stepbase_does(path: Path) -> None:
    required = {line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")}
    table = project()["project"]
    assert isinstance(table, dict)

    has_app = "serve(app)" in (path.parent / "main.py").read_text("utf-8")
    assert required <= set(table["dependencies"])
    assert required == set(table["dependencies"]) or not has_app


FUNCTION_SIDE = ("sdk", "supabase", "hosts", "protocol")
"""What a function folder gets with the plain distribution, without extras."""
EXTRAS_OF = {
    "engine": ("engine", "otel"),
    "middleware": ("encryption", "otel"),
    "testing": ("testing",),
}
"""Packages that need other extras than the engine's alone."""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_import_is_a_declared_dependency(package: Path) -> None:
    found = []
    for path in python("shared"):
        if package not in path.parents:
            continue
        parts = module_name(path).split(".")
        is_function_side = package.name == "rewards" or len(parts) < 3 or parts[1] in FUNCTION_SIDE
        extras = EXTRAS_OF.get(parts[1] if len(parts) > 1 else "", ("engine",))
        allowed = declared(*(() if is_function_side else extras))
        for name in set(imports_of(path)) - set(sys.stdlib_module_names) - {"stepbase", "rewards"}:
            if name in BROUGHT_ALONG and BROUGHT_ALONG[name] in allowed:
                continue
            if not distributions(name) & allowed:
                found.append(f"{shown(path)} imports {name}")

    assert_none(found)


@pytest.mark.parametrize(("name", "brought_by"), BROUGHT_ALONG.items())
def test_what_is_brought_along_really_is(name: str, brought_by: str) -> None:
    required = importlib.metadata.requires(brought_by) or []

    wanted = {re.split(r"[^\w.-]", each, maxsplit=1)[0].lower() for each in required}
    assert wanted & (distributions(name) | {name})
