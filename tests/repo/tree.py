"""The repository's files, as its rules look at them."""

import ast
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "shared" / "stepbase", ROOT / "shared" / "rewards")
MIGRATIONS = ROOT / "supabase" / "migrations"

_SKIPPED = {"build", "dist", "node_modules", "site", "__pycache__"}
_DOTTED = {".ci", ".github", ".gitignore"}


@cache
def files() -> tuple[Path, ...]:
    """Return every file that belongs to the project: what tools and virtual environments made does not."""
    return tuple(sorted(_walk(ROOT)))


def _walk(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name in _SKIPPED or (entry.name.startswith(".") and entry.name not in _DOTTED):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def shown(path: Path) -> str:
    """Return a path as messages write it: from the root, with forward slashes."""
    return path.relative_to(ROOT).as_posix()


def python(*folders: str) -> list[Path]:
    """Return the Python files below these top-level folders."""
    return [
        path
        for path in files()
        if path.suffix == ".py" and shown(path).startswith(tuple(f"{name}/" for name in folders))
    ]


@cache
def parsed(path: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """Return the import name of a module under `shared/`."""
    parts = path.relative_to(ROOT / "shared").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def assert_none(found: Iterable[object]) -> None:
    """Fail if anything was found, and show all of it, one a line."""
    listed = [str(each) for each in found]
    assert not listed, "\n" + "\n".join(listed)
