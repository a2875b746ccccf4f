"""A deploy on a terminal: prints, asks, runs, and says how it ended."""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from packaging.requirements import Requirement

from stepbase.deploy import journal, lock, look, planning, projectfile, session
from stepbase.deploy.errors import DeployError
from stepbase.deploy.plan import Files, Plan
from stepbase.deploy.planning import Wish
from stepbase.deploy.runner import Outcome, Runner, tell_resume
from stepbase.deploy.session import Session
from stepbase.hosts import front_door

_LEGEND = """\
In front of a line: write, a folder that is made here; $, a command; ?, a question before the next command;
>, a request. <NAME> stands for what is not set yet.
"""


def deploy(
    root: Path,
    apps: Sequence[str],
    *,
    target: str,
    env: str,
    only: Sequence[str],
    skip_db: bool,
    front_door: bool,
    with_engine: bool,
    allowance: str | None,
    wait: float,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Deploy, or print what would be done; returns the exit code.

    Raises:
        DeployError: If it could not be begun, or stopped on the way.
    """
    unknown = sorted(set(only) - set(planning.STAGES))
    if unknown:
        raise click.UsageError(f"--only {unknown[0]}: stages are {', '.join(planning.STAGES)}")
    if as_json and not dry_run:
        raise click.UsageError("--json prints a plan: add --dry-run")
    wish = Wish(target, env, tuple(only), skip_db, front_door, wait, with_engine)
    found = session.prepare(root, wish, apps, allowance)
    if dry_run:
        _print(found, as_json=as_json)
        return 0 if found.is_ready else 1
    _say_problems(found)
    if not found.is_ready or found.plan is None:
        click.echo("nothing was changed; --dry-run shows the plan", err=True)
        return 1
    with journal.alone(root):
        return _run(root, found, found.plan, is_agreed=yes)


def _run(root: Path, found: Session, plan: Plan, *, is_agreed: bool) -> int:
    noted = journal.open_for(root, plan, found.vault.variables, is_whole=not found.wish.only)
    if noted.done:
        click.echo(f"going on with an interrupted deploy: {len(noted.done)} actions are done")
    if not is_agreed and not _agree(found, plan):
        return 1
    _end_on_signals()
    runner = Runner(root, plan, found.vault, noted, click.echo)
    try:
        runner.run()
    except DeployError as error:
        raise DeployError(tell_resume(str(error), noted, plan)) from error
    except KeyboardInterrupt:
        raise DeployError(tell_resume("interrupted", noted, plan)) from None
    _table(_happened(runner.outcomes))
    _table(_served(plan))
    return 0


def _agree(found: Session, plan: Plan) -> bool:
    """Ask before the first change; where nobody can be asked, `--yes` must have been given."""
    where = found.settings.project_ref or found.settings.file
    stages = ", ".join(stage.name for stage in plan.stages)
    if not sys.stdin.isatty():
        raise DeployError(
            f"this changes {where} ({stages}): confirm with --yes, or look with --dry-run"
        )
    return click.confirm(f"Deploy to {plan.target} of {where}: {stages}?")


def _end_on_signals() -> None:
    """Take a platform's stop, and a terminal that is closed, for Ctrl-C: the program under way ends, too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) != signal.SIG_IGN:  # nohup
            signal.signal(each, interrupt)


def _print(found: Session, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
        return
    if found.plan is not None:
        file = found.settings.file
        there = "" if (found.project.root / file).exists() else ", which is not there yet"
        click.echo(f"Plan for {found.plan.target}, settings from {file}{there}. Nothing is done.")
        click.echo(_LEGEND)
        click.echo(found.plan.text())
        for served in found.plan.served:
            click.echo(f"{served.name} will be served at {served.url}")
    for line in found.executions:
        click.echo(line)
    click.echo()
    _say_problems(found)
    click.echo("ready to run" if found.is_ready else "not ready to run: see the problems above")


def _as_json(found: Session) -> dict[str, Any]:
    stages = [
        {
            "name": stage.name,
            "why": stage.why,
            "actions": [
                {"kind": type(action).__name__.lower(), "lines": action.lines(), **_files(action)}
                for action in stage.actions
            ],
        }
        for stage in (found.plan.stages if found.plan is not None else ())
    ]
    return {
        "target": found.wish.target,
        "env": found.wish.env,
        "stages": stages,
        "problems": [problem.as_json() for problem in found.problems],
        "executions": list(found.executions),
        "ready": found.is_ready,
    }


def _files(action: object) -> dict[str, Any]:
    if not isinstance(action, Files):
        return {}
    return {"files": {name: len(content) for name, content in action.staged.files.items()}}


def _say_problems(found: Session) -> None:
    for problem in found.problems:
        click.echo(problem.line())


Rows = list[tuple[str, ...]]


def _happened(outcomes: Sequence[Outcome]) -> Rows:
    rows: Rows = [("stage", "done", "not needed", "seconds")]
    for each in outcomes:
        rows.append((each.stage, str(each.done), str(each.left), f"{each.seconds:.1f}"))
    return rows


def _served(plan: Plan) -> Rows:
    rows: Rows = [("folder", "app", "functions", "deployment", "served at")]
    for served in plan.served:
        count = str(served.function_count) if served.app_id else "–"
        rows.append((served.name, served.app_id or "–", count, served.deployment, served.url))
    return rows


def _table(rows: Rows) -> None:
    click.echo()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def write_lock(root: Path) -> None:
    """Choose versions for all folders together and write the lock."""
    wanted: dict[str, Requirement] = {}
    for path in look.find(root):
        file = path / "requirements.txt"
        where = file.relative_to(root).as_posix()
        text = file.read_text("utf-8") if file.is_file() else ""
        wanted.update({str(each): each for each in lock.requirements(text, where)})
    wanted.update({str(each): each for each in lock.engine_requirements(root)})
    text = lock.make(list(wanted.values()))
    (root / lock.FILE).write_text(text, "utf-8")
    click.echo(f"wrote {lock.FILE}: {len(lock.parse(text))} packages")


def write_config(root: Path, apps: Sequence[str], *, is_front_door: bool) -> None:
    """Add the blocks that folders lack in config.toml, and with `is_front_door` their Edge Functions.

    Raises:
        DeployError: If there is no such file, or it cannot be read; a folder cannot be loaded; or an Edge
            Function of somebody else has a folder's name.
    """
    file = projectfile.read(root)
    if file.broken is not None:
        raise DeployError(f"{projectfile.FILE}: {file.broken}")
    if not (root / projectfile.FILE).is_file():
        raise DeployError(f"there is no {projectfile.FILE}: supabase init makes one")
    paths = look.find(root, apps)
    added = projectfile.missing_blocks(file, [path.name for path in paths])
    for name in _doors(root, paths) if is_front_door else []:
        click.echo(f"wrote {front_door.write(name, root).relative_to(root)}")
        if name not in file.functions:
            added += ("\n" if added else "") + front_door.settings(name)
    if added:
        with open(root / projectfile.FILE, "a", encoding="utf-8") as config:
            config.write(f"\n{added}")
    click.echo(
        f"{projectfile.FILE} has all blocks"
        if not added
        else f"added to {projectfile.FILE}:\n{added}"
    )


def _doors(root: Path, paths: Sequence[Path]) -> list[str]:
    """Return the folders that get a front door, after a look that none of them is lost by it."""
    names = []
    for folder in look.look(root, paths):
        if folder.broken is not None:
            raise DeployError(f"functions/{folder.name} cannot be loaded: {folder.broken}")
        if folder.app_id is None:
            continue
        there = front_door.written(folder.name, root)
        if there is not None and not front_door.is_ours(there):
            raise DeployError(
                f"supabase/functions/{folder.name}/index.ts is an Edge Function of yours: rename it, or the "
                "function folder"
            )
        names.append(folder.name)
    return names
