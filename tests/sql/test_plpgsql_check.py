"""Every PL/pgSQL function of ours, looked through statement by statement without being run.

What plpgsql_check finds: names that do not exist, values of other types, what is never read or never
reached, casts nobody sees, injections. Where no plpgsql_check can be had, PL/pgSQL's own checks stand
alone. (SQL functions are checked by PostgreSQL when they are made.)
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.support import plpgsql_check

_FUNCTIONS = """
with ours as (
  select p.oid, p.prorettype = 'trigger'::regtype as is_trigger
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('stepbase', 'rewards', 'public')
      and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
)
select o.oid::regprocedure::text as name, 0::regclass::oid as relation from ours o
  where not o.is_trigger
union
select o.oid::regprocedure::text, t.tgrelid::oid from ours o join pg_trigger t on t.tgfoid = o.oid
order by 1, 2
"""
_FINDINGS = """
select c.level, c.lineno, c.message, c.detail, c.hint from plpgsql_check_function_tb(
  $1::text::regprocedure, $2::oid::regclass, fatal_errors => false, extra_warnings => true,
  performance_warnings => true, security_warnings => true) c
"""

# They execute what other functions of ours have put together with format and %I or %L.
_EXECUTE_TEXT = {"stepbase.make_row_triggers", "stepbase.run_call", "stepbase.track"}


@pytest.fixture
async def functions(db: asyncpg.Connection) -> list[tuple[str, int]]:
    """The functions by signature, trigger functions once for each table they work on."""
    rows = await db.fetch(_FUNCTIONS)
    assert len(rows) > 70
    return [(row["name"], row["relation"]) for row in rows]


async def test_every_function_compiles_with_all_of_postgres_own_checks(
    db: asyncpg.Connection, functions: list[tuple[str, int]]
) -> None:
    await db.execute("set local plpgsql.extra_errors = 'all'")

    for name, _ in functions:
        definition = await db.fetchval("select pg_get_functiondef($1::text::regprocedure)", name)
        await db.execute(definition)


async def test_plpgsql_check_finds_nothing(
    db: asyncpg.Connection, functions: list[tuple[str, int]]
) -> None:
    # Broken on purpose, in ways PostgreSQL itself does not notice before it is called.
    await db.execute(
        "create function public.broken() returns int language plpgsql as"
        " $$ declare v_one text[] := '{}'; begin return (select no_such from stepbase.runs); end $$"
    )
    async with plpgsql_check.installed(db) as is_there:
        if not is_there:
            return  # the test above is what can be had here
        broken = await db.fetch(_FINDINGS, "public.broken()", 0)
        found = [finding async for finding in _findings(db, functions)]
    assert {row["level"] for row in broken} >= {"error", "warning"}
    assert found == [], "\n".join(found)


async def _findings(db: asyncpg.Connection, functions: list[tuple[str, int]]) -> AsyncIterator[str]:
    for name, relation in functions:
        for row in await db.fetch(_FINDINGS, name, relation):
            if row["level"] != "security" or name.partition("(")[0] not in _EXECUTE_TEXT:
                yield f"{name}:{row['lineno']}: {row['message']}: {row['detail']}"
