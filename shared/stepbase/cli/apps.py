"""`stepbase apps`: who serves the functions."""

import click

from stepbase.history import asking


@click.command("apps", short_help="List apps, and what their last sync said.")
@asking.DATABASE_URL
@asking.JSON
def command(database_url: str | None, as_json: bool) -> None:
    """List apps: where each is served and by what, and what its last sync said.

    Changes nothing; `stepbase doctor` also calls them. Exit code 1 if there is none.
    """
    from stepbase.history import catalog, shown

    asking.show(asking.ask(database_url, catalog.list_apps), None, "name", shown.apps, as_json)
