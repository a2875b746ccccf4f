"""`stepbase resume`: lets paused functions go on."""

import click

from stepbase.history import acting, asking


@click.command("resume", short_help="Let paused functions go on.")
@click.argument("functions", nargs=-1, required=True)
@acting.URL
@asking.JSON
def command(functions: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Let paused FUNCTIONS go on with what waited. Exit code 1 if there is no such function."""
    acting.set_paused(functions, "resume", url, as_json)
