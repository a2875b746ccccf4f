"""`stepbase forget`: takes a person's data out of the record."""

from typing import TYPE_CHECKING

import click

from stepbase.history import asking

if TYPE_CHECKING:
    from stepbase.history.forget import Forgotten


@click.command("forget", short_help="Take a person's data out of the record.")
@click.argument("user")
@asking.DATABASE_URL
@click.option(
    "--path",
    "paths",
    multiple=True,
    help="Where else in events their id stands, as in data.user_id; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@asking.JSON_OBJECT
def command(
    user: str,
    database_url: str | None,
    paths: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take what is of USER out of events, and out of the runs they started that have ended.

    USER is the id in an event's `user`. What happened stays; it cannot be undone. Exit code 1 if something
    is left: runs that go on, events in the outbox, events that hold the id elsewhere.
    """
    import json
    from dataclasses import asdict

    from stepbase.history.forget import forget

    if not (dry_run or yes):
        click.confirm(f"Take what is of {user!r} out of this database for good?", abort=True)
    found = asking.ask(database_url, lambda url: forget(url, user, paths, is_dry=dry_run))
    if as_json:
        click.echo(json.dumps({**asdict(found), "dry_run": dry_run}))
    else:
        click.echo("\n".join(_lines(found, dry_run)))
    if not found.is_all:
        raise SystemExit(1)


def _lines(found: "Forgotten", is_dry: bool) -> list[str]:
    """Say what was taken out and what is left, for people."""
    lines = [
        f"{'would be taken out of' if is_dry else 'taken out of'} {found.events} events, {found.runs} runs, "
        f"{found.steps} results of steps, {found.attempts} failed attempts, "
        f"{found.results} results of the ledger"
    ]
    if found.live_runs:
        named = ", ".join(found.live_runs[:10]) + (" …" if len(found.live_runs) > 10 else "")
        lines.append(
            f"left, because they go on: {len(found.live_runs)} runs ({named}); "
            "forget again when they have ended"
        )
    if found.in_outbox:
        lines.append(
            f"left in the outbox: {found.in_outbox} events; forget again when they have gone"
        )
    if found.elsewhere:
        lines.append(
            f"left, because the id stands elsewhere in them: {found.elsewhere} events "
            f"({', '.join(found.places[:10])}); if they are of this user, name the place with --path"
        )
    return lines
