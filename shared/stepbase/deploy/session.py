"""One deploy, prepared: what was found, what is wrong with it, and the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepbase.deploy import edge, look, planning, preflight, projectfile, staging
from stepbase.deploy import settings as settings_of
from stepbase.deploy.allowance import counts
from stepbase.deploy.dotenv import write
from stepbase.deploy.errors import DeployError
from stepbase.deploy.plan import Plan
from stepbase.deploy.planning import Project, Wish
from stepbase.deploy.problem import Problem
from stepbase.deploy.projectfile import ProjectFile
from stepbase.deploy.runner import Vault
from stepbase.deploy.settings import FOR_DEPLOY, FOR_FUNCTIONS, Settings
from stepbase.deploy.staging import Staged
from stepbase.deploy.target import CloudRun, Compute, Docker, Target, supabase_cli

_THEN = "repair that, and --dry-run shows the plan"


@dataclass(frozen=True, slots=True)
class Session:
    """A deploy that can be printed and run.

    Attributes:
        plan: None if a problem does not even let it be made.
        problems: All of them, the fatal ones first.
        executions: A line for each function: what a run of it counts as.
    """

    wish: Wish
    project: Project
    settings: Settings
    file: ProjectFile
    plan: Plan | None
    problems: tuple[Problem, ...]
    executions: tuple[str, ...]
    vault: Vault

    @property
    def is_ready(self) -> bool:
        """Whether nothing stands in the way."""
        return self.plan is not None and not any(each.is_fatal for each in self.problems)


def prepare(
    root: Path, wish: Wish, chosen: Sequence[str] = (), allowance: str | None = None
) -> Session:
    """Look at everything and make the plan; changes nothing.

    Args:
        chosen: Names of folders, or nothing for all.
        allowance: The plan of Inngest Cloud to compare with.

    Raises:
        DeployError: If there is nothing to deploy, or the environment's file cannot be read.
    """
    settings = settings_of.read(root, wish.env)
    project = _project(root, wish, chosen, settings)
    file = projectfile.read(root)
    target = target_of(wish, settings, file)
    given = {
        **target.secrets(settings),
        **planning.project_secrets(wish, project, target, settings),
    }
    problems = preflight.check(wish, project, settings, file, given, allowance)
    plan, unstaged = _plan(wish, project, settings, target)
    said = {each.where.removesuffix("/requirements.txt") for each in problems}
    problems += [each for each in unstaged if each.where not in said]
    if plan is not None and not plan.stages:
        why = "nothing is to be done: the stages of --only have nothing, or other options leave them out"
        problems.append(Problem("--only", why, "name others, or leave --only out"))
    return Session(
        wish,
        project,
        settings,
        file,
        plan,
        tuple(sorted(problems, key=lambda each: not each.is_fatal)),
        tuple(counts(allowance, project.folders)),
        _vault(wish, project, target, settings),
    )


def target_of(wish: Wish, settings: Settings, file: ProjectFile) -> Target:
    """Return the target; what is not set stands as `<NAME>`, which preflight then asks for."""
    if wish.target == "cloudrun":
        names = ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_PROJECT_NUMBER", "GOOGLE_CLOUD_REGION")
        project, number, region = (settings.get(name) or f"<{name}>" for name in names)
        return CloudRun(project, number, region, wish.env, settings.public_origin)
    if wish.target == "docker":
        origin = settings.public_origin or "<STEPBASE_PUBLIC_ORIGIN>"
        return Docker(origin, settings.get("STEPBASE_REGISTRY"), wish.env)
    sources = {str(block.get("source")) for block in file.compute.values()}
    folders = [source.rsplit("/", 1)[-1] for source in sources]
    names_there = {each: file.compute_name(each) for each in folders}
    return Compute(
        supabase_cli(settings),
        settings.public_origin or f"https://{supabase_cli(settings).ref}.supabase.co",
        {folder: name for folder, name in names_there.items() if name is not None},
    )


def _project(root: Path, wish: Wish, chosen: Sequence[str], settings: Settings) -> Project:
    notebooks = sorted(path.stem for path in (root / "supabase" / "notebooks").glob("*.json"))
    if not planning.has_dashboard(wish, settings):
        notebooks = []
    return Project(
        root,
        tuple(look.look(root, look.find(root, chosen), settings.own)),
        edge.front_doors(root),
        tuple(notebooks),
        any(root.glob("supabase/migrations/*.sql")),
    )


def _plan(
    wish: Wish, project: Project, settings: Settings, target: Target
) -> tuple[Plan | None, list[Problem]]:
    """Stage everything in memory; a plan is made only if all of it can be staged."""
    at = planning.places(wish, project, target, settings)
    pins, _ = preflight.read_lock(project.root)
    staged: dict[str, Staged] = {}
    problems = []
    base = settings.get("STEPBASE_BASE_IMAGE") or staging.BASE_IMAGE
    if wish.with_engine:
        try:
            staged[staging.ENGINE] = staging.stage_engine(project.root, pins, base=base)
        except DeployError as error:
            problems.append(Problem("--with-engine", str(error), "repair that first"))
    for folder in project.folders:
        has_app = folder.app_id is not None
        place = at[folder.name]
        surroundings = {
            "INNGEST_SERVE_ORIGIN": place.origin,
            "INNGEST_SERVE_PATH": place.serve_path,
        }
        try:
            staged[folder.name] = staging.stage(
                project.root,
                folder.path,
                pins,
                surroundings=surroundings if has_app else {},
                has_app=has_app,
                base=base,
            )
        except DeployError as error:
            where = f"functions/{folder.name}"
            problems.append(Problem(where, str(error).removeprefix(f"{where}: "), _THEN))
    if problems:
        return None, problems
    return planning.make(wish, project, target, settings, staged, supabase_cli(settings)), []


def _vault(wish: Wish, project: Project, target: Target, settings: Settings) -> Vault:
    variables: dict[str, str] = {name: value for name, value in settings.variables.items() if value}
    if settings.database is not None and settings.database[1]:
        variables["PGPASSWORD"] = settings.database[1]
    documents: Mapping[str, str] = {
        **target.secrets(settings),
        planning.SECRETS: write(planning.project_secrets(wish, project, target, settings)),
    }
    hidden = FOR_DEPLOY | set(FOR_FUNCTIONS) | settings.in_file | {"PGPASSWORD"}
    return Vault(variables, documents, frozenset(hidden))
