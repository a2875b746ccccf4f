"""What the commands share that look at a database: options, how they ask and how they print."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

DATABASE_URL = click.option(
    "--database-url", help="Any connection to it, poolers too.  [env: DATABASE_URL]"
)
SINCE = click.option(
    "--since", help="Only newer ones: a span as in 2h or 7d, or a time as in 2026-11-24T12:00Z."
)
LIMIT = click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many at most."
)
BEFORE = click.option("--before", help="Only older ones than this id: the next page.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON array.")


def ask(database_url: str | None, question: Callable[[str], Awaitable[T]]) -> T:
    """Ask a database; errors become what the command line says."""
    from stepbase import config
    from stepbase.errors import StoreError
    from stepbase.history.reads import NotFoundError

    url = database_url or config.database_url()
    if url is None:
        raise click.UsageError("no database: give --database-url or set DATABASE_URL")

    async def run() -> T:
        return await question(url)

    try:
        return asyncio.run(run())
    except (StoreError, NotFoundError) as error:
        raise click.ClickException(str(error)) from error


def moment(since: str | None) -> datetime | None:
    """Read what --since says.

    Raises:
        UsageError: If it is neither a span nor a time.
    """
    from stepbase import clock
    from stepbase.protocol.duration import parse_duration

    if since is None:
        return None
    try:
        return clock.utcnow() - parse_duration(since)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(since)
    except ValueError as error:
        raise click.UsageError(
            f"--since: {since!r} is neither a span (2h, 7d) nor a time (2026-11-24T12:00Z)"
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def console() -> "Console":
    """Return where to print: coloured on a terminal, plain elsewhere."""
    from rich.console import Console

    return Console()


def dumped(value: Any) -> str:
    """Write rows as JSON, times as ISO text."""
    return json.dumps(value, default=lambda each: each.isoformat(), ensure_ascii=False)


def show(
    rows: Sequence[Any],
    limit: int,
    key: str,
    print_rows: "Callable[[Console, Sequence[Any]], None]",
    as_json: bool,
) -> None:
    """Print rows, and how to see more; exit with 1 if there are none."""
    if as_json:
        click.echo(dumped(rows))
    elif rows:
        print_rows(console(), rows)
    else:
        click.echo("there is none", err=True)
    if len(rows) == limit and not as_json:
        click.echo(f"more: --before {rows[-1][key]}", err=True)
    if not rows:
        raise SystemExit(1)
