"""Makes the plan of a deploy out of what was found; pure, so that a dry run is the real thing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepbase.deploy.look import Folder
from stepbase.deploy.plan import Action, Await, Command, Files, Plan, Served, Stage, Sync, Verify
from stepbase.deploy.settings import Settings
from stepbase.deploy.staging import ENGINE, Staged
from stepbase.deploy.target import Place, Supabase, Target
from stepbase.hosts import front_door

STAGES = (
    "stage",
    "database",
    "secrets",
    "functions",
    "front-doors",
    "notebooks",
    "answer",
    "sync",
    "verify",
)

SECRETS = "secrets"
"""Name of the document with the project's secrets."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for."""

    target: str
    env: str = ""
    only: tuple[str, ...] = ()
    skip_db: bool = False
    front_door: bool = False
    wait_seconds: float = 300.0
    with_engine: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """What was found in the project.

    Attributes:
        folders: Those to deploy, loaded.
        front_doors: Names of the Edge Functions there are.
        notebooks: Names of the notebooks there are, if there is a dashboard for them.
        has_migrations: Whether there are any.
    """

    root: Path
    folders: tuple[Folder, ...]
    front_doors: frozenset[str]
    notebooks: tuple[str, ...]
    has_migrations: bool


def has_dashboard(wish: Wish, settings: Settings) -> bool:
    """Say whether there is a project for notebooks: outside of Supabase one need not be named."""
    return wish.target == "compute" or wish.front_door or settings.project_ref is not None


def front_place(ref: str, folder: str) -> Place:
    """Return where a front door serves a folder."""
    path = f"/functions/v1/{folder}"
    return Place(f"https://{ref}.supabase.co", path, path)


def places(wish: Wish, project: Project, target: Target, settings: Settings) -> dict[str, Place]:
    """Return the public place of each folder: its front door's if there is one."""
    ref = settings.project_ref or "<SUPABASE_PROJECT_REF>"
    return {
        folder.name: front_place_of(settings, ref, folder.name)
        if wish.front_door and folder.app_id is not None
        else target.place(folder.name)
        for folder in project.folders
    }


def front_place_of(settings: Settings, ref: str, folder: str) -> Place:
    """Return a front door's place, on the project's own domain if it has one."""
    place = front_place(ref, folder)
    origin = settings.public_origin
    return place if origin is None else Place(origin, place.prefix, place.serve_path)


def make(
    wish: Wish,
    project: Project,
    target: Target,
    settings: Settings,
    staged: Mapping[str, Staged],
    cli: Supabase,
) -> Plan:
    """Return the plan; stages with nothing to do, or not asked for, are left out."""
    at = places(wish, project, target, settings)
    served = tuple(_served(each, at[each.name], target, staged) for each in project.folders)
    if ENGINE in staged:
        served = (_engine(settings, staged[ENGINE]), *served)
    apps = [each for each in served if each.app_id is not None]
    names = sorted({*target.secrets(settings), *target.needed})
    api = _api(settings)
    has_api_key = settings.get("INNGEST_API_KEY") is not None
    found = [
        Stage(
            "stage",
            "what an image is made of, the same bytes from the same sources",
            tuple(Files(each) for each in staged.values()),
            is_repeated=True,
        ),
        Stage(
            "database",
            "migrations, before the code that needs them",
            tuple(_database(wish, project, settings)),
        ),
        Stage(
            SECRETS,
            "what functions are given, by name",
            tuple(_secrets(wish, project, target, names, cli)),
            is_repeated=True,
        ),
        Stage(
            "functions",
            f"the folders themselves, to {target.where(list(staged))}",
            tuple(target.deploy(staged, names)),
        ),
        Stage(
            "front-doors",
            "Edge Functions that pass requests on to them",
            tuple(_front_doors(wish, project, cli)),
        ),
        Stage(
            "notebooks",
            "dashboards of the project",
            tuple(
                cli.command("notebooks", "push", name, why="puts it into the dashboard")
                for name in project.notebooks
            ),
        ),
        Stage(
            "answer",
            "wait until what was deployed is what answers",
            tuple(Await(each, wish.wait_seconds) for each in served),
            is_repeated=True,
        ),
        Stage(
            "sync",
            "have the functions registered",
            tuple(Sync(each, api if has_api_key else None) for each in apps),
        ),
        Stage(
            "verify",
            "what is registered must be what was deployed",
            tuple(Verify(each, api) for each in apps),
            is_repeated=True,
        ),
    ]
    stages = [each for each in found if each.actions and (not wish.only or each.name in wish.only)]
    return Plan(target.name, settings.env, tuple(stages), served)


def project_secrets(
    wish: Wish, project: Project, target: Target, settings: Settings
) -> dict[str, str]:
    """Return the Supabase project's secrets: what functions on Compute and front doors read."""
    found = dict(target.secrets(settings)) if target.name == "compute" else {}
    if wish.front_door:
        for folder in project.folders:
            if folder.app_id is not None:
                found[front_door.variable(folder.name)] = target.place(folder.name).base
    return found


def _secrets(
    wish: Wish, project: Project, target: Target, names: Sequence[str], cli: Supabase
) -> list[Action]:
    actions: list[Action] = list(target.set_secrets(names))
    held = list(names) if target.name == "compute" else []
    if wish.front_door:
        held += [
            front_door.variable(each.name) for each in project.folders if each.app_id is not None
        ]
    if held:
        actions.append(
            cli.command(
                "secrets",
                "set",
                "--env-file=/dev/stdin",
                why="stores what functions read in the project; those of other names stay",
                stdin=SECRETS,
                holds=sorted(held),
            )
        )
    return actions


def _database(wish: Wish, project: Project, settings: Settings) -> list[Action]:
    if wish.skip_db or not project.has_migrations:
        return []
    url, password = settings.database or ("<DATABASE_URL>", "")
    secrets = ("PGPASSWORD",) if password else ()
    remote = (f"--remote={url}", "--yes")
    return [
        Command(
            ("supabase", "db", "push", *remote),
            secrets=secrets,
            why="applies the migrations that the database does not have yet",
        ),
        Command(
            ("supabase", "db", "advisors", "--level=warn", "--fail-on=error", *remote),
            secrets=secrets,
            why="looks for tables without protection and the like; warnings are shown, errors stop",
        ),
    ]


def _front_doors(wish: Wish, project: Project, cli: Supabase) -> list[Action]:
    if not wish.front_door:
        return []
    return [
        cli.command("functions", "deploy", each.name, "--use-api", why="uploads the front door")
        for each in project.folders
        if each.app_id is not None
    ]


def _served(folder: Folder, place: Place, target: Target, staged: Mapping[str, Staged]) -> Served:
    return Served(
        folder.name,
        folder.app_id,
        len(folder.functions),
        place.url if folder.app_id is not None else place.base,
        f"{target.place(folder.name).base}/health",
        staged[folder.name].digest,
    )


def _engine(settings: Settings, staged: Staged) -> Served:
    """Return the engine as it is served; its health tells no deployment."""
    url = _api(settings)
    return Served(ENGINE, None, 0, url, f"{url}/health", staged.digest)


def _api(settings: Settings) -> str:
    """Return the origin of the API that syncs apps."""
    from stepbase.config import CLOUD_API_ORIGIN

    return (settings.get("INNGEST_BASE_URL") or CLOUD_API_ORIGIN).rstrip("/")
