"""The pins: `functions/requirements.lock`, the exact version of everything any folder installs.

One lock for all folders, made by pip for the image's Python, so that two folders never differ in what both
use. A staged folder installs the part of it that its `requirements.txt` needs.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from stepbase.deploy.errors import DeployError

FILE = "functions/requirements.lock"
PYTHON = "3.13"
_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
_HEAD = f"""\
# The exact versions that function folders install (Python {PYTHON}, Linux). Made by: stepbase deploy --lock
"""
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?:  # via (?P<via>.+))?")
_OURS, _EXTRA = "stepbase", "engine"
_BY_A_FOLDER = "requirements.txt"


@dataclass(frozen=True, slots=True)
class Pin:
    """A package's version, and the packages that need it."""

    name: str
    version: str
    via: tuple[str, ...] = ()


Lock = Mapping[str, Pin]


def requirements(text: str, where: str) -> list[Requirement]:
    """Parse a folder's requirements.txt.

    Raises:
        DeployError: If a line is not one package: options, URLs and other files cannot be pinned.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.partition("#")[0].strip()
        if not bare:
            continue
        try:
            requirement = Requirement(bare)
        except InvalidRequirement as error:
            raise DeployError(f"{where}:{number}: {bare!r} is no requirement: {error}") from error
        if requirement.url:
            raise DeployError(f"{where}:{number}: {bare!r} is an address, which no version pins")
        found.append(requirement)
    return found


def engine_requirements(root: Path) -> list[Requirement]:
    """Return what the engine needs: this repository's own extra, or that of the installed stepbase."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        project = {}
    if project.get("name") == _OURS:
        return [Requirement(each) for each in project["optional-dependencies"][_EXTRA]]
    found = [Requirement(each) for each in importlib.metadata.requires(_OURS) or []]
    return [
        each
        for each in found
        if each.marker is not None and each.marker.evaluate({"extra": _EXTRA})
    ]


def parse(text: str, where: str = FILE) -> dict[str, Pin]:
    """Parse a lock; the keys are normalised names.

    Raises:
        DeployError: If a line is no pin.
    """
    pins: dict[str, Pin] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line.strip())
        if match is None:
            raise DeployError(f"{where}:{number}: {line!r} is no pin; expected name==version")
        via = tuple((match["via"] or "").split(", ")) if match["via"] else ()
        pins[canonicalize_name(match["name"])] = Pin(match["name"], match["version"], via)
    return pins


def unpinned(wanted: Iterable[Requirement], lock: Lock) -> list[str]:
    """Return what the lock does not pin, or pins to a version that is not allowed, in words."""
    problems = []
    for requirement in wanted:
        pin = lock.get(canonicalize_name(requirement.name))
        if pin is None:
            problems.append(f"{requirement} is not pinned")
        elif not requirement.specifier.contains(pin.version, prereleases=True):
            problems.append(f"{requirement} does not allow the pinned {pin.name}=={pin.version}")
    return problems


def needed_for(wanted: Iterable[Requirement], lock: Lock) -> set[str]:
    """Return the normalised names of what is wanted and of all that it needs, as far as they are pinned."""
    chosen = {str(canonicalize_name(each.name)) for each in wanted} & lock.keys()
    while True:
        more = {name for name, pin in lock.items() if chosen & set(map(canonicalize_name, pin.via))}
        if more <= chosen:
            break
        chosen |= more
    return chosen


def pins_for(wanted: Iterable[Requirement], lock: Lock) -> str:
    """Return the staged requirements.txt: pins of what is wanted and of all that it needs."""
    names = sorted(needed_for(wanted, lock))
    return "".join(f"{lock[name].name}=={lock[name].version}\n" for name in names)


def make(wanted: Sequence[Requirement]) -> str:
    """Let pip choose versions for the image; returns the lock's text.

    Raises:
        DeployError: If pip finds none that fit together.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text("".join(f"{each}\n" for each in wanted), "utf-8")
        platforms = [word for each in _PLATFORMS for word in ("--platform", each)]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", scratch]
        options += ["--python-version", PYTHON, "--implementation", "cp", *platforms]
        done = subprocess.run(
            [*pip, *options, "--report", "-", "--requirement", str(file)],
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise DeployError(f"pip cannot choose versions:\n{done.stderr.strip()}")
    return _text(json.loads(done.stdout)["install"], wanted)


def _text(installed: Sequence[Mapping[str, Any]], wanted: Sequence[Requirement]) -> str:
    """Write what pip's report says it would install."""
    via: dict[str, set[str]] = {}
    for requirement in wanted:
        via.setdefault(canonicalize_name(requirement.name), set()).add(_BY_A_FOLDER)
    environment: dict[str, str] = {
        **{name: str(value) for name, value in default_environment().items()},
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }
    for each in installed:
        needing = each["metadata"]
        extras = [*each.get("requested_extras", []), ""]
        for text in needing.get("requires_dist", []):
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({**environment, "extra": e}) for e in extras):
                via.setdefault(canonicalize_name(needed.name), set()).add(needing["name"])
    lines = []
    for each in sorted(installed, key=lambda found: canonicalize_name(found["metadata"]["name"])):
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        because = ", ".join(sorted(via.get(canonicalize_name(name), set())))
        lines.append(f"{name}=={version}" + (f"  # via {because}" if because else "") + "\n")
    return _HEAD + "".join(lines)
