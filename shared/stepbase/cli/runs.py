"""`stepbase runs`: the runs of a database, newest first."""

import click

from stepbase.history import asking


@click.command("runs", short_help="List runs, newest first.")
@asking.DATABASE_URL
@click.option(
    "--status",
    type=click.Choice(
        ["Scheduled", "Running", "Completed", "Failed", "Cancelled", "Skipped"],
        case_sensitive=False,
    ),
)
@click.option("--function", help="Only of this function, by its id on the wire: app-function.")
@click.option("--event", help="Only started by events of this name.")
@asking.SINCE
@asking.LIMIT
@asking.BEFORE
@asking.JSON
def command(
    database_url: str | None,
    status: str | None,
    function: str | None,
    event: str | None,
    since: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
) -> None:
    """List runs, newest first: what they are of, how they ended or what they wait for.

    Reads the same views as the dashboard; changes nothing. Exit code 1 if there is none.
    """
    from stepbase.history import reads, shown

    wanted = reads.Filter(
        limit, before, asking.moment(since), name=event, status=status, function=function
    )
    found = asking.ask(database_url, lambda url: reads.list_runs(url, wanted))
    if found.older is not None:
        back = f"back to {found.until:%Y-%m-%d %H:%M} UTC" if found.until else "only so far"
        click.echo(
            f"looked {back}: narrow it with --since or --function, or go on with --before {found.older}",
            err=True,
        )
    asking.show(found.rows, limit, "run_id", shown.runs, as_json)
