"""`stepbase token`: a signed-in user of the local stack, which has no auth server."""

from pathlib import Path

import click


@click.command("token", short_help="Print an access token, for the local stack.")
@click.argument("user_id")
@click.option(
    "--data",
    default=Path(".stepbase"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where `stepbase dev` keeps its keys.",
)
@click.option(
    "--url",
    default="http://127.0.0.1:54321",
    show_default=True,
    envvar="SUPABASE_URL",
    help="The gateway's URL.",
)
@click.option("--email", help="The user's address.")
@click.option("--anonymous", is_flag=True, help="Signed in without an account.")
@click.option("--seconds", default=3600, show_default=True, type=click.IntRange(1))
def command(
    user_id: str, data: Path, url: str, email: str | None, anonymous: bool, seconds: int
) -> None:
    """Print an access token of user USER_ID (a UUID), as signing in on Supabase gives one."""
    import uuid

    from stepbase.local.gateway.auth import Keys

    path = data / "keys.json"
    if not path.is_file():
        raise click.ClickException(f"no {path}: start `stepbase dev` once, which makes the keys")
    try:
        user_id = str(uuid.UUID(user_id))
    except ValueError as error:
        # `auth.uid()` casts it, so every row level policy would fail on another one.
        raise click.UsageError(
            "USER_ID is a UUID, as in auth.users, such as 7b1c0000-0000-4000-8000-000000000001; "
            f"got {user_id!r}"
        ) from error
    claims: dict[str, object] = {
        "iss": f"{url.rstrip('/')}/auth/v1",
        "is_anonymous": anonymous,
        **({"email": email} if email else {}),
    }
    click.echo(Keys.load(path).user_token(user_id, lifetime=seconds, **claims))
