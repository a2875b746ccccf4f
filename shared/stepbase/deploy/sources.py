"""Reads the files of a folder that go into an image, and knows which stay at home.

What is hidden, made by tools, or looks like a secret never gets into an image; where somebody might miss it,
it is told. Links are followed to files of the project alone: an image must not hold what lies elsewhere on
the machine that built it.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stepbase.deploy.errors import DeployError

MOST_BYTES = 100 * 1024 * 1024
"""Of a folder's files; larger data belongs into Storage, and images of this size start slowly."""

_TOOLS = frozenset({"__pycache__", "node_modules", "tests"})
_SECRETIVE = re.compile(
    r".*\.(env|pem|key|p12|pfx|jks|keystore|kdbx|ppk)|id_(rsa|dsa|ecdsa|ed25519)(\.pub)?"
    r"|(service[-_]?account|credentials?|client_secret)[^/]*\.json|\.(netrc|npmrc|pypirc|pgpass)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        files: Contents by path, from the folder.
        left_out: Paths of files that look like secrets, and of environments of Python.
    """

    files: dict[str, bytes]
    left_out: tuple[str, ...]


def read(root: Path, folder: Path) -> Found:
    """Read a folder of the project at `root`.

    Raises:
        DeployError: If a link leads out of the project or to a folder, a name is no text, a file cannot be
            read, or all of it is too large.
    """
    files: dict[str, bytes] = {}
    left_out: list[str] = []
    size = 0
    home = (root.resolve(), folder.resolve())
    for path in sorted(_paths(folder, left_out)):
        name = path.relative_to(folder).as_posix()
        if is_secret(path.name) or is_secret(os.path.basename(os.path.realpath(path))):
            left_out.append(name)
            continue
        _check(path, name, folder, home)
        try:
            status = path.stat()
            size += status.st_size
            if size > MOST_BYTES:
                break
            if stat.S_ISREG(status.st_mode):
                files[name] = path.read_bytes()
        except OSError as error:
            raise DeployError(f"{_shown(folder, name)} cannot be read: {error.strerror}") from error
    if size > MOST_BYTES:
        raise DeployError(
            f"{folder.name} has more than {MOST_BYTES // 1024**2} MiB: put data into Storage or a table, and "
            "take out what is no code"
        )
    return Found(files, tuple(sorted(left_out)))


def is_secret(name: str) -> bool:
    """Say whether a file's name looks like that of a secret."""
    return name.lower().startswith(".env") or _SECRETIVE.fullmatch(name) is not None


def _paths(folder: Path, left_out: list[str]) -> Iterator[Path]:
    """Yield the files and links; folders that stay at home are not even listed."""

    def stop(error: OSError) -> None:
        raise DeployError(f"{error.filename} cannot be read: {error.strerror}") from error

    for at, folders, names in os.walk(folder, onerror=stop):
        here = Path(at)
        for each in list(folders):
            if (here / each / "pyvenv.cfg").exists():
                left_out.append(f"{(here / each).relative_to(folder).as_posix()}/")
                folders.remove(each)
            elif each.startswith(".") or each in _TOOLS:
                folders.remove(each)
            elif (here / each).is_symlink():
                folders.remove(each)
                yield here / each
        for each in names:
            is_hidden = each.startswith(".") and not is_secret(each)
            if not is_hidden and not each.endswith(".pyc"):
                yield here / each


def _check(path: Path, name: str, folder: Path, home: tuple[Path, Path]) -> None:
    """Raise if no image can have this file."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DeployError(f"{_shown(folder, name)}: its name is no UTF-8: rename it") from error
    if not path.is_symlink():
        return
    where = Path(os.path.realpath(path))  # which, unlike `resolve`, knows links to themselves
    if not any(each in where.parents for each in home):
        raise DeployError(
            f"{_shown(folder, name)} is a link to {where}, outside of the project: put a copy there"
        )
    inside = next(where.relative_to(each) for each in home if each in where.parents)
    if any(part.startswith(".") for part in inside.parts):
        raise DeployError(f"{_shown(folder, name)} is a link to what is hidden: put a copy there")
    if not where.is_file():
        what = "a folder, which no image would have" if where.is_dir() else "nothing"
        raise DeployError(f"{_shown(folder, name)} is a link to {what}: put a copy there")


def _shown(folder: Path, name: str) -> str:
    return f"{folder.parent.name}/{folder.name}/{name}".encode("utf-8", "backslashreplace").decode()
