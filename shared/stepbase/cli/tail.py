"""`stepbase tail`: events and runs, live."""

import click

from stepbase.history import asking


@click.command("tail", short_help="Show events and runs as they happen.")
@asking.DATABASE_URL
@click.option("--event", help="Only events of this name, and what they start.")
@click.option("--function", help="Only runs of this function, by its id on the wire: app-function.")
@click.option("--since", help="Begin earlier: a span as in 10m, or a time as in 2026-11-24T12:00Z.")
@click.option("--for", "span", help="Stop after this long, as in 30s.  [default: at Ctrl-C]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    database_url: str | None,
    event: str | None,
    function: str | None,
    since: str | None,
    span: str | None,
    as_json: bool,
) -> None:
    """Show events that arrive, runs that start and end, and attempts that fail, as it happens.

    Looks every half second, through any pooler; changes nothing.
    """
    import contextlib

    from stepbase.history import shown, tail

    seconds = None if span is None else asking.span("--for", span).total_seconds()
    wanted = tail.Wanted(asking.moment(since), seconds, event, function)
    console = asking.console()

    async def follow(url: str) -> None:
        await tail.check_can_tail(url)
        async for row in tail.follow(url, wanted, lambda text: click.echo(text, err=True)):
            row = asking.shown_safely(row)
            if as_json:
                click.echo(asking.dumped(row))
            else:
                shown.news(console, row)

    with contextlib.suppress(KeyboardInterrupt):
        asking.ask(database_url, follow)
