"""`stepbase apps`: who serves the functions."""

import click

from stepbase.history import asking


@click.command("apps", short_help="List apps, and what their last sync said.")
@asking.DATABASE_URL
@asking.JSON
def command(database_url: str | None, as_json: bool) -> None:
    """List apps: where each is served and by what, what its last sync said, and what the last one that
    changed something changed.

    Changes nothing; `stepbase doctor` also calls them. Exit code 1 if there is none.
    """
    from stepbase.console import difference
    from stepbase.history import catalog, shown

    rows = []
    for row in asking.ask(database_url, catalog.list_apps):
        changed = difference.of_app(row)
        about = {key: value for key, value in row.items() if key not in ("previous", "current")}
        remedy = difference.remedy(row["error_code"], row["url"]) if row["error"] else None
        told = changed.data() if as_json else changed.summary
        rows.append({**about, "remedy": remedy, "last_change": told})
    asking.show(rows, None, "name", shown.apps, as_json)
