"""Brings a database up to date: Supabase's own objects, then the migrations, then seed data.

What was applied is recorded where the Supabase CLI records it, so `supabase db push` and
`stepbase db apply` can take turns on one database. The framework's files are known under their own
names and as a project's copies (`local/copies.py`): what was applied under one is not applied under
the other, and a project's name takes the place of ours in the record, for the CLI compares numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg

import stepbase
from stepbase.local.copies import Framework, parsed
from stepbase.local.errors import MigrationError
from stepbase.local.statements import Statement, split

# Any two appliers on one database take turns; the number is arbitrary but must never change.
_LOCK = 7_394_102_856_114
_PRELUDE = "prelude.sql"

_HISTORY = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of a migrations folder; `version` is the number its name begins with."""

    file: str
    version: str
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Standing:
    """One line of `status`: a migration and whether file and database have it."""

    version: str
    name: str
    applied: bool
    in_folder: bool

    @property
    def state(self) -> str:
        """One word for it."""
        if not self.applied:
            return "missing"
        return "applied" if self.in_folder else "not in here"


# Within a day's numbers: the framework's files are 000100 to 000999, those of the example domain follow.
# Whoever uses the clone as a project has others beside them; a time of day says which are not ours.
_FRAMEWORK = range(100, 1000)


def migrations_folder() -> Path:
    """Return where the framework's migrations are: the repository's folder, or the copy in the wheel."""
    package = Path(stepbase.__file__).parent
    repository = package.parents[1] / "supabase" / "migrations"
    return repository if repository.is_dir() else package / "_migrations"


def read_folder(folder: Path) -> dict[str, str]:
    """Return the SQL files of `folder` by name, in name order."""
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.sql"))}


def framework_files() -> dict[str, str]:
    """Return the framework's migrations by name.

    Not the example domain's nor those of a project in the clone, which lie beside them.
    """
    files = read_folder(migrations_folder())
    return {file: sql for file, sql in files.items() if int(parsed(file)[0][8:]) in _FRAMEWORK}


def read_project(project: Path) -> dict[str, str]:
    """Return the framework's migrations and those in the project's `supabase/migrations`.

    A project that carries a framework file, or a copy of it, uses that.

    Raises:
        MigrationError: the project has copies of some of the framework's files, but not of all.
    """
    ours = framework_files()
    theirs = read_folder(project / "supabase" / "migrations")
    framework = Framework.of(ours)
    carried = {framework.identity(*parsed(file)) for file in theirs}
    missing = {file: sql for file, sql in ours.items() if parsed(file)[0] not in carried}
    if missing and any(framework.is_copy(*parsed(file)) for file in theirs):
        raise MigrationError(
            f"{project / 'supabase' / 'migrations'} has copies of the framework's migrations, but not of "
            f"{', '.join(missing)}: `stepbase init` adds them"
        )
    return dict(sorted({**missing, **theirs}.items()))


async def apply(dsn: str, folder: Path | None = None) -> list[str]:
    """Apply what is missing from `folder` (the framework's own by default); return its file names.

    Raises:
        MigrationError: naming file and line; nothing of that file was kept, all before it was.
    """
    return await apply_files(dsn, read_folder(folder or migrations_folder()))


async def apply_files(dsn: str, files: Mapping[str, str]) -> list[str]:
    """Apply the missing ones of `files` (name → SQL) in name order; see `apply`."""
    migrations = _parse(files)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await _execute(connection, _PRELUDE, _prelude())
        await connection.execute(_HISTORY)
        framework = _framework()
        recorded = await _versions(connection)
        known = {framework.identity(version, name): version for version, name in recorded.items()}
        done = []
        for migration in migrations:
            if migration.version in recorded:
                continue
            identity = framework.identity(migration.version, migration.name)
            if identity not in known:
                await _apply_one(connection, migration)
                done.append(migration.file)
                known[identity] = migration.version
            elif framework.is_copy(migration.version, migration.name):
                await _record_as(connection, known[identity], migration)
        return done
    finally:
        # The lock goes with the session.
        await connection.close()


async def seed(dsn: str, file: Path) -> None:
    """Run `file` in one transaction.

    Raises:
        MigrationError: naming file and line; nothing was kept.
    """
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await _execute(connection, file.name, list(split(file.read_text("utf-8"))))
    finally:
        await connection.close()


