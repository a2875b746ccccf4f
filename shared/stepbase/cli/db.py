"""`stepbase db`: the database's migrations."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

_DATABASE_URL = click.option(
    "--database-url", help="Direct connection or session pooler.  [env: DATABASE_URL]"
)
_PROJECT = click.option(
    "--project",
    default=Path(),
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder whose supabase/migrations are applied besides the framework's.",
)


@click.group("db")
def command() -> None:
    """Bring a database up to date, and see what it has."""


@command.command("apply")
@_DATABASE_URL
@_PROJECT
@click.option(
    "--seed",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Run it afterwards.",
)
def apply(database_url: str | None, project: Path, seed: Path | None) -> None:
    """Apply the migrations that are missing, each in one transaction, in the order of their names.

    Records them as the Supabase CLI does, so `supabase db push` may be used as well.
    """
    from stepbase.history.asking import database
    from stepbase.local import migrate

    url = database(database_url)

    async def run() -> list[str]:
        applied = await migrate.apply_files(url, migrate.read_project(project))
        if seed is not None:
            await migrate.seed(url, seed)
        return applied

    applied = _run(run())
    for file in applied:
        click.echo(f"applied {file}")
    click.echo(f"{len(applied)} applied" if applied else "up to date")


@command.command("status")
@_DATABASE_URL
@_PROJECT
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def status(database_url: str | None, project: Path, as_json: bool) -> None:
    """List migrations and where they are; exit code 1 if any is missing from the database."""
    import json
    from dataclasses import asdict

    from stepbase.history.asking import database
    from stepbase.local import migrate

    standings = _run(migrate.status(database(database_url), migrate.read_project(project)))
    if as_json:
        click.echo(json.dumps([asdict(standing) for standing in standings]))
    else:
        for standing in standings:
            click.echo(f"{standing.state:<12} {standing.version}_{standing.name}")
    if not all(standing.applied for standing in standings):
        raise SystemExit(1)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    import asyncpg

    from stepbase.local.errors import LocalError

    try:
        return asyncio.run(work)
    except OSError as error:
        raise click.ClickException(
            f"the database cannot be reached: {error}. "
            "Is DATABASE_URL (or --database-url) right, and does it run?"
        ) from error
    except (LocalError, asyncpg.PostgresError) as error:
        raise click.ClickException(str(error)) from error
