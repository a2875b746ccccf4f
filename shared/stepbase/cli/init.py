"""`stepbase init`: stepbase in an existing Supabase project."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stepbase.scaffold.change import Change


@click.command("init", short_help="Begin a project in a folder.")
@click.argument(
    "folder", default=Path(), type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option("--yes", is_flag=True, help="Change files that exist without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would be made and changed.")
@click.option("--check", "only_check", is_flag=True, help="Only say which migrations are outdated.")
@click.option(
    "--replace",
    is_flag=True,
    help="Give copies that differ the framework's text; the database is then to be made anew.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: one JSON array.")
def command(
    folder: Path, yes: bool, dry_run: bool, only_check: bool, replace: bool, as_json: bool
) -> None:
    """Put the framework's migrations, an example and settings into a Supabase project.

    New files are written; changes of files that exist are shown first and made after a yes. A second
    run brings only what is new. With --check, the exit code is 1 if a migration is missing or differs.
    """
    from stepbase import clock
    from stepbase.errors import StepbaseError
    from stepbase.scaffold import project

    if as_json and not only_check:
        raise click.UsageError("--json goes with --check")
    try:
        project.check_is_project(folder)
        if only_check:
            _check(folder, as_json)
            return
        changes = project.additions(folder, clock.utcnow())
        if replace:
            changes += project.replacements(folder)
        made = _make(folder, changes, yes=yes, dry_run=dry_run)
        _tell(folder, made)
        if not changes:
            click.echo("up to date")
    except (StepbaseError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _make(folder: Path, changes: "Sequence[Change]", *, yes: bool, dry_run: bool) -> "list[Change]":
    """Show and make the changes; return those made."""
    from stepbase.scaffold import change

    edits = [each for each in changes if not each.is_new]
    for each in edits:
        click.echo(each.diff(), nl=False)
    if dry_run or not edits or yes:
        made = list(changes)
    elif sys.stdin.isatty():
        question = f"Change {', '.join(each.path.as_posix() for each in edits)} like this?"
        may_edit = click.confirm(question)
        made = [each for each in changes if each.is_new or may_edit]
    else:
        raise click.ClickException("files that exist would change as shown: --yes does it")
    if not dry_run:
        change.make(folder, made)
    for each in made:
        click.echo(f"{'new' if each.is_new else 'changed':<8} {each.path.as_posix()}")
    return [] if dry_run else made


def _tell(folder: Path, made: "Sequence[Change]") -> None:
    from stepbase.scaffold import project

    if project.exposed(folder):
        click.echo("warning: supabase/config.toml serves schema stepbase: take it out", err=True)
    if changed := [each for each in project.standings(folder) if each.state == "changed"]:
        click.echo(
            f"{len(changed)} migrations differ from those of this stepbase: "
            "`stepbase init --check` lists them",
            err=True,
        )
    if any(each.path.parent == project.MIGRATIONS for each in made):
        click.echo("\nNext:\n  supabase db push\n  stepbase dev\n  stepbase new APP")


def _check(folder: Path, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from stepbase.scaffold import project

    standings = project.standings(folder)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in standings]))
    else:
        for each in standings:
            click.echo(f"{each.state:<8} {each.file or each.original}")
    if any(each.state != "current" for each in standings):
        raise SystemExit(1)
