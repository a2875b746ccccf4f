"""stepbase in an existing Supabase project: which files it gets, and which of them are outdated.

Migrations come as copies numbered after the project's last one (`local/copies.py` says why); a copy
that is there is never touched, because what was applied is not applied again. The rest is there to
begin with and the project's own afterwards.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stepbase.local import migrate
from stepbase.local.copies import Framework, copy_names, parsed
from stepbase.scaffold import new_app
from stepbase.scaffold.change import CONFIG, Change, read, with_lines
from stepbase.scaffold.errors import ScaffoldError

MIGRATIONS = Path("supabase") / "migrations"
_EXAMPLE = "hello"
_COMMENT = re.compile(r"--[^\n]*")
_USES = re.compile(r"\bstepbase\s*\.\s*\w|\bpublic\s*\.\s*stepbase_\w")
_IGNORED = (".stepbase/", "build/", ".env", ".env.*", "!.env.example", "__pycache__/")
_ENV = """\
# What functions, engine and deploy read. Copy it to .env, which git ignores, and fill it in.
# `stepbase dev` needs none of it: it writes its own into .stepbase/env.

# From the dashboard of the Supabase project: its reference, and Settings, API Keys.
SUPABASE_PROJECT_REF=
SUPABASE_URL=
SUPABASE_SECRET_KEY=

# From Inngest, or made by yourself for an engine of your own.
INNGEST_EVENT_KEY=
INNGEST_SIGNING_KEY=

# For an engine of your own and for `stepbase db`: direct connection or session pooler, not port 6543.
DATABASE_URL=

# Where functions run, if not on Supabase Compute: containers behind this proxy, or Cloud Run.
# STEPBASE_PUBLIC_ORIGIN=https://functions.example.com
# GOOGLE_CLOUD_PROJECT=
# GOOGLE_CLOUD_PROJECT_NUMBER=
# GOOGLE_CLOUD_REGION=
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """A migration of the framework in a project.

    Attributes:
        original: The framework's file.
        file: The project's file; None: it has none.
        state: ``current``, ``missing`` or ``changed`` (it has another text).
    """

    original: str
    file: str | None
    state: str


def check_is_project(folder: Path) -> None:
    """Check that the Supabase CLI takes the folder for a project.

    Raises:
        ScaffoldError: It has no `supabase/config.toml`.
    """
    if not (folder / CONFIG).is_file():
        raise ScaffoldError(
            f"{folder / CONFIG} is not there: `supabase init` makes a project, or name its folder"
        )


def standings(project: Path) -> list[Standing]:
    """Compare the project's copies with the framework's migrations, in the framework's order."""
    ours = migrate.framework_files()
    theirs = migrate.read_folder(project / MIGRATIONS)
    framework = Framework.of(ours)
    found: dict[str, str] = {framework.identity(*parsed(file)): file for file in theirs}
    listed = []
    for original, text in ours.items():
        file = found.get(parsed(original)[0])
        if file is None:
            listed.append(Standing(original, None, "missing"))
        else:
            listed.append(
                Standing(original, file, "current" if theirs[file] == text else "changed")
            )
    return listed


def additions(project: Path, now: datetime) -> list[Change]:
    """Return what the project lacks, as new files and as changes of files that exist.

    Raises:
        ScaffoldError, MigrationError: A file cannot be read or changed, or a migration not be followed.
    """
    return [
        *_missing_migrations(project, now),
        *_dashboard(project),
        *_example(project),
        *_env_example(project),
        *_ignored(project),
    ]


def replacements(project: Path) -> list[Change]:
    """Return the framework's text for the copies that have another.

    Only for a database that is then made anew: before 1.0 the framework's files change in place.
    """
    ours = migrate.framework_files()
    return [
        Change(MIGRATIONS / each.file, ours[each.original], read(project / MIGRATIONS / each.file))
        for each in standings(project)
        if each.state == "changed" and each.file is not None
    ]


def exposed(project: Path) -> bool:
    """Say whether the REST API would serve the framework's private schema, by `config.toml`."""
    api = tomllib.loads(read(project / CONFIG) or "").get("api", {})
    return "stepbase" in api.get("schemas", [])


def _missing_migrations(project: Path, now: datetime) -> list[Change]:
    ours = migrate.framework_files()
    missing = [each.original for each in standings(project) if each.state == "missing"]
    if not missing:
        return []
    theirs = migrate.read_folder(project / MIGRATIONS)
    names = copy_names(missing, theirs, now, _first_that_needs(theirs))
    return [Change(MIGRATIONS / names[original], ours[original]) for original in missing]


def _first_that_needs(theirs: Mapping[str, str]) -> str | None:
    """Return the first migration that uses the framework, if the project has no copy of it at all yet.

    `stepbase dev` applies the framework's own files, so such a migration may have been written before
    the copies came.
    """
    framework = Framework.of(migrate.framework_files())
    if any(framework.identity(*parsed(file)) in framework.versions.values() for file in theirs):
        return None
    return next(
        (file for file, text in theirs.items() if _USES.search(_COMMENT.sub("", text))), None
    )


def _dashboard(project: Path) -> list[Change]:
    """Return the notebook and the snippets for the dashboard that the project has no file of."""
    return [
        Change(path, text)
        for path, text in _dashboard_files().items()
        if not (project / path).exists()
    ]


def _dashboard_files() -> dict[Path, str]:
    """Return what lies beside the framework's migrations, in the repository or in the wheel, by path."""
    migrations = migrate.migrations_folder()
    is_wheel = migrations.name.startswith("_")
    return {
        Path("supabase") / kind / path.name: path.read_text("utf-8")
        for kind, pattern in (("notebooks", "*.json"), ("snippets", "*.sql"))
        for path in sorted((migrations.parent / (f"_{kind}" if is_wheel else kind)).glob(pattern))
    }


def _example(project: Path) -> list[Change]:
    """Return a function folder with its test, if there is none at all yet."""
    functions = project / "functions"
    if any(functions.glob("*/main.py")) or (functions / _EXAMPLE).exists():
        return []
    wanted = new_app.wanted(_EXAMPLE, None, None)
    return new_app.changes(project, wanted)


def _env_example(project: Path) -> list[Change]:
    path = Path(".env.example")
    before = read(project / path)
    if before is None:
        return [Change(path, _ENV)]
    known = {line.lstrip("# ").partition("=")[0].strip() for line in before.splitlines()}
    needed = (line for line in _ENV.splitlines() if line.endswith("=") and line[0] != "#")
    lacking = [line for line in needed if line[:-1] not in known]
    if not lacking:
        return []
    return [Change(path, with_lines(before, ["", "# For stepbase.", *lacking]), before)]


def _ignored(project: Path) -> list[Change]:
    path = Path(".gitignore")
    before = read(project / path)
    known = {line.strip().lstrip("/").rstrip("/") for line in (before or "").splitlines()}
    lacking = [line for line in _IGNORED if line.rstrip("/") not in known]
    if not lacking:
        return []
    gap = ["", "# stepbase"] if before else []
    return [Change(path, with_lines(before or "", [*gap, *lacking]), before)]
