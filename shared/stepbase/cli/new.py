"""`stepbase new`: a function folder to start from."""

from pathlib import Path

import click


@click.command("new", short_help="Make a function folder.")
@click.argument("app")
@click.option("--event", metavar="NAME", help='Starts a function: "shop/order.paid".')
@click.option("--cron", metavar="SCHEDULE", help='Starts a function: "0 9 * * 1-5", in UTC.')
@click.option("--sync", "is_sync", is_flag=True, help="Plain handlers instead of async ones.")
@click.option(
    "--front-door", is_flag=True, help="Also an Edge Function that passes calls on to the app."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be made.")
@click.option(
    "--project",
    default=Path(),
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with functions/ and supabase/ in it.",
)
def command(
    app: str,
    event: str | None,
    cron: str | None,
    is_sync: bool,
    front_door: bool,
    dry_run: bool,
    project: Path,
) -> None:
    """Make functions/APP, with a function, its requirements and a test that passes.

    Adds [compute.APP] to supabase/config.toml if there is one, and with --front-door
    [functions.APP]. Nothing is overwritten.
    """
    from stepbase.errors import StepbaseError
    from stepbase.scaffold import change, new_app

    try:
        wanted = new_app.wanted(app, event, cron, is_sync=is_sync, has_front_door=front_door)
        changes = new_app.changes(project, wanted)
        if not dry_run:
            change.make(project, changes)
    except (StepbaseError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for each in changes:
        click.echo(f"{'new' if each.is_new else 'changed':<8} {each.path.as_posix()}")
    if not (project / change.CONFIG).exists():
        click.echo(f"{change.CONFIG.as_posix()} is not there, so it got no [compute.{app}]")
    if dry_run:
        return
    test = next(each.path for each in changes if each.path.parts[0] == "tests")
    click.echo(
        f"\nNext:\n  pytest {test.as_posix()}\n  stepbase dev\n  stepbase deploy {app} --dry-run"
    )
