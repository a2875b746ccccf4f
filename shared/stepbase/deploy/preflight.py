"""Everything that can be known to fail before anything is done: all at once, each with its remedy."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from stepbase.deploy import edge, lock, projectfile, variables
from stepbase.deploy.allowance import misfits
from stepbase.deploy.errors import DeployError
from stepbase.deploy.lock import Lock
from stepbase.deploy.planning import Project, Wish
from stepbase.deploy.problem import Problem
from stepbase.deploy.projectfile import ProjectFile
from stepbase.deploy.settings import Settings
from stepbase.deploy.staging import ENGINE
from stepbase.deploy.target import port_of

_INSTALL = {
    "supabase": "npm install --global supabase, or supabase.com/docs/guides/local-development/cli",
    "gcloud": "cloud.google.com/sdk/docs/install, then gcloud auth login",
    "docker": "docs.docker.com/engine/install",
}


def check(
    wish: Wish,
    project: Project,
    settings: Settings,
    file: ProjectFile,
    given: Mapping[str, str],
    plan: str | None = None,
) -> list[Problem]:
    """Return all problems of a deploy as it is wished for.

    Args:
        given: The variables that functions will be given.
        plan: The plan of Inngest Cloud to compare with, or None.
    """
    found = [
        *_tools(wish, project),
        *variables.supabase(wish, project, settings),
        *variables.database(wish, project, settings),
        *variables.keys(settings),
        *variables.places(wish, settings),
        *_ports(wish, project),
        *_engine(wish, project, settings),
        *variables.secrets(wish, settings, given),
        *_folders(project),
        *_blocks(wish, project, file),
    ]
    if plan is not None:
        found += misfits(plan, project.folders)
    return found


def _tools(wish: Wish, project: Project) -> Iterable[Problem]:
    wanted = {"cloudrun": ["gcloud"], "docker": ["docker"]}.get(wish.target, [])
    if variables.needs_supabase(wish, project) or variables.changes_database(wish, project):
        wanted.append("supabase")
    for name in wanted:
        if shutil.which(name) is None:
            yield Problem(name, "this program is not on the PATH", _INSTALL[name])


def _engine(wish: Wish, project: Project, settings: Settings) -> Iterable[Problem]:
    if not wish.with_engine:
        return
    if wish.target != "docker":
        yield Problem(
            "--with-engine", "an engine is deployed with --target docker alone", "leave it out"
        )
    if settings.get("INNGEST_BASE_URL") is None:
        yield Problem(
            "INNGEST_BASE_URL",
            "not set: functions would not find the engine",
            f"put its URL into {settings.file}, e.g. https://engine.example.com",
        )
    if settings.get("DATABASE_URL") is None and wish.skip_db:
        yield Problem(
            "DATABASE_URL", "not set: the engine keeps its state there", "the session pooler's URL"
        )
    if (project.root / "functions" / ENGINE).exists():
        yield Problem(f"functions/{ENGINE}", "has the engine's name", "rename it")


def _ports(wish: Wish, project: Project) -> Iterable[Problem]:
    """Ports are made of names; two names may have the same one."""
    taken: dict[int, str] = {}
    for path in sorted(project.root.glob("functions/*/main.py")) if wish.target == "docker" else []:
        name = path.parent.name
        other = taken.setdefault(port_of(name), name)
        if other != name:
            yield Problem(
                f"functions/{name}",
                f"has the same port as functions/{other}: {port_of(name)}",
                "rename it",
            )


def _folders(project: Project) -> Iterable[Problem]:
    seen: dict[str, str] = {}
    for folder in project.folders:
        where = f"functions/{folder.name}"
        if folder.broken is not None:
            yield Problem(
                where, f"cannot be loaded: {folder.broken}", "repair it; stepbase dev shows more"
            )
            continue
        if folder.app_id is None:
            continue
        if folder.app_id in seen:
            yield Problem(
                where,
                f"app {folder.app_id!r} is in functions/{seen[folder.app_id]} too: each sync would "
                "archive the other's functions",
                "give it an id of its own",
            )
        seen[folder.app_id] = folder.name
        if not folder.functions:
            yield Problem(where, f"app {folder.app_id!r} has no functions", "define one")
    yield from _pins(project)


def _pins(project: Project) -> Iterable[Problem]:
    pins, problem = read_lock(project.root)
    if problem is not None:
        yield problem
    for folder in project.folders:
        where = f"functions/{folder.name}/requirements.txt"
        try:
            text = (project.root / where).read_text("utf-8")
            missing = lock.unpinned(lock.requirements(text, where), pins)
        except FileNotFoundError:
            yield Problem(where, "there is none", "name in it what the folder imports")
            continue
        except DeployError as error:
            yield Problem(where, str(error), "name packages of PyPI, one a line")
            continue
        for each in missing if problem is None else []:
            yield Problem(where, each, "stepbase deploy --lock chooses versions anew")


def read_lock(root: Path) -> tuple[Lock, Problem | None]:
    """Return the pins, and what is wrong with the lock."""
    try:
        return lock.parse((root / lock.FILE).read_text("utf-8")), None
    except FileNotFoundError:
        return {}, Problem(lock.FILE, "nothing is pinned", "stepbase deploy --lock makes it")
    except DeployError as error:
        return {}, Problem(lock.FILE, str(error), "stepbase deploy --lock makes it anew")


def _blocks(wish: Wish, project: Project, file: ProjectFile) -> Iterable[Problem]:
    if file.broken is not None:
        yield Problem(projectfile.FILE, file.broken, "repair it")
        return
    apps = [each.name for each in project.folders if each.app_id is not None]
    if wish.target == "compute":
        yield from projectfile.compute_problems(file, [each.name for each in project.folders])
    yield from edge.problems(project.root, file, apps if wish.front_door else [])
