"""Migrations: order, history, errors that name their line, and the prelude on a bare database."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from tests.support.server import Server

from stepbase.local import migrate
from stepbase.local.errors import MigrationError


@pytest.fixture
async def bare(cluster: Server) -> AsyncIterator[str]:
    """The DSN of an empty database."""
    name = await cluster.create()
    yield cluster.dsn(name)
    await cluster.drop(name)


async def query(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_apply_runs_files_in_order_once(bare: str) -> None:
    files = {
        "20260102000000_more.sql": "insert into public.t values (2);",
        "20260101000000_table.sql": "create table public.t (n int);\ninsert into public.t values (1)",
    }

    first = await migrate.apply_files(bare, files)
    second = await migrate.apply_files(bare, files)

    assert first == sorted(files)
    assert second == []
    assert await query(bare, "select array_agg(n order by n) from public.t") == [1, 2]


async def test_apply_records_what_the_supabase_cli_records(bare: str) -> None:
    await migrate.apply_files(bare, {"20260101000000_two_words.sql": "select 1; select 2"})

    connection = await asyncpg.connect(bare)
    rows = await connection.fetch("select * from supabase_migrations.schema_migrations")
    await connection.close()

    assert [dict(row) for row in rows] == [
        {"version": "20260101000000", "name": "two_words", "statements": ["select 1", "select 2"]}
    ]


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("select 1;\n\ncreate table public.x (n int);\nselct 2;", 4),
        ("select 1;\nselect\n  a,\n  nothing\nfrom (values (1)) as t(a);", 4),
        (
            "create table public.x (n int check (n > 0));\n-- why\ninsert into public.x values (0);",
            3,
        ),
        (
            "create function public.f() returns int language plpgsql as $$\nbegin\n  retrun 1;\nend\n$$;",
            3,
        ),
    ],
)
async def test_apply_names_file_and_line_and_keeps_nothing(bare: str, sql: str, line: int) -> None:
    with pytest.raises(MigrationError, match=rf"20260101000000_bad\.sql:{line}: .*SQLSTATE"):
        await migrate.apply_files(bare, {"20260101000000_bad.sql": sql})

    assert await query(bare, "select count(*) from supabase_migrations.schema_migrations") == 0
    assert await query(bare, "select to_regclass('public.x')") is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.sql": ""}, "named <number>_<name>.sql"),
        ({"1_a.sql": "", "1_b.sql": ""}, "same number 1"),
    ],
)
async def test_apply_refuses_ambiguous_names(
    bare: str, files: dict[str, str], message: str
) -> None:
    with pytest.raises(MigrationError, match=message):
        await migrate.apply_files(bare, files)


async def test_apply_resets_settings_a_file_made(bare: str) -> None:
    files = {"1_a.sql": "set search_path = pg_catalog;", "2_b.sql": "create table t (n int);"}

    await migrate.apply_files(bare, files)

    assert await query(bare, "select to_regclass('public.t')::text") == "t"


async def test_two_appliers_take_turns(bare: str) -> None:
    files = {"1_a.sql": "create table public.t (n int);", "2_b.sql": "select pg_sleep(0.05);"}

    done = await asyncio.gather(*(migrate.apply_files(bare, files) for _ in range(4)))

    assert sorted(done) == [[], [], [], ["1_a.sql", "2_b.sql"]]


async def test_status_shows_both_sides(bare: str) -> None:
    before = await migrate.status(bare, {"1_a.sql": ""})
    await migrate.apply_files(bare, {"1_a.sql": "", "2_b.sql": ""})

    after = await migrate.status(bare, {"2_b.sql": "", "3_c.sql": ""})

    assert [(s.version, s.applied, s.in_folder) for s in before] == [("1", False, True)]
    assert [(s.version, s.name, s.applied, s.in_folder) for s in after] == [
        ("1", "a", True, False),
        ("2", "b", True, True),
        ("3", "c", False, True),
    ]


async def test_seed_keeps_all_or_nothing(bare: str, tmp_path: Path) -> None:
    await migrate.apply_files(bare, {"1_a.sql": "create table public.t (n int primary key);"})
    seed = tmp_path / "seed.sql"

    seed.write_text("insert into public.t values (1);\ninsert into public.t values (1);")
    with pytest.raises(MigrationError, match=r"seed\.sql:2: "):
        await migrate.seed(bare, seed)
    assert await query(bare, "select count(*) from public.t") == 0

    seed.write_text("insert into public.t values (1);\ninsert into public.t values (2);")
    await migrate.seed(bare, seed)
    assert await query(bare, "select count(*) from public.t") == 2


async def test_framework_migrations_apply_twice(bare: str) -> None:
    first = await migrate.apply(bare)

    assert first == list(migrate.read_folder(migrate.migrations_folder()))
    assert await migrate.apply(bare) == []


@pytest.mark.parametrize(
    ("claims", "uid", "role", "email"),
    [
        ("", None, None, None),
        (
            '{"sub": "5f9a0b1e-8f2d-4c41-9d55-2f0a2c3b4d5e", "role": "authenticated", "email": "a@b.c"}',
            "5f9a0b1e-8f2d-4c41-9d55-2f0a2c3b4d5e",
            "authenticated",
            "a@b.c",
        ),
    ],
)
async def test_auth_functions_read_the_claims(
    db: asyncpg.Connection, claims: str, uid: str | None, role: str | None, email: str | None
) -> None:
    await db.execute("select set_config('request.jwt.claims', $1, true)", claims)

    row = await db.fetchrow("select auth.uid()::text, auth.role(), auth.email()")

    assert row is not None
    assert tuple(row) == (uid, role, email)


async def test_prelude_makes_supabase_roles(db: asyncpg.Connection) -> None:
    rows = await db.fetch(
        "select rolname, rolinherit, rolcanlogin, rolbypassrls from pg_roles"
        " where rolname in ('anon', 'authenticated', 'service_role', 'authenticator')"
        " order by rolname"
    )

    assert [tuple(row) for row in rows] == [
        ("anon", False, False, False),
        ("authenticated", False, False, False),
        ("authenticator", False, True, False),
        ("service_role", False, False, True),
    ]


async def test_new_objects_are_not_granted_to_api_roles(db: asyncpg.Connection) -> None:
    await db.execute("create table public.t (n int)")
    await db.execute("create function public.f() returns int language sql as 'select 1'")

    for role in ("anon", "authenticated", "service_role"):
        assert not await db.fetchval(
            "select has_table_privilege($1, 'public.t', 'select')"
            " or has_function_privilege($1, 'public.f()', 'execute')",
            role,
        )


def test_what_a_project_in_the_clone_adds_is_not_the_frameworks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ["20250101093000_old.sql", "20261124001010_domain.sql", "20270101000000_guests.sql"]
    for file in ["20261124000100_schema.sql", *theirs]:
        (tmp_path / file).write_text("select 1;", "utf-8")
    monkeypatch.setattr(migrate, "migrations_folder", lambda: tmp_path)

    assert list(migrate.framework_files()) == ["20261124000100_schema.sql"]


async def test_a_file_that_was_changed_after_it_was_applied_is_named(bare: str) -> None:
    """Spaces and comments between statements are no change; what is new is none either."""
    files = {
        "20260101000000_a.sql": "create table public.a (id int);\n\nselect 1;",
        "20260101000001_b.sql": "create table public.b (id int);",
    }
    await migrate.apply_files(bare, files)

    later = {
        "20260101000000_a.sql": "create table public.a\n  (id int);\nselect 1;\n",
        "20260101000001_b.sql": "create table public.b (id bigint);",
        "20260101000002_c.sql": "create table public.c (id int);",
    }
    assert await migrate.changed(bare, files) == []
    assert await migrate.changed(bare, later) == ["20260101000001_b.sql"]
