"""What the commands share that look at a database: options, how they ask and how they print."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from stepbase.engine.check import Finding

T = TypeVar("T")

DATABASE_URL = click.option(
    "--database-url",
    "--database",
    help="Any connection to it, poolers too.  [env: DATABASE_URL]",
)
SESSION_URL = click.option(
    "--database-url",
    "--database",
    help="Direct connection or session pooler.  [env: DATABASE_URL]",
)
SINCE = click.option(
    "--since", help="Only newer ones: a span as in 2h or 7d, or a time as in 2026-11-24T12:00Z."
)
LIMIT = click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many at most."
)
BEFORE = click.option("--before", help="Only older ones than this id: the next page.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON array.")
JSON_OBJECT = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


def ask(database_url: str | None, question: Callable[[str], Awaitable[T]]) -> T:
    """Ask a database; errors become what the command line says, keys and tokens are taken out."""
    from stepbase.errors import StoreError
    from stepbase.history.reads import NotFoundError

    url = database(database_url)

    async def run() -> T:
        return await question(url)

    try:
        return shown_safely(asyncio.run(run()))
    except (StoreError, NotFoundError) as error:
        raise click.ClickException(shown_safely(str(error))) from error


def shown_safely(found: T) -> T:
    """Return rows, or a text, without keys and tokens; also without those of this environment."""
    from stepbase import config
    from stepbase.protocol.redact import redact

    signing, event = config.keys()
    keys = (*signing, *event)
    if is_dataclass(found) and not isinstance(found, type):
        parts = {each.name: redact(getattr(found, each.name), keys) for each in fields(found)}
        return replace(found, **parts)
    shown: T = redact(found, keys)
    return shown


def database(given: str | None) -> str:
    """Return the database that is meant.

    Raises:
        UsageError: If neither the option nor the environment says one.
    """
    from stepbase import config

    url = given or config.database_url()
    if url is None:
        raise click.UsageError(
            "no database: give --database-url or set DATABASE_URL; "
            "beside `stepbase dev`: set -a; . .stepbase/env; set +a"
        )
    return url


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


def span(what: str, text: str) -> timedelta:
    """Read how long something shall take.

    Raises:
        UsageError: If it is no span.
    """
    from stepbase.protocol.duration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"{what}: {error}") from error


def console() -> "Console":
    """Return where to print: coloured on a terminal, plain elsewhere."""
    from rich.console import Console

    return Console()


def dumped(value: Any) -> str:
    """Write rows as JSON, times as ISO text."""
    return json.dumps(value, default=lambda each: each.isoformat(), ensure_ascii=False)


def show(
    rows: Sequence[Any],
    limit: int | None,
    key: str,
    print_rows: "Callable[[Console, Sequence[Any]], None]",
    as_json: bool,
) -> None:
    """Print rows, and how to see more if there was a limit; exit with 1 if there are none."""
    rows = shown_safely(list(rows))
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


def show_findings(findings: "Sequence[Finding]", as_json: bool) -> None:
    """Print what a set-up is like, a line for each thing looked at; exit with 1 if something is broken."""
    from dataclasses import asdict, replace

    from rich.text import Text

    from stepbase.engine.check import State

    styles = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "bold red"}
    findings = [replace(finding, text=shown_safely(finding.text)) for finding in findings]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for each in findings:
            line = Text.assemble((f"{each.state:<8}", styles[each.state]), f" {each.what}: ")
            line.append(" ".join(each.text.split()))
            console().print(line, highlight=False, soft_wrap=True)
    if any(finding.state is State.BROKEN for finding in findings):
        raise SystemExit(1)


def json_object(what: str, text: str) -> dict[str, object]:
    """Read a JSON object that somebody typed.

    Raises:
        UsageError: If it is none; the message says where and shows the form.
    """
    value = _typed(what, text)
    if not isinstance(value, dict):
        raise click.UsageError(
            f"{what}: expected a JSON object as in '{{\"id\": 7}}', got {text[:80]!r}"
        )
    return value


def json_list(what: str, text: str) -> list[object]:
    """Read a JSON list that somebody typed; raises as `json_object`."""
    value = _typed(what, text)
    if not isinstance(value, list):
        raise click.UsageError(
            f"{what}: expected a JSON list as in '[7, \"a\"]', got {text[:80]!r}"
        )
    return value


def _typed(what: str, text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(
            f"{what} is not JSON ({error}): {text[:80]!r}; quote it for the shell, as in '{{\"id\": 7}}'"
        ) from error


def _refuse(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def milliseconds(what: str, text: str) -> int:
    """Read a time as milliseconds since 1970.

    Raises:
        UsageError: If it is neither a number nor a time.
    """
    if text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(
            f"{what}: {text!r} is neither a time (2026-11-24T12:00Z) nor milliseconds since 1970"
        ) from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
