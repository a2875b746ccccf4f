"""Changes to a project's files: worked out first, then shown, then made."""

import difflib
import os
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbase.scaffold.errors import ScaffoldError

CONFIG = Path("supabase") / "config.toml"


@dataclass(frozen=True, slots=True)
class Change:
    """One file to make or to change.

    Attributes:
        path: From the project's folder.
        after: The whole text it is to have.
        before: The text it has; None if there is no such file.
    """

    path: Path
    after: str
    before: str | None = None

    @property
    def is_new(self) -> bool:
        """Whether there is no such file yet."""
        return self.before is None

    def diff(self) -> str:
        """Return what changes, as `diff -u` shows it."""
        name = self.path.as_posix()
        before, after = (
            (text or "").splitlines(keepends=True) for text in (self.before, self.after)
        )
        lines = difflib.unified_diff(before, after, name, name)
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in lines
        )


def make(project: Path, changes: Sequence[Change]) -> None:
    """Make them all, or say what is in the way and make none.

    Raises:
        ScaffoldError: a new file is there, or a file is not as it was when its change was worked out.
        OSError: the folder cannot be written to.
    """
    for change in changes:
        if read(project / change.path) != change.before:
            raise ScaffoldError(
                f"{project / change.path} "
                + ("exists already" if change.is_new else "has changed meanwhile")
                + "; nothing was written"
            )
    for change in changes:
        path = project / change.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if change.is_new:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(change.after)
        else:
            _replace(path.resolve(), change.after)


def read(path: Path) -> str | None:
    """Return a file's text with the line ends it has, or None if there is no such file.

    Raises:
        ScaffoldError: it is no text in UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ScaffoldError(f"{path} is not UTF-8 text ({error}); nothing was written") from error


def with_tables(text: str, tables: str, where: str) -> str:
    """Return a TOML document with further tables at its end; what is there stays byte for byte.

    Tables that it has already are left out.

    Args:
        tables: One or more tables with headers, blank lines between them.
        where: What the document is, for messages.

    Raises:
        ScaffoldError: the document is no TOML, or cannot take the tables at its end.
    """
    known = _toml(text, where)
    wanted = [
        table
        for table in tables.strip("\n").split("\n\n")
        if not _has(known, tomllib.loads(table + "\n"))
    ]
    if not wanted:
        return text
    joined = with_lines(text, ["", *"\n\n".join(wanted).splitlines()])
    whole: dict[str, Any] = known
    for table in wanted:
        whole = _merged(whole, tomllib.loads(table + "\n"))
    # An inline table or a dotted key may already own the header: better no change than a broken file.
    try:
        fits = tomllib.loads(joined) == whole
    except tomllib.TOMLDecodeError:
        fits = False
    if not fits:
        raise ScaffoldError(
            f"{where} cannot take this at its end; add it by hand:\n" + "\n\n".join(wanted)
        )
    return joined


def with_lines(text: str, lines: Iterable[str]) -> str:
    """Return a text with further lines, ending them as the text's own lines end."""
    end = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += end
    return text + "".join(line + end for line in lines)


def _replace(path: Path, text: str) -> None:
    """Write a file anew in one go, with the rights it has."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(scratch, path.stat().st_mode & 0o7777)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScaffoldError(f"{where} is no TOML: {error}") from error


def _has(document: dict[str, Any], table: dict[str, Any]) -> bool:
    """Say whether the document has the (innermost) table, whatever is in it."""
    while len(table) == 1 and isinstance(inner := next(iter(table.values())), dict):
        [key] = table
        if key not in document:
            return False
        if not isinstance(document[key], dict):
            return True
        document, table = document[key], inner
    return True


def _merged(document: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    both = dict(document)
    for key, value in table.items():
        known = both.get(key)
        both[key] = (
            _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
        )
    return both
