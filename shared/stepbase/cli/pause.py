"""`stepbase pause`: makes no more calls of functions."""

import click

from stepbase.history import acting, asking


@click.command("pause", short_help="Make no more calls of functions.")
@click.argument("functions", nargs=-1, required=True)
@acting.URL
@asking.JSON
def command(functions: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Make no more calls of FUNCTIONS, by their ids (app-function); `stepbase resume` lets them go on.

    Their events go on starting runs, which wait. Exit code 1 if there is no such function.
    """
    acting.set_paused(functions, "pause", url, as_json)
