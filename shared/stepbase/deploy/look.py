"""Looks at what function folders define, in a process of its own.

A folder's code runs when it is loaded, so it is kept away from the deploy's process and its keys. The child
prints one line of JSON for each; what a folder itself prints goes to stderr.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepbase import config
from stepbase.deploy.errors import DeployError
from stepbase.deploy.redact import Redactor

_SECONDS = 60
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
_SOURCES = "shared"


@dataclass(frozen=True, slots=True)
class FunctionSeen:
    """One function: its wire form, and how many steps its handler has (`executions.Steps`)."""

    slug: str
    wire: Mapping[str, Any]
    steps: int
    is_least: bool


@dataclass(frozen=True, slots=True)
class Folder:
    """A function folder, or what is wrong with it.

    Attributes:
        name: The folder's name.
        path: Where it is.
        app_id: The id of its app; None if it has none, as a front door for users.
        functions: The app's functions.
        broken: Why it cannot be loaded, or None.
    """

    name: str
    path: Path
    app_id: str | None = None
    functions: tuple[FunctionSeen, ...] = field(default=())
    broken: str | None = None


def paths(root: Path) -> list[Path]:
    """Return the function folders under `root/functions`, by name; hidden ones are nobody's."""
    found = (path.parent for path in root.glob("functions/*/main.py"))
    return sorted(path for path in found if not path.name.startswith("."))


def bare_environment() -> dict[str, str]:
    """Return what a program needs of our environment, without anything that was set for us."""
    ours = config.environment()
    return {name: ours[name] for name in _PASSED_ON if name in ours}


def find(root: Path, chosen: Sequence[str] = ()) -> list[Path]:
    """Return the function folders under `root/functions`, or the chosen ones.

    Raises:
        DeployError: If there is none, or no such one.
    """
    known = {path.name: path for path in paths(root)}
    missing = [name for name in chosen if name not in known]
    if missing or not known:
        there = ", ".join(sorted(known)) or "no folder with a main.py"
        raise DeployError(
            f"no function folder {', '.join(missing) or 'at all'}: functions/ has {there}"
        )
    return [known[name] for name in sorted(set(chosen) or known)]


def look(root: Path, paths: Sequence[Path], own: Mapping[str, str] | None = None) -> list[Folder]:
    """Load the folders in one process; if that does not get to its end, each in one of its own.

    Args:
        own: The project's own variables for functions, which a folder may read while it is loaded.
    """
    seen = _ask(root, paths, own or {})
    if len(seen) == len(paths):
        return [_folder(path, each) for path, each in zip(paths, seen, strict=True)]
    found = []
    for path in paths:
        alone = _ask(root, [path], own or {})
        broken = f"it ends the process that loads it, or takes more than {_SECONDS} s"
        found.append(_folder(path, alone[0] if alone else {"broken": broken}))
    return found


def _ask(root: Path, paths: Sequence[Path], own: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what the child says of each folder, as far as it gets; what it complains of goes to stderr."""
    inherited = config.environment().get("PYTHONPATH", "").split(":")
    sources = [str(root / _SOURCES), *filter(None, inherited)]
    ours = {"PYTHONPATH": ":".join(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "stepbase.deploy.look", *map(str, paths)],
            env={**own, **bare_environment(), **ours},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return []
    redacted = Redactor(own.values())
    sys.stderr.write(redacted(done.stderr))
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        {**each, "broken": redacted(each["broken"])} if "broken" in each else each for each in seen
    ]


def _folder(path: Path, seen: Mapping[str, Any]) -> Folder:
    if "broken" in seen:
        return Folder(path.name, path, broken=seen["broken"])
    functions = tuple(FunctionSeen(**each) for each in seen["functions"])
    return Folder(path.name, path, seen["app_id"], functions)


def describe(path: Path) -> dict[str, Any]:
    """Load a folder in this process; return what `Folder` is made of."""
    from stepbase.deploy.executions import steps_of
    from stepbase.local import folders
    from stepbase.local.errors import HostError
    from stepbase.sdk.app import App

    try:
        app = folders.load(path).app
    except HostError as error:
        return {"broken": str(error)}
    if app is None:
        return {"app_id": None, "functions": []}
    if not isinstance(app, App):
        return {"broken": f"{path / 'main.py'}: main.app is {app!r}, not a stepbase App"}
    functions = []
    for function in app.functions.values():
        [wire, *_] = function.wire("https://example.com/")
        steps = steps_of(function.handler)
        functions.append(
            {"slug": function.slug, "wire": wire, "steps": steps.count, "is_least": steps.is_least}
        )
    return {"app_id": app.id, "functions": functions}


def _main(paths: Sequence[str]) -> None:
    """Print a line for each folder; what a folder's code prints goes elsewhere, by whatever way."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for path in paths:
        out.write(json.dumps(describe(Path(path))) + "\n")
        out.flush()


if __name__ == "__main__":
    _main(sys.argv[1:])