async def status(dsn: str, files: Mapping[str, str]) -> list[Standing]:
    """Compare `files` with what the database says was applied, oldest first; changes nothing."""
    connection = await asyncpg.connect(dsn)
    try:
        known = await connection.fetchval(
            "select to_regclass('supabase_migrations.schema_migrations') is not null"
        )
        applied = await _versions(connection) if known else {}
    finally:
        await connection.close()
    in_folder = {m.version: m.name for m in _parse(files)}
    applied = _as_in_folder(applied, in_folder)
    return [
        Standing(version, name, version in applied, version in in_folder)
        for version, name in sorted({**applied, **in_folder}.items())
    ]


async def changed(dsn: str, files: Mapping[str, str]) -> list[str]:
    """Return those of `files` that were applied with another text than they have now, in name order."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "select version, statements from supabase_migrations.schema_migrations"
            " where statements is not null"
        )
    finally:
        await connection.close()
    applied = {row["version"]: _words(row["statements"]) for row in rows}
    return [
        migration.file
        for migration in _parse(files)
        if migration.version in applied
        and applied[migration.version] != _words(each.text for each in split(migration.sql))
    ]


def _words(statements: Iterable[str]) -> list[str]:
    """Return what statements say, without the space between."""
    return " ".join(statements).replace(";", " ").split()


def _parse(files: Mapping[str, str]) -> list[Migration]:
    """Return `files` in name order, which is the order of their versions too.

    Raises:
        MigrationError: a name that is not `<number>_<name>.sql`, or a number used twice.
    """
    found: dict[str, Migration] = {}
    for file, sql in sorted(files.items()):
        migration = Migration(file, *parsed(file), sql)
        if migration.version in found:
            other = found[migration.version].file
            raise MigrationError(f"{file} and {other} have the same number {migration.version}")
        found[migration.version] = migration
    return list(found.values())


def _framework() -> Framework:
    return Framework.of(framework_files())


def _as_in_folder(applied: Mapping[str, str], in_folder: Mapping[str, str]) -> dict[str, str]:
    """Return what was applied, with the framework's files under the numbers they have in the folder."""
    framework = _framework()
    here = {framework.identity(version, name): version for version, name in in_folder.items()}
    return {
        here.get(framework.identity(version, name), version): name
        for version, name in applied.items()
    }


def _prelude() -> list[Statement]:
    return list(split(Path(__file__).with_name(_PRELUDE).read_text("utf-8")))


async def _versions(connection: asyncpg.Connection) -> dict[str, str]:
    rows = await connection.fetch("select * from supabase_migrations.schema_migrations")
    return {row["version"]: row.get("name") or "" for row in rows}


async def _apply_one(connection: asyncpg.Connection, migration: Migration) -> None:
    statements = list(split(migration.sql))
    async with connection.transaction():
        await _execute(connection, migration.file, statements)
        # A file may have set the search_path, the role or a timeout for what follows in it.
        await connection.execute("reset all; reset role")
        await connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name, statements)"
            " values ($1, $2, $3)",
            migration.version,
            migration.name,
            [statement.text for statement in statements],
        )


async def _record_as(connection: asyncpg.Connection, version: str, migration: Migration) -> None:
    """Let a project's copy take the place of the file it was applied as."""
    await connection.execute(
        "update supabase_migrations.schema_migrations set version = $2, name = $3 where version = $1",
        version,
        migration.version,
        migration.name,
    )


async def _execute(connection: asyncpg.Connection, file: str, statements: list[Statement]) -> None:
    for statement in statements:
        try:
            await connection.execute(statement.text)
        except asyncpg.PostgresError as error:
            line = statement.line + _lines_into(statement.text, error.position)
            details = [error.detail, error.hint and f"hint: {error.hint}", error.context]
            more = "".join(f"\n  {text}" for text in details if text)
            raise MigrationError(
                f"{file}:{line}: {error.message} (SQLSTATE {error.sqlstate}){more}"
            ) from error


def _lines_into(text: str, position: str | None) -> int:
    """Return how many lines into a statement PostgreSQL's character position (from 1) lies."""
    return text.count("\n", 0, int(position) - 1) if position else 0
