"""`stepbase gen`: code made from the database."""

from pathlib import Path

import click


@click.group("gen")
def command() -> None:
    """Make code from the database."""


@command.command("rpc")
@click.option(
    "--database-url",
    envvar="DATABASE_URL",
    help="The database to read; without one, a throwaway Postgres with the project's migrations.",
)
@click.option(
    "--project",
    default=Path(),
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with pyproject.toml and supabase/migrations.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The module to write, instead of what pyproject.toml says.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 and a diff if it is stale.")
def rpc(database_url: str | None, project: Path, output: Path | None, check: bool) -> None:
    """Write typed calls for `step.rpc`: a Python function for each SQL function.

    `[tool.stepbase.rpc]` in pyproject.toml says where to and what results are read into.
    """
    import asyncio

    import asyncpg

    from stepbase.local.errors import LocalError
    from stepbase.scaffold.rpc import compare
    from stepbase.scaffold.rpc_settings import read_settings
    from stepbase.scaffold.rpc_types import GenerateError

    try:
        settings = read_settings(project, output)
        compared = asyncio.run(compare(settings, project, database_url))
    except (GenerateError, LocalError, OSError, asyncpg.PostgresError) as error:
        raise click.ClickException(str(error)) from error
    for signature, reason in compared.made.left_out.items():
        click.echo(f"left out {signature}: {reason}", err=True)
    if not compared.is_stale:
        click.echo(f"{settings.output} is up to date")
    elif check:
        click.echo(compared.diff, nl=False)
        click.echo(f"{settings.output} is stale: run `stepbase gen rpc`", err=True)
        raise SystemExit(1)
    else:
        settings.output.parent.mkdir(parents=True, exist_ok=True)
        settings.output.write_text(compared.made.text, "utf-8")
        click.echo(f"wrote {settings.output}")
