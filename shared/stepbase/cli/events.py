"""`stepbase events`: the events of a database, and what came of each."""

import click

from stepbase.history import asking


@click.command("events", short_help="List events, and what each started.")
@asking.DATABASE_URL
@click.option("--name", help="Only of this name.")
@click.option("--id", "event_id", help="Only this one: its sender's id, or its internal one.")
@click.option("--not-started", is_flag=True, help="Only those that started no run.")
@asking.SINCE
@asking.LIMIT
@asking.BEFORE
@asking.JSON
def command(
    database_url: str | None,
    name: str | None,
    event_id: str | None,
    not_started: bool,
    since: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
) -> None:
    """List events, newest first: which functions each started, and why others were not.

    Reads the same views as the dashboard; changes nothing. Exit code 1 if there is none.
    """
    from stepbase.history import reads, shown

    wanted = reads.Filter(
        limit, before, asking.moment(since), name=name, only_not_started=not_started
    )
    rows = asking.ask(database_url, lambda url: reads.list_events(url, wanted, event_id))
    asking.show(rows, limit, "id", shown.events, as_json)
