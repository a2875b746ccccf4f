"""`stepbase gen rpc`: from a database to a module of typed calls, and whether the one there is stale."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from stepbase.local import migrate
from stepbase.local.stack import Plan, Stack
from stepbase.scaffold.rpc_catalogue import Catalogue, read
from stepbase.scaffold.rpc_module import Made, make_module
from stepbase.scaffold.rpc_settings import RpcSettings
from stepbase.scaffold.rpc_types import NAMED


@dataclass(frozen=True, slots=True)
class Compared:
    """The module as it should be, beside the file as it is.

    Attributes:
        diff: From the file to the module, as `diff -u` writes it; empty when they are the same.
    """

    made: Made
    diff: str

    @property
    def is_stale(self) -> bool:
        """Whether the file is not what the database says."""
        return bool(self.diff)


async def compare(settings: RpcSettings, project: Path, database_url: str | None) -> Compared:
    """Make the module and compare it with the file; writes nothing.

    Without a database a throwaway one is started and given the project's migrations: what they make is
    what every database has once they are applied.

    Raises:
        GenerateError: If no module can be made of what is there.
        LocalError, OSError, asyncpg.PostgresError: If the database cannot be started, migrated or read.
    """
    if database_url is None:
        catalogue = await _read_migrations(settings, project)
    else:
        catalogue = await read(database_url, settings.schemas)
    made = make_module(catalogue, settings, _own_modules(settings))
    before = settings.output.read_text("utf-8") if settings.output.is_file() else ""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        made.text.splitlines(keepends=True),
        str(settings.output),
        "what the database says",
    )
    return Compared(made, "".join(lines))


async def _read_migrations(settings: RpcSettings, project: Path) -> Catalogue:
    stack = Stack(Plan(durable=False, supervise=False, migrations=migrate.read_project(project)))
    try:
        await stack.start_database()
        return await read(stack.database_url, settings.schemas)
    finally:
        await stack.stop()


def _own_modules(settings: RpcSettings) -> dict[str, bool]:
    """Return, for the top-level modules that may be imported, that they lie in the project."""
    roots = {"stepbase", "pydantic"}
    roots |= {part for text in settings.returns.values() for part in _roots(text)}
    return {
        root: any((s / root).is_dir() or (s / f"{root}.py").is_file() for s in settings.sources)
        for root in roots
    }


def _roots(text: str) -> set[str]:
    return {match["module"].partition(".")[0] for match in NAMED.finditer(text)}
