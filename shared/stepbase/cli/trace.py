"""`stepbase trace`: what happened in one run."""

import click

from stepbase.history import asking


@click.command("trace", short_help="Show what happened in a run, to scale.")
@click.argument("run")
@asking.DATABASE_URL
@asking.JSON_OBJECT
def command(run: str, database_url: str | None, as_json: bool) -> None:
    """Show a run's steps with their times to scale, failed attempts, waits, and the error with its causes.

    Reads the same views as the dashboard; changes nothing. Exit code 1 if there is no such run.
    """
    from stepbase import clock
    from stepbase.history import reads, shown

    found = asking.ask(database_url, lambda url: reads.trace(url, run))
    if as_json:
        click.echo(asking.dumped(found))
    else:
        shown.trace(asking.console(), found, clock.utcnow())
