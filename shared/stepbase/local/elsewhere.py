"""A Supabase API that is there already, such as that of `supabase start`: used instead of our gateway."""

import secrets

import asyncpg
import httpx

from stepbase import config
from stepbase.config import SupabaseConfig
from stepbase.local.errors import ApiAwayError

_SECONDS = 10.0
_VARIABLES = (
    "SUPABASE_URL",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_SECRET_KEYS",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_PUBLISHABLE_KEY",
    "SUPABASE_PUBLISHABLE_KEYS",
    "SUPABASE_ANON_KEY",
    "SUPABASE_JWT_ISSUER",
    "SUPABASE_JWT_SECRET",
    "SUPABASE_JWKS",
)
"""What functions read of a project; the CLI's own keys are not among them."""

# stepbase_call looks the function up when it is called, so no schema cache has to know it.
_PROBE = """
create or replace function public.dev_probe_of_stepbase() returns text
  language sql stable set search_path = '' as $$ select '{token}' $$;
revoke all on function public.dev_probe_of_stepbase() from public, anon, authenticated;
grant execute on function public.dev_probe_of_stepbase() to service_role;
"""


def variables() -> dict[str, str]:
    """Return what this process's environment says of a Supabase project."""
    known = config.environment()
    return {name: known[name] for name in _VARIABLES if known.get(name)}


async def check(api: SupabaseConfig, database_url: str) -> None:
    """Check that the API answers, takes the key, and serves this very database.

    A function is made in `public` for a moment and called through the API: keys of one project and the
    database of another would otherwise show when something has been written to the wrong one.

    Raises:
        ApiAwayError: It does not; the message says which of the three, and what to do.
    """
    token = secrets.token_hex(8)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(_PROBE.format(token=token))
        answer = await _ask(api)
    finally:
        await connection.execute("drop function if exists public.dev_probe_of_stepbase()")
        await connection.close()
    if answer.status_code in (401, 403):
        raise ApiAwayError(
            f"SUPABASE_URL={api.url} does not take the key ({answer.text[:200]}): set SUPABASE_SECRET_KEY "
            "to the secret key of that project (`supabase status` shows a local one's)"
        )
    if answer.status_code != 200 or token not in answer.text:
        raise ApiAwayError(
            f"SUPABASE_URL={api.url} serves another database than DATABASE_URL: point both at one project, "
            "or unset SUPABASE_URL for a gateway of our own. If it is one project, its API has not seen "
            "the new functions yet: notify pgrst, 'reload schema'. "
            f"It said {answer.status_code} {answer.text[:200]}"
        )


async def _ask(api: SupabaseConfig) -> httpx.Response:
    headers = {"apikey": api.secret_key, "authorization": f"Bearer {api.secret_key}"}
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, headers=headers) as client:
            return await client.post(
                f"{api.url}/rest/v1/rpc/stepbase_call", json={"p_function": "dev_probe_of_stepbase"}
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ApiAwayError(
            f"SUPABASE_URL={api.url} does not answer ({error!r}): is `supabase start` running? Unset "
            "SUPABASE_URL for a gateway of our own"
        ) from error
