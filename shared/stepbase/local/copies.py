"""The framework's migrations as copies in somebody's project: their names, and which one each is. Pure.

The Supabase CLI applies what comes after the last migration that a database has, and refuses what comes
before it. A framework file keeps the number it was written with, which in a project of some age would
come before; its copy therefore gets a number after all others of the project:
``20261124000140_ingest.sql`` becomes ``<version>_stepbase_ingest.sql``. The names of framework files
are unique (`tests/repo/test_migrations.py`), so a copy's name says which one it is, and a file and its
copy are one migration: a database that has either of them has it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from stepbase.local.errors import MigrationError

_FILE = re.compile(r"(?P<version>\d+)_(?P<name>.+)\.sql")
_MARK = "stepbase_"
_STAMP = "%Y%m%d%H%M%S"
_DIGITS = 14
_STEP = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Framework:
    """The framework's migrations: their versions by what follows it in the file's name."""

    versions: Mapping[str, str]

    @classmethod
    def of(cls, files: Iterable[str]) -> Self:
        """Make it of the files' names."""
        return cls({name: version for version, name in map(parsed, files)})

    def identity(self, version: str, name: str) -> str:
        """Return which migration this is: the framework's version of it for a file of the framework or
        its copy, something else for any other.

        An old record may lack the name. A project may have a number that is one of ours by chance.
        """
        if name.startswith(_MARK) and name.removeprefix(_MARK) in self.versions:
            return self.versions[name.removeprefix(_MARK)]
        if not name or self.versions.get(name) == version:
            return version
        return f"{version}_{name}"

    def is_copy(self, version: str, name: str) -> bool:
        """Say whether a migration is a copy of one of the framework's files."""
        return self.identity(version, name) not in (version, f"{version}_{name}")


def parsed(file: str) -> tuple[str, str]:
    """Return version and name of a migration by its file's name.

    Raises:
        MigrationError: it is not ``<number>_<name>.sql``.
    """
    match = _FILE.fullmatch(file)
    if match is None:
        raise MigrationError(f"{file}: migrations are named <number>_<name>.sql")
    return match["version"], match["name"]


def copy_names(
    originals: Iterable[str], theirs: Iterable[str], now: datetime, before: str | None = None
) -> dict[str, str]:
    """Return names for copies of `originals`, in their order, after all of `theirs`.

    They are a second apart and end now, so that what `supabase migration new` makes next comes after
    them; they begin later only if the project's last migration leaves no room.

    Args:
        now: Of UTC, which the Supabase CLI uses too.
        before: The one of `theirs` that needs them already: they come before it and after those before it.

    Raises:
        MigrationError: there is no room: a number that nothing dated can follow, or too few seconds.
    """
    wanted = sorted(originals)
    length = _STEP * len(wanted)
    first = now.astimezone(UTC).replace(microsecond=0) - length + _STEP
    if before is not None:
        first = min(first, _time(before) - length)
    last = max((file for file in theirs if before is None or file < before), default=None)
    if last is not None and last.partition("_")[0] >= first.strftime(_STAMP):
        first = _time(last) + _STEP
    if before is not None and first + length > _time(before):
        raise MigrationError(
            f"supabase/migrations/{before} uses what {len(wanted)} migrations of stepbase make, and "
            f"{last} leaves it too little room before it: give {before} a later number"
        )
    return {
        file: f"{(first + _STEP * i).strftime(_STAMP)}_{_MARK}{parsed(file)[1]}.sql"
        for i, file in enumerate(wanted)
    }


def _time(file: str) -> datetime:
    """Return the time that a migration's number stands for."""
    version = file.partition("_")[0]
    try:
        if len(version) != _DIGITS:
            raise ValueError(version)
        return datetime.strptime(version, _STAMP).replace(tzinfo=UTC)
    except ValueError as error:
        raise MigrationError(
            f"supabase/migrations/{file}: {version} is no time, so no number can be put beside it; "
            "migrations are numbered by when they were made: YYYYMMDDhhmmss"
        ) from error
