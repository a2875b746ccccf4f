"""`stepbase dev`: everything on one machine, without Docker and without an account."""

from pathlib import Path

import click

_PORT = click.IntRange(0, 65535)


@click.command("dev", short_help="Run everything on this machine, without an account.")
@click.argument(
    "functions",
    default=Path("functions"),
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@click.option("--database-url", envvar="DATABASE_URL", help="Use this Postgres instead of our own.")
@click.option("--gateway-port", default=54321, show_default=True, type=_PORT)
@click.option("--engine-port", default=8288, show_default=True, type=_PORT)
@click.option("--host-port", default=8290, show_default=True, type=_PORT)
@click.option("--database-port", default=54322, show_default=True, type=_PORT)
@click.option(
    "--data",
    default=Path(".stepbase"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the database and the keys are kept.",
)
@click.option("--temporary", is_flag=True, help="Keep nothing.")
@click.option("--reset", is_flag=True, help="Begin with an empty database.")
@click.option(
    "--seed",
    default=Path("supabase/seed.sql"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run on a new database, if there is such a file.",
)
@click.option("--retry-interval", type=float, help="Fixed seconds between attempts.")
@click.option("--no-reload", is_flag=True, help="Do not watch for changed files.")
def command(
    functions: Path,
    database_url: str | None,
    gateway_port: int,
    engine_port: int,
    host_port: int,
    database_port: int,
    data: Path,
    temporary: bool,
    reset: bool,
    seed: Path,
    retry_interval: float | None,
    no_reload: bool,
) -> None:
    """Run Postgres, the REST gateway, the engine and the apps under FUNCTIONS until Ctrl-C.

    A port of 0 takes a free one. `supabase start` wants port 54321 too: give one of them another, or
    use what it runs. With a database of yours and SUPABASE_URL (and SUPABASE_SECRET_KEY) set, that
    API is used and no gateway started.
    """
    from rich.console import Console

    from stepbase.local import dev
    from stepbase.local.errors import LocalError
    from stepbase.local.stack import Plan

    if database_url is not None and dev.is_own(data, "DATABASE_URL", database_url):
        database_url = None
    try:
        api = dev.api(data) if database_url is not None else None
    except LookupError as error:
        raise click.ClickException(str(error)) from error
    plan = Plan(
        functions=functions,
        database_url=database_url,
        api=api,
        data=None if temporary else data,
        gateway_port=gateway_port,
        engine_port=engine_port,
        host_port=host_port,
        database_port=database_port,
        seed=seed if seed.is_file() else None,
        reload=not no_reload,
        watched=[path for path in (Path("shared"),) if path.is_dir()],
        engine_arguments=[f"--retry-interval={retry_interval:g}"] if retry_interval else [],
    )
    try:
        if reset:
            dev.forget(data)
        dev.run(plan, Console())
    except LocalError as error:
        raise click.ClickException(str(error)) from error
