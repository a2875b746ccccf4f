"""What can be called through the ledger, with what around it, and how long it may take."""

import asyncpg
import pytest
from tests.support.sql import call, effects, refused_call

_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"


async def test_a_result_over_four_mebibytes_is_refused_and_undone(
    ledger: asyncpg.Connection,
) -> None:
    await ledger.execute(
        """
        create function public.long(p int) returns text language plpgsql as $$
        begin perform add_effect('a'); return repeat('x', p); end $$
        """
    )
    assert len((await call(ledger, "long", {"p": 4194302}, key="fits")).data) == 4194302

    error = await refused_call(ledger, "SB003", "long", {"p": 4194303}, key="too long")

    assert "4194305 bytes, at most 4194304 (4 MiB)" in str(error)
    assert await effects(ledger) == 1


async def test_a_function_that_is_not_there_says_what_is(ledger: asyncpg.Connection) -> None:
    unknown = await refused_call(ledger, "42883", "add_efect", {"p_note": "a"}, key="k")
    wrong = await refused_call(ledger, "42883", "add_effect", {"note": "a"}, key="k")
    missing = await refused_call(ledger, "42883", "add_effect", {"p_amount": 1}, key="k")

    assert "SQL function add_efect(p_note) was not found" in str(unknown)
    assert unknown.hint and "Is the migration that makes it applied?" in unknown.hint
    assert unknown.detail == "There is no function of that name in the schemas open to steps."
    for error in (wrong, missing):
        assert error.detail and "public.add_effect(p_note text, p_amount numeric" in error.detail


async def test_arguments_must_be_an_object(ledger: asyncpg.Connection) -> None:
    error = await refused_call(ledger, "22023", "add_effect", "[1]", key="k")

    assert "must be a JSON object by parameter name, not array" in str(error)


async def test_a_value_of_the_wrong_type_is_refused_as_the_database_does(
    ledger: asyncpg.Connection,
) -> None:
    await refused_call(ledger, "22P02", "add_effect", {"p_note": "a", "p_amount": "x"}, key="k")


@pytest.mark.parametrize(
    ("definition", "args", "reason"),
    [
        ("procedure public.odd(p int) language sql as ''", {"p": 1}, "is a procedure"),
        (
            "function public.odd(variadic p int[]) returns int language sql as 'select 1'",
            {"p": [1]},
            "is variadic",
        ),
        (
            "function public.odd(p anyelement) returns int language sql as 'select 1'",
            {"p": 1},
            "takes any type",
        ),
        (
            "function public.odd() returns setof record language sql as 'select 1'",
            {},
            "returns rows without named columns",
        ),
        (
            "function public.odd() returns trigger language plpgsql as 'begin end'",
            {},
            "is a trigger function",
        ),
        ("aggregate public.odd(int) (sfunc = int4pl, stype = int)", {}, "was not found"),
        (
            "function public.stepbase_odd() returns int language sql as ''",
            {},
            "is one of stepbase's",
        ),
    ],
)
async def test_what_cannot_be_called_says_why(
    db: asyncpg.Connection, definition: str, args: dict[str, object], reason: str
) -> None:
    if "stepbase_odd" in definition:
        definition = definition.replace("as ''", "as 'select 1'")
    await db.execute(f"create {definition}")
    name = "stepbase_odd" if "stepbase_odd" in definition else "odd"

    error = await refused_call(
        db, "42883" if "not found" in reason else "SB002", name, args, key="k"
    )

    assert reason in str(error)


async def test_only_schemas_that_are_open_can_be_called(db: asyncpg.Connection) -> None:
    await db.execute(
        """
        create schema shop;
        create function shop.price() returns int language sql as 'select 7';
        create function pg_temp.sneaky() returns int language sql as 'select 7';
        """
    )

    closed = await refused_call(db, "SB002", "shop.price", key="k")
    await refused_call(db, "42883", "price", key="k")
    await refused_call(db, "SB002", "pg_catalog.pg_sleep", {"": 0}, key="k")
    await refused_call(db, "42883", "sneaky", key="k")
    await refused_call(db, "SB002", "stepbase.emit", {"name": "a", "data": {}}, key="k")

    assert closed.hint == "Open it: insert into stepbase.callable_schemas values ('shop')."
    await db.execute("insert into stepbase.callable_schemas values ('shop')")
    assert (await call(db, "shop.price", key="k")).data == 7
    assert (await call(db, "price", key="k")).replayed is True


async def test_a_function_runs_with_the_search_path_of_the_api(db: asyncpg.Connection) -> None:
    await db.execute(
        """
        create function public.path() returns text language sql stable
          as $$ select current_setting('search_path') $$
        """
    )

    assert (await call(db, "path")).data == "public, public, extensions"


async def test_nothing_of_a_call_stays_set(ledger: asyncpg.Connection) -> None:
    settings = """
      select array[current_user, current_setting('role'), current_setting('search_path'),
        current_setting('lock_timeout'), coalesce(current_setting('request.jwt.claims', true), '')]
    """
    await ledger.execute("set local lock_timeout = '7s'")
    await ledger.execute("grant execute on all functions in schema public to authenticated")
    await ledger.execute("grant all on public.effects to authenticated")
    before = await ledger.fetchval(settings)

    options = {"key": "k", "as_user": {"sub": _ANN}, "timeout_ms": 500}
    for _ in range(2):
        await call(ledger, "add_effect", {"p_note": "a"}, **options)  # type: ignore[arg-type]
        assert await ledger.fetchval(settings) == before
    await refused_call(ledger, "SB001", "add_effect", {"p_note": "b"}, **options)
    assert await ledger.fetchval(settings) == before


async def test_a_timeout_cuts_waits_for_locks(
    two: tuple[asyncpg.Connection, asyncpg.Connection],
) -> None:
    first, second = two
    await first.execute("begin; lock table public.effects")

    await refused_call(second, "55P03", "add_effect", {"p_note": "a"}, key="k", timeout_ms=50)

    await first.execute("rollback")
    assert await second.fetchval("select count(*) from stepbase.ledger") == 0
    assert not (
        await call(second, "add_effect", {"p_note": "a"}, key="k", timeout_ms=5000)
    ).replayed


async def test_a_timeout_cuts_the_wait_for_the_key(
    two: tuple[asyncpg.Connection, asyncpg.Connection],
) -> None:
    first, second = two
    await first.execute("begin")
    await call(first, "add_effect", {"p_note": "a"}, key="k")

    await refused_call(second, "55P03", "add_effect", {"p_note": "a"}, key="k", timeout_ms=50)


async def test_the_statement_timeout_cuts_everything_else(ledger: asyncpg.Connection) -> None:
    """The request's own, set before the call: PostgREST takes it from the function, see below."""
    await ledger.execute(
        """
        create function public.slow() returns void language plpgsql as $$
        begin perform add_effect('a'); perform pg_sleep(60); end $$
        """
    )
    await ledger.execute("set local statement_timeout = '50ms'")

    await refused_call(ledger, "57014", "slow", key="k", timeout_ms=10)

    assert await effects(ledger) == 0


async def test_the_api_is_told_to_allow_a_minute(db: asyncpg.Connection) -> None:
    settings = await db.fetchval(
        "select proconfig from pg_proc where oid = 'public.stepbase_call'::regproc"
    )

    assert sorted(settings) == ['search_path=""', "statement_timeout=60s"]
