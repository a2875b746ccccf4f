"""Who a call runs as, and who may call."""

import asyncpg
import pytest
from tests.support.sql import call, refused, refused_call

_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"
_BOB = "0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11"


_NOTES = """
create table public.notes (id int primary key, user_id uuid, body text);
alter table public.notes enable row level security;
create policy "own" on public.notes to authenticated using (user_id = auth.uid());
insert into public.notes values (1, $1, 'mine'), (2, $2, 'theirs');
grant select, update on public.notes to authenticated, service_role;
create function public.edit_notes(p_body text) returns setof int language sql
  as 'update notes set body = p_body returning id';
create function public.whoami() returns text[] language sql stable
  as $f$ select array[current_user, auth.uid()::text, auth.role(), auth.jwt() ->> 'email'] $f$;
grant execute on function public.edit_notes, public.whoami to authenticated, service_role;
"""


@pytest.fixture
async def api(db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection as the REST API has it for the service: authenticator as service_role."""
    sql = _NOTES.replace("$1", f"'{_ANN}'").replace("$2", f"'{_BOB}'")
    await db.execute(sql)
    await db.execute("set local session authorization authenticator; set local role service_role")
    await db.execute("""set local "request.jwt.claims" = '{"role": "service_role"}'""")
    return db


async def test_as_user_obeys_row_level_security(api: asyncpg.Connection) -> None:
    ann = await call(api, "edit_notes", {"p_body": "x"}, key="ann", as_user={"sub": _ANN})
    service = await call(api, "edit_notes", {"p_body": "x"}, key="service")

    assert ann.data == [1]
    assert sorted(service.data) == [1, 2]


async def test_as_user_runs_with_the_users_claims_and_puts_the_services_back(
    api: asyncpg.Connection,
) -> None:
    claims = {"sub": _ANN, "email": "ann@shop.example"}

    answer = await call(api, "whoami", as_user=claims)

    assert answer.data == ["authenticated", _ANN, "authenticated", "ann@shop.example"]
    assert await api.fetchval("select public.whoami()") == [
        "service_role",
        None,
        "service_role",
        None,
    ]


async def test_as_user_is_put_back_by_an_error(api: asyncpg.Connection) -> None:
    await refused_call(api, "22P02", "whoami", as_user={"sub": "not a uuid"})

    assert await api.fetchval("select current_user || auth.role()") == "service_roleservice_role"


async def test_another_user_is_another_call(api: asyncpg.Connection) -> None:
    args = {"p_body": "x"}
    await call(api, "edit_notes", args, key="k", as_user={"sub": _ANN, "iat": 1})
    again = await call(api, "edit_notes", args, key="k", as_user={"sub": _ANN, "iat": 2})

    bob = await refused_call(api, "SB001", "edit_notes", args, key="k", as_user={"sub": _BOB})
    nobody = await refused_call(api, "SB001", "edit_notes", args, key="k")

    assert again.replayed is True
    assert "with another (as_user)" in str(bob)
    assert "with another (as_user)" in str(nobody)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": ""},
        {"sub": None},
        {"sub": _ANN, "role": "service_role"},
        {"role": "authenticated"},
    ],
)
async def test_as_user_needs_a_user(api: asyncpg.Connection, claims: dict[str, object]) -> None:
    error = await refused_call(api, "22023", "whoami", as_user=claims)

    assert "as_user needs the claims of a user" in str(error)


async def test_a_call_as_user_needs_the_users_grant(ledger: asyncpg.Connection) -> None:
    await ledger.execute("revoke execute on function public.add_effect from public")

    error = await refused_call(
        ledger, "42501", "add_effect", {"p_note": "a"}, key="k", as_user={"sub": _ANN}
    )

    assert "permission denied for function add_effect" in str(error)


async def test_a_missing_grant_stays_that(ledger: asyncpg.Connection) -> None:
    await ledger.execute("revoke execute on function public.add_effect from public")
    await ledger.execute("set local role service_role")

    error = await refused_call(ledger, "42501", "add_effect", {"p_note": "a"}, key="k")

    assert "permission denied for function add_effect" in str(error)


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_only_the_service_may_call(ledger: asyncpg.Connection, role: str) -> None:
    await ledger.execute(f"set local role {role}")

    await refused(ledger, "42501", "select public.stepbase_call('add_effect')")
