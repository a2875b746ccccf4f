"""A new function folder: which files it needs in a project, and what is in the way."""

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path

from stepbase.hosts import front_door
from stepbase.scaffold import app_files
from stepbase.scaffold.app_files import Wanted
from stepbase.scaffold.change import CONFIG, Change, read, with_tables
from stepbase.scaffold.errors import ScaffoldError
from stepbase.scaffold.names import check_app, starter

# Without a marker: those with one belong to an extra.
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+(?:\[[^]]*])?)(?P<limits>[^;]*)")


def wanted(
    app: str,
    event: str | None,
    cron: str | None,
    *,
    is_sync: bool = False,
    has_front_door: bool = False,
) -> Wanted:
    """Return what is to be made; without an event or a schedule, an event of the app's own starts it.

    Raises:
        ScaffoldError: The app or the event cannot be called that, or the schedule is none.
        DefinitionError: Likewise, in the words of `App`.
    """
    check_app(app)
    if cron is not None:
        _check_cron(cron)
    if event is None and cron is None:
        event = f"{app}/requested"
    return Wanted(app, starter(event) if event is not None else None, cron, is_sync, has_front_door)


def changes(project: Path, wanted: Wanted) -> list[Change]:
    """Return the files of a new app, and what `supabase/config.toml` gets, if the project has one.

    Raises:
        ScaffoldError: Something of it is there already, or config.toml cannot take its block.
    """
    folder = Path("functions") / wanted.app
    test = Path("tests") / app_files.test_file(wanted.app)
    door = Path("supabase") / "functions" / wanted.app
    for path in (folder, test, *([door] if wanted.has_front_door else [])):
        if (project / path).exists():
            raise ScaffoldError(
                f"{project / path} exists already: choose another name, or move it away first"
            )
    made = [
        Change(folder / "main.py", app_files.main_py(wanted)),
        Change(folder / "requirements.txt", app_files.requirements_txt(requirements())),
        Change(test, app_files.test_py(wanted)),
    ]
    tables = [app_files.compute_table(wanted.app)]
    if wanted.has_front_door:
        made.append(Change(door / "index.ts", front_door.source(wanted.app)))
        tables.append(front_door.settings(wanted.app).strip())
    return [*made, *config_change(project, tables)]


def config_change(project: Path, tables: Sequence[str]) -> list[Change]:
    """Return how `supabase/config.toml` changes; nothing if it has the tables, or is not there.

    Raises:
        ScaffoldError: It cannot take them; the message has them, to be added by hand.
    """
    before = read(project / CONFIG)
    if before is None:
        return []
    after = with_tables(before, "\n\n".join(tables), str(project / CONFIG))
    return [Change(CONFIG, after, before)] if after != before else []


def requirements() -> list[str]:
    """Return what a function folder needs besides stepbase: what the installed stepbase asks for.

    Raises:
        ScaffoldError: stepbase runs without being installed, so nobody knows what it needs.
    """
    try:
        needed = importlib.metadata.requires("stepbase") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ScaffoldError(
            "stepbase is not installed, so what it needs is not known: pip install it"
        ) from error
    found = [_REQUIREMENT.fullmatch(line) for line in needed]
    return [
        match["name"] + ",".join(sorted(match["limits"].split(","), reverse=True))
        for match in found
        if match is not None
    ]


def _check_cron(cron: str) -> None:
    from stepbase.engine import schedule

    try:
        schedule.check(cron, None)
    except ValueError as error:
        raise ScaffoldError(f"--cron: {error}") from error
    if "=" in cron:
        raise ScaffoldError(f"--cron: five fields; the zone is said in main.py, got {cron!r}")
