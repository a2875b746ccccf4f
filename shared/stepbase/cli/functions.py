"""`stepbase functions`: what is registered, and how it does."""

import click

from stepbase.history import asking


@click.command("functions", short_help="List functions, and how they do.")
@asking.DATABASE_URL
@asking.JSON
def command(database_url: str | None, as_json: bool) -> None:
    """List functions: what starts each, whether it is paused, how its last 200 runs went.

    Changes nothing. Exit code 1 if there is none.
    """
    from stepbase.console import words
    from stepbase.history import catalog, shown

    rows = [
        {**row, "triggers": words.triggers_in_words(row["config"])}
        for row in asking.ask(database_url, catalog.list_functions)
    ]
    asking.show(rows, None, "slug", shown.functions, as_json)
