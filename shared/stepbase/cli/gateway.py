"""`stepbase gateway`: the REST gateway that supabase-py talks to, in front of any Postgres."""

from pathlib import Path

import click


@click.command("gateway")
@click.option("--host", default="127.0.0.1", show_default=True, envvar="STEPBASE_GATEWAY_HOST")
@click.option(
    "--port",
    default=54321,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="STEPBASE_GATEWAY_PORT",
    help="0 takes a free port.",
)
@click.option("--database-url", required=True, envvar="DATABASE_URL", help="Where Postgres is.")
@click.option(
    "--keys",
    default=Path(".stepbase/keys.json"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="STEPBASE_KEYS",
    help="File with the project's API keys; made at the first start.",
)
@click.option(
    "--schema", "schemas", multiple=True, default=["public"], show_default=True, help="Exposed."
)
@click.option(
    "--max-rows", default=1000, show_default=True, type=click.IntRange(1), help="In one answer."
)
@click.option("--jwks-url", envvar="STEPBASE_JWKS_URL", help="Also take tokens signed by its keys.")
def command(
    host: str,
    port: int,
    database_url: str,
    keys: Path,
    schemas: tuple[str, ...],
    max_rows: int,
    jwks_url: str | None,
) -> None:
    """Serve a Postgres database as Supabase's /rest/v1 does."""
    from stepbase import log
    from stepbase.local.errors import LocalError
    from stepbase.local.gateway.app import Gateway
    from stepbase.local.gateway.auth import Authenticator, Keys
    from stepbase.local.gateway.database import Database
    from stepbase.local.serving import Service, listen

    log.setup()
    try:
        sock = listen(host, port)
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    gateway = Gateway(
        Database(database_url, schemas),
        Authenticator(Keys.load(keys), jwks_url),
        schemas=schemas,
        most=max_rows,
    )
    Service(gateway, "gateway", sock).run()
