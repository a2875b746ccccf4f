"""`stepbase outbox`: what waits in the outbox, and another try for what is stuck."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stepbase.history import asking

if TYPE_CHECKING:
    from stepbase.relay.outbox import Outbox

Result = TypeVar("Result")

_IDS = click.argument("ids", nargs=-1)


@click.group("outbox", short_help="Look at events on their way out; try them again.")
def command() -> None:
    """Look at the events that are on their way out, and give them another try."""


@command.command("list")
@asking.SESSION_URL
@click.option(
    "--older", default="5m", show_default=True, help="What waits for longer than this is stuck."
)
@click.option("--most", default=100, show_default=True, help="Stuck events to show.")
@asking.JSON_OBJECT
def list_(database_url: str | None, older: str, most: int, as_json: bool) -> None:
    """Show how much waits, how long it has, and which events are dead or stuck."""
    import json

    stuck_after = asking.span("--older", older)
    report = asking.shown_safely(
        _ask(database_url, lambda outbox: outbox.report(most, stuck_after))
    )
    click.echo(json.dumps(report) if as_json else _page(report))


@command.command("requeue")
@_IDS
@click.option("--all", "is_all", is_flag=True, help="All dead events.")
@asking.SESSION_URL
@asking.JSON_OBJECT
def requeue(ids: tuple[str, ...], is_all: bool, database_url: str | None, as_json: bool) -> None:
    """Give dead events another try, under the same ids. Exit code 1 if there was none."""
    chosen = _chosen(ids, is_all)
    count = _ask(database_url, lambda outbox: outbox.requeue(chosen))
    _counted(count, "requeued", as_json)


@command.command("retry")
@_IDS
@click.option("--all", "is_all", is_flag=True, help="All that wait after a failure.")
@asking.SESSION_URL
@asking.JSON_OBJECT
def retry(ids: tuple[str, ...], is_all: bool, database_url: str | None, as_json: bool) -> None:
    """Make events due now that wait for their next try. Exit code 1 if there was none."""
    chosen = _chosen(ids, is_all)
    count = _ask(database_url, lambda outbox: outbox.retry(chosen))
    _counted(count, "due now", as_json)


def _chosen(ids: tuple[str, ...], is_all: bool) -> list[str] | None:
    if is_all == bool(ids):
        raise click.UsageError("name events by their ids, or say --all")
    return None if is_all else list(ids)


def _counted(count: int, what: str, as_json: bool) -> None:
    import json

    click.echo(json.dumps({"events": count}) if as_json else f"{count} {what}")
    if not count:
        raise SystemExit(1)


def _ask(database_url: str | None, question: "Callable[[Outbox], Awaitable[Result]]") -> Result:
    import asyncio

    from stepbase.errors import StoreError
    from stepbase.relay.outbox import Outbox, explained

    url = asking.database(database_url)

    async def ask() -> Result:
        outbox = Outbox.looking(url)
        try:
            return await question(outbox)
        finally:
            await outbox.close()

    try:
        return asyncio.run(ask())
    except StoreError as error:
        raise click.ClickException(str(explained(error))) from error


def _page(report: dict[str, Any]) -> str:
    """Write a report as lines for people."""
    counts = ", ".join(f"{report[key]} {key}" for key in ("waiting", "leased", "retrying", "dead"))
    head = f"outbox of {report['project'] or 'no relay yet'}: {counts}; lag {report['lag_s']:g} s"
    lines = [
        f"{each['state']:<8} {each['id']}  {each['name']}  {each['tries']} tries, {each['age_s']:g} s old"
        + (f"  {' '.join(each['error'].split())[:200]}" if each["error"] else "")
        for each in report["stuck"]
    ]
    return "\n".join([head, *lines])
