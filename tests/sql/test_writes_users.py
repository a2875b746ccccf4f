"""Who a write runs as, and who may write."""

import asyncpg
import pytest
from tests.support.sql import refused, refused_write, write

_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"
_BOB = "0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11"

_NOTES = f"""
create table public.notes (id int primary key, user_id uuid default auth.uid(), body text);
alter table public.notes enable row level security;
create policy "own" on public.notes to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
insert into public.notes values (1, '{_ANN}', 'mine'), (2, '{_BOB}', 'theirs');
grant select, insert, update, delete on public.notes to authenticated, service_role;
create table public.letters (body text);
alter table public.letters enable row level security;
create policy "anyone writes" on public.letters for insert to authenticated with check (true);
grant insert on public.letters to authenticated;
create table public.locked (id int);
"""


@pytest.fixture
async def api(db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection as the REST API has it for the service: authenticator as service_role."""
    await db.execute(_NOTES)
    await db.execute("set local session authorization authenticator; set local role service_role")
    await db.execute("""set local "request.jwt.claims" = '{"role": "service_role"}'""")
    return db


async def test_as_user_obeys_row_level_security(api: asyncpg.Connection) -> None:
    edit = {"values": {"body": "x"}, "filters": {"id": {"gt": 0}}}

    ann = await write(api, "notes", "update", edit, key="ann", as_user={"sub": _ANN})
    service = await write(api, "notes", "update", edit, key="service")

    assert [row["id"] for row in ann.data] == [1]
    assert sorted(row["id"] for row in service.data) == [1, 2]


async def test_as_user_writes_as_that_user(api: asyncpg.Connection) -> None:
    mine = {"rows": [{"id": 3, "body": "new"}]}
    theirs = {"rows": [{"id": 4, "user_id": _BOB}]}

    answer = await write(api, "notes", "insert", mine, key="1", as_user={"sub": _ANN})
    error = await refused_write(
        api, "42501", "notes", "insert", theirs, key="2", as_user={"sub": _ANN}
    )

    assert answer.data == [{"id": 3, "user_id": _ANN, "body": "new"}]
    assert "row-level security" in str(error)
    assert await api.fetchval("select current_user || auth.role()") == "service_roleservice_role"


async def test_another_user_is_another_write(api: asyncpg.Connection) -> None:
    rows = {"rows": [{"id": 3}]}
    await write(api, "notes", "insert", rows, key="k", as_user={"sub": _ANN})

    bob = await refused_write(api, "SB001", "notes", "insert", rows, key="k", as_user={"sub": _BOB})

    assert "insert into public.notes with another (as_user)" in str(bob)


async def test_rows_that_may_not_be_read_can_be_written_without_them(
    api: asyncpg.Connection,
) -> None:
    rows = {"rows": [{"body": "x"}]}

    await refused_write(api, "42501", "letters", "insert", rows, key="k", as_user={"sub": _ANN})
    answer = await write(
        api, "letters", "insert", rows, key="k", as_user={"sub": _ANN}, returning=False
    )

    assert (answer.data, answer.replayed) == (None, False)


async def test_a_missing_grant_stays_that(api: asyncpg.Connection) -> None:
    error = await refused_write(api, "42501", "locked", "insert", {"rows": [{"id": 1}]}, key="k")

    assert "permission denied for table locked" in str(error)
    assert await api.fetchval("select count(*) from stepbase.ledger") == 0


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_only_the_service_may_write(ledger: asyncpg.Connection, role: str) -> None:
    await ledger.execute(f"set local role {role}")

    await refused(
        ledger, "42501", "select public.stepbase_write('effects', 'insert', '{\"rows\": []}')"
    )
