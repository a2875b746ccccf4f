"""Everything that can be known to fail before anything is done: all at once, each with its remedy."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from stepbase.deploy import edge, lock, look, planning, projectfile, variables
from stepbase.deploy.allowance import misfits
from stepbase.deploy.errors import DeployError
from stepbase.deploy.lock import Lock
from stepbase.deploy.look import Folder
from stepbase.deploy.planning import Project, Wish
from stepbase.deploy.problem import Problem
from stepbase.deploy.projectfile import ProjectFile
from stepbase.deploy.settings import Settings
from stepbase.deploy.staging import BUILD, ENGINE
from stepbase.deploy.target import (
    EXPERIMENTAL,
    compose_folder,
    label,
    port_of,
    service,
    supabase_cli,
)

_INSTALL = {
    "supabase": "npm install --global supabase, or supabase.com/docs/guides/local-development/cli",
    "gcloud": "cloud.google.com/sdk/docs/install, then gcloud auth login",
    "docker": "docs.docker.com/engine/install",
}
_LEAST_CLI = (3, 1)
_VERSION = re.compile(r"(\d+)\.(\d+)\.\d+")
_SECONDS = 30
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_LONGEST = {"compute": 63, "cloudrun": 49, "docker": 63}
_ENV_FILE = re.compile(r"\.env\.([a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?)")
_RESERVED = ("compose",)
_OF_AN_APP = ("functions-framework", "httpx", "rfc8785")


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
        *variables.default_file(wish, project, settings),
        *variables.database(wish, project, settings),
        *variables.given(settings),
        *variables.keys(wish, settings),
        *variables.places(wish, settings),
        *_names(wish, project),
        *_orphans(wish, project, settings, file),
        *_engine(wish, project, settings),
        *_dashboard(wish, project, settings),
        *variables.secrets(wish, settings, given),
        *_folders(project, settings),
        *_blocks(wish, project, file),
    ]
    if plan is not None:
        found += misfits(plan, project.folders)
    return found


def _tools(wish: Wish, project: Project) -> Iterable[Problem]:
    """Yield the programs that are not there, or too old: they are asked for their versions and no more."""
    wanted = {"cloudrun": ["gcloud"], "docker": ["docker"]}.get(wish.target, [])
    if not variables.is_part(wish, "functions", "secrets"):
        wanted = []
    if variables.needs_supabase(wish, project) or variables.changes_database(wish, project):
        wanted.append("supabase")
    for name in wanted:
        if shutil.which(name) is None:
            yield Problem(name, "this program is not on the PATH", _INSTALL[name])
    if (
        "docker" in wanted
        and shutil.which("docker")
        and _said("docker", "compose", "version") is None
    ):
        yield Problem("docker", "has no `docker compose`", "docs.docker.com/compose/install")
    if "supabase" in wanted and shutil.which("supabase"):
        version = _VERSION.search(_said("supabase", "--version") or "")
        if version is not None and (int(version[1]), int(version[2])) < _LEAST_CLI:
            least = ".".join(map(str, _LEAST_CLI))
            what = f"is version {version[0]}; a deploy needs {least} or later"
            yield Problem("supabase", what, _INSTALL["supabase"])


def _said(*argv: str) -> str | None:
    """Return what a program says of itself, or None if it does not; it gets none of our secrets."""
    try:
        done = subprocess.run(
            argv,
            env={**look.bare_environment(), "DO_NOT_TRACK": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


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
    if variables.lacks_a_password(settings):
        yield Problem(
            "DATABASE_URL",
            "has no password in it, and the engine is given this URL alone",
            "put it into the URL, percent-encoded",
        )
    if (project.root / "functions" / ENGINE).exists():
        yield Problem(f"functions/{ENGINE}", "has the engine's name", "rename it")


def _dashboard(wish: Wish, project: Project, settings: Settings) -> Iterable[Problem]:
    is_left_out = not planning.has_dashboard(wish, settings)
    if is_left_out and any(project.root.glob("supabase/notebooks/*.json")):
        yield Problem(
            "supabase/notebooks",
            "no project of supabase.com is named, so they are not pushed",
            f"put SUPABASE_PROJECT_REF into {settings.file}, if there is one",
            is_fatal=False,
        )


def _names(wish: Wish, project: Project) -> Iterable[Problem]:
    """Yield names that a platform would refuse, or take for another's.

    All folders of the project count, not only the chosen ones: the others were deployed before.
    """
    ports: dict[int, str] = {}
    labels: dict[str, str] = {}
    # Supabase Compute is inside of the project, and each environment has another one.
    env = "" if wish.target == "compute" else wish.env
    longest = _LONGEST[wish.target] - (len(env) + 1 if env else 0)
    names = [path.name for path in look.paths(project.root)]
    for name in names:
        where = f"functions/{name}"
        if _NAME.fullmatch(name) is None or len(name) > longest:
            behind = f", for -{env} follows it" if env else ""
            yield Problem(
                where,
                f"no name for {wish.target}: expected up to {longest} letters, digits, - and "
                f"_, beginning with a letter{behind}",
                "rename it",
            )
        if name in _RESERVED:
            yield Problem(where, f"the build folder keeps {name!r} for itself", "rename it")
        other = labels.setdefault(label(name), name)
        if other != name:
            yield Problem(
                where, f"is called {label(name)} there, as functions/{other} is", "rename it"
            )
        elif wish.target == "docker" and ports.setdefault(port_of(name, env), name) != name:
            other = ports[port_of(name, env)]
            yield Problem(
                where, f"has the same port as functions/{other}: {port_of(name, env)}", "rename it"
            )
    if wish.target != "compute":
        yield from _between_environments(wish, project.root, names)


def _between_environments(wish: Wish, root: Path, names: Sequence[str]) -> Iterable[Problem]:
    """Yield what has the name or the port of another environment's: the default one's, or one with a file."""
    files = [_ENV_FILE.fullmatch(path.name) for path in sorted(root.glob(".env.*"))]
    others = {"", *(match[1] for match in files if match is not None)} - {wish.env}
    for env, other in [(env, name) for env in sorted(others) for name in names]:
        whose = f"functions/{other} of {f'--env {env}' if env else 'the default environment'}"
        for name in names:
            if service(name, wish.env) == service(other, env):
                called = service(name, wish.env)
                yield Problem(
                    f"functions/{name}", f"is called {called} there, as {whose} is", "rename one"
                )
            elif wish.target == "docker" and port_of(name, wish.env) == port_of(other, env):
                yield Problem(
                    f"functions/{name}",
                    f"has the same port as {whose}: {port_of(name, wish.env)}",
                    "rename one, if both run on one host",
                    is_fatal=False,
                )


def _orphans(
    wish: Wish, project: Project, settings: Settings, file: ProjectFile
) -> Iterable[Problem]:
    """Yield what was deployed once and has no folder any more: nothing here takes it down."""
    there = {path.name for path in look.paths(project.root)} | {ENGINE}
    if wish.target == "compute":
        for name, block in file.compute.items():
            folder = str(block.get("source", "")).removeprefix("./").rstrip("/")
            if folder.startswith(f"{BUILD}/") and folder.removeprefix(f"{BUILD}/") not in there:
                words = ("compute", "delete", name)
                delete = supabase_cli(settings).command(*words, why="", **EXPERIMENTAL).line
                # Typed by a person: the CLI may ask before it deletes.
                delete = delete.removesuffix(" --yes")
                yield Problem(
                    f"{projectfile.FILE}, [compute.{name}]",
                    "there is no such folder any more, and what was deployed of it still runs",
                    f"{delete}, then take the block out (docs/deploy.md)",
                    is_fatal=False,
                )
    if wish.target == "docker":
        for path in sorted(project.root.glob(f"{compose_folder(wish.env)}/*/compose.yaml")):
            if path.parent.name not in there:
                called = f"stepbase-{service(path.parent.name, wish.env)}"
                yield Problem(
                    f"functions/{path.parent.name}",
                    "there is no such folder any more, and its container still runs",
                    f"docker compose --project-name {called} down, then remove "
                    f"{path.parent.relative_to(project.root)} (docs/deploy.md)",
                    is_fatal=False,
                )


def _folders(project: Project, settings: Settings) -> Iterable[Problem]:
    seen: dict[str, str] = {}
    for folder in project.folders:
        where = f"functions/{folder.name}"
        if folder.broken is not None:
            yield Problem(
                where,
                f"cannot be loaded: {folder.broken}",
                "repair it; stepbase dev shows more. While it is loaded it has no variables but those of "
                f"your own in {settings.file}: read others when they are needed",
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
            wanted = lock.requirements(text, where)
        except FileNotFoundError:
            lines = ", ".join(_needed(folder))
            yield Problem(
                where, "there is none", f"name in it {lines}, and what the folder imports"
            )
            continue
        except DeployError as error:
            yield Problem(where, str(error), "name packages of PyPI, one a line")
            continue
        # The image installs what the folder names and all that this needs; a lock that is none has no pins.
        named = {str(canonicalize_name(each.name)) for each in wanted}
        absent = sorted(set(_needed(folder)) - named - lock.needed_for(wanted, pins))
        if absent:
            yield Problem(
                where,
                f"does not name {', '.join(absent)}, without which the image does not start or answer",
                "add a line for each, then stepbase deploy --lock",
            )
        for each in lock.unpinned(wanted, pins) if problem is None else []:
            yield Problem(where, each, "stepbase deploy --lock chooses versions anew")


def _needed(folder: Folder) -> tuple[str, ...]:
    """Return what every image needs: its server; and to serve an app, requests and canonical JSON."""
    return ("functions-framework",) if folder.app_id is None else _OF_AN_APP


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
