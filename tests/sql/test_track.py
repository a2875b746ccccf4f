"""Row triggers: which changes of which rows emit which event."""

import json

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support.sql import refused

_COLUMNS = "user_id, source_id=id, amount=amount_cents"


@pytest.fixture
async def sales(db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with an empty table `sales` and an empty outbox."""
    await db.execute(
        """
        create table public.sales (
          id bigint generated always as identity primary key,
          user_id text,
          amount_cents bigint,
          status text
        )
        """
    )
    return db


async def track(db: asyncpg.Connection, when: str | None, columns: str | None = _COLUMNS) -> str:
    name = await db.fetchval(
        "select stepbase.track('public.sales', 'sale/paid', $1, $2)", when, columns
    )
    assert isinstance(name, str)
    return name


async def insert(db: asyncpg.Connection, status: str | None, amount: int = 5) -> None:
    await db.execute(
        "insert into public.sales (user_id, amount_cents, status) values ('u', $1, $2)",
        amount,
        status,
    )


async def emitted(db: asyncpg.Connection) -> list[dict[str, object]]:
    rows = await db.fetch("delete from stepbase.outbox returning payload")
    return [json.loads(row["payload"])["data"] for row in rows]


async def test_an_inserted_row_that_qualifies_emits_an_event(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'")

    await insert(sales, "pending")
    assert await emitted(sales) == []
    await insert(sales, "paid", 1250)

    payload = json.loads(await sales.fetchval("select payload from stepbase.outbox"))
    assert payload["name"] == "sale/paid"
    assert payload["data"] == {"user_id": "u", "source_id": 2, "amount": 1250}


async def test_a_row_trigger_and_emit_make_the_same_event(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'", "amount=amount_cents")
    await sales.execute("set stepbase.fake_now = '2027-03-01T12:00:00Z'")

    await insert(sales, "paid")
    await sales.execute("""select stepbase.emit('sale/paid', '{"amount": 5}')""")

    rows = await sales.fetch("select name, payload, created_at, due_at, tries from stepbase.outbox")
    first, second = ({**row, "payload": json.loads(row["payload"])} for row in rows)
    assert first["payload"].pop("id") != second["payload"].pop("id")
    assert first == second


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        ("pending", "paid", 1),
        (None, "paid", 1),
        ("paid", "paid", 0),
        ("paid", "shipped", 0),
        ("pending", None, 0),
    ],
)
async def test_an_updated_row_emits_when_it_comes_to_qualify(
    sales: asyncpg.Connection, before: str | None, after: str | None, events: int
) -> None:
    await insert(sales, before)
    await track(sales, "new.status = 'paid'")

    await sales.execute("update public.sales set status = $1", after)

    assert len(await emitted(sales)) == events


async def test_it_emits_each_time_the_condition_becomes_true(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'")

    for status in ("pending", "paid", "pending", "paid"):
        await sales.execute("delete from public.sales")
        await insert(sales, "pending")
        await sales.execute("update public.sales set status = $1", status)

    assert len(await emitted(sales)) == 2


async def test_an_upsert_that_updates_counts_as_an_update(sales: asyncpg.Connection) -> None:
    await insert(sales, "pending")
    await track(sales, "new.status = 'paid'")

    for _ in range(2):
        await sales.execute(
            """
            insert into public.sales (id, status) overriding system value values (1, 'paid')
            on conflict (id) do update set status = excluded.status
            """
        )

    assert [event["source_id"] for event in await emitted(sales)] == [1]


async def test_one_statement_emits_one_event_per_row(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'")

    await sales.execute(
        """
        insert into public.sales (amount_cents, status)
        select n, case when n % 2 = 0 then 'paid' else 'pending' end from generate_series(1, 10) n
        """
    )

    assert sorted(int(str(e["amount"])) for e in await emitted(sales)) == [2, 4, 6, 8, 10]


async def test_without_a_condition_every_inserted_row_emits_and_no_update_does(
    sales: asyncpg.Connection,
) -> None:
    await track(sales, None)

    await insert(sales, None)
    await sales.execute("update public.sales set status = 'paid'")

    assert len(await emitted(sales)) == 1


async def test_a_rolled_back_change_emits_nothing(connect: Connect) -> None:
    db = await connect()
    await db.execute("create table public.sales (id int primary key)")
    await db.execute("select stepbase.track('public.sales', 'sale/made')")

    with pytest.raises(ZeroDivisionError):
        async with db.transaction():
            await db.execute("insert into public.sales values (1)")
            raise ZeroDivisionError

    assert await emitted(db) == []


@pytest.mark.parametrize(
    ("columns", "data"),
    [
        (None, {"id": 1}),
        ("  ", {"id": 1}),
        ("amount_cents", {"amount_cents": 5}),
        (" a = id ,amount_cents", {"a": 1, "amount_cents": 5}),
        ("odd \"key'=id", {"odd \"key'": 1}),
        ("*", {"id": 1, "user_id": "u", "amount_cents": 5, "status": "paid"}),
    ],
)
async def test_columns_say_what_the_data_holds(
    sales: asyncpg.Connection, columns: str | None, data: dict[str, object]
) -> None:
    await track(sales, None, columns)

    await insert(sales, "paid")

    assert await emitted(sales) == [data]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("user_id, amount", 'there is no column "amount"'),
        ("a=b=id", 'there is no column "b=id"'),
        ("ctid", 'there is no column "ctid"'),
        ("id, id", '"id" is named twice'),
        ("id,", 'there is no column ""'),
        ("=id", '"" is named twice or empty'),
        (", ".join(f"k{n}=id" for n in range(51)), "51 columns are asked for, at most 50"),
    ],
)
async def test_columns_are_checked_at_once(
    sales: asyncpg.Connection, columns: str, message: str
) -> None:
    error = await refused(
        sales, "SB011", "select stepbase.track('public.sales', 'sale/paid', null, $1)", columns
    )

    assert "row trigger on public.sales: " in str(error)
    assert message in str(error)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("new.stat = 'paid'", "column new.stat does not exist"),
        ("new.status =", "syntax error"),
        ("new.status", "must be type boolean"),
        ("new.status = old.status", "cannot reference OLD"),
        ("new.id in (select id from public.sales)", "cannot use subquery"),
        ("new.amount_cents = 'much'", "invalid input syntax for type bigint"),
        ("no_such_function(new.id)", "does not exist"),
    ],
)
async def test_conditions_are_checked_at_once(
    sales: asyncpg.Connection, condition: str, message: str
) -> None:
    error = await refused(
        sales, "SB011", "select stepbase.track('public.sales', 'sale/paid', $1)", condition
    )

    assert f"the condition ({condition}) cannot be used: " in str(error)
    assert message in str(error)
    assert error.hint and "the event fires when that becomes true" in error.hint
    assert (
        await sales.fetchval("select count(*) from stepbase.row_triggers where event = 'sale/paid'")
        == 0
    )


@pytest.mark.parametrize(
    ("condition", "fires", "holds_back"),
    [
        ("NEW.status = 'paid' -- when it is paid", "paid", "x"),
        ("new.status = 'new.paid'", "new.paid", "paid"),
        ("new.status = 'it''s \"new.\" \\'", 'it\'s "new." \\', "x"),
        ("new.status ~ '^p' and new.amount_cents > 1", "paid", "x"),
        ("new.status in ('a', 'b') or new.status is null", "b", "c"),
        ("new is not null and new.status <> 'x'", "paid", "x"),
    ],
)
async def test_any_condition_on_the_row_may_be_given(
    sales: asyncpg.Connection, condition: str, fires: str, holds_back: str
) -> None:
    await track(sales, condition)

    await insert(sales, holds_back)
    assert await emitted(sales) == []
    await sales.execute("update public.sales set status = $1", fires)
    assert len(await emitted(sales)) == 1
    await sales.execute("update public.sales set status = status")
    assert await emitted(sales) == []


async def test_a_condition_may_use_the_applications_functions(sales: asyncpg.Connection) -> None:
    await sales.execute(
        """
        create function public.is_large(p_cents bigint) returns boolean
          language sql immutable as 'select p_cents > 100'
        """
    )
    await track(sales, "is_large(new.amount_cents)")

    await insert(sales, None, 100)
    await insert(sales, None, 101)

    assert [event["amount"] for event in await emitted(sales)] == [101]
    condition = await sales.fetchval(
        "select condition from stepbase.row_triggers where event = 'sale/paid'"
    )
    assert "is_large(new.amount_cents)" in condition


async def test_a_whole_row_of_auth_is_refused(db: asyncpg.Connection) -> None:
    error = await refused(
        db, "SB011", "select stepbase.track('auth.users', 'user/signup', null, '*')"
    )

    assert "'*' is refused in schema auth" in str(error)
    await db.execute("select stepbase.track('auth.users', 'user/signup', null, 'id, email')")
    await db.execute("insert into auth.users (email) values ('a@b.example')")
    [data] = await emitted(db)
    assert set(data) == {"id", "email"}


@pytest.mark.parametrize(
    ("definition", "table"),
    [
        ("create view public.odd as select 1 as id", "odd"),
        ("create materialized view public.odd as select 1 as id", "odd"),
        ("create temporary table odd (id int primary key)", "odd"),
        ("select 1", "stepbase.outbox"),
    ],
)
async def test_only_ordinary_tables_are_tracked(
    db: asyncpg.Connection, definition: str, table: str
) -> None:
    await db.execute(definition)

    error = await refused(db, "SB011", f"select stepbase.track('{table}', 'a/b')")

    assert "only an ordinary table can have one" in str(error)


async def test_a_table_without_a_primary_key_needs_columns(db: asyncpg.Connection) -> None:
    await db.execute("create table public.keyless (x int)")

    error = await refused(db, "SB011", "select stepbase.track('public.keyless', 'a/b')")

    assert "no primary key" in str(error)


async def test_the_event_name_is_checked_at_once(sales: asyncpg.Connection) -> None:
    await refused(sales, "SB010", "select stepbase.track('public.sales', 'inngest/x')")


async def test_track_again_replaces(sales: asyncpg.Connection) -> None:
    first = await track(sales, "new.status = 'paid'")
    second = await track(sales, "new.status = 'done'", "id")

    await insert(sales, "paid")
    await insert(sales, "done")

    assert first == second
    assert await emitted(sales) == [{"id": 2}]


async def test_events_of_one_table_are_tracked_apart(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'")
    await sales.execute("select stepbase.track('public.sales', 'sale/any')")
    await insert(sales, "paid")
    assert len(await emitted(sales)) == 2

    assert await sales.fetchval("select stepbase.untrack('public.sales', 'sale/paid')") == 1
    await insert(sales, "paid")

    assert await emitted(sales) == [{"id": 2}]


async def test_untrack_leaves_nothing_behind(sales: asyncpg.Connection) -> None:
    objects = """
      select count(*) from pg_proc where pronamespace = 'stepbase'::regnamespace
      union all select count(*) from pg_trigger
      union all select count(*) from stepbase.row_triggers
    """
    before = await sales.fetch(objects)
    await track(sales, "new.status = 'paid'")
    await sales.execute("select stepbase.track('public.sales', 'sale/any')")

    assert await sales.fetchval("select stepbase.untrack('public.sales')") == 2

    assert await sales.fetch(objects) == before
    assert await sales.fetchval("select stepbase.untrack('public.sales')") == 0


async def test_a_dropped_table_is_forgotten(sales: asyncpg.Connection) -> None:
    name = await track(sales, "new.status = 'paid'")
    await sales.execute("drop table public.sales; create table public.sales (id int primary key)")

    assert await track(sales, None, None) == name
    await sales.execute("insert into public.sales values (7)")

    assert await emitted(sales) == [{"id": 7}]


async def test_a_renamed_table_keeps_its_row_triggers(sales: asyncpg.Connection) -> None:
    await track(sales, None, "id")
    await sales.execute("alter table public.sales rename to old_sales")
    await sales.execute("create table public.sales (id int primary key)")
    await track(sales, None, "x=id")

    await sales.execute("insert into public.old_sales (status) values ('paid')")
    await sales.execute("insert into public.sales values (7)")

    assert sorted(map(str, await emitted(sales))) == ["{'id': 1}", "{'x': 7}"]
    assert await sales.fetchval("select stepbase.untrack('public.old_sales')") == 1


async def test_the_partitions_of_a_table_emit(db: asyncpg.Connection) -> None:
    await db.execute(
        """
        create table public.parted (id int primary key, status text) partition by range (id);
        create table public.parted_1 partition of public.parted for values from (0) to (10);
        select stepbase.track('public.parted', 'a/b', $$ new.status = 'x' $$);
        create table public.parted_2 partition of public.parted for values from (10) to (20);
        insert into public.parted values (1, 'x'), (11, 'x'), (12, 'y');
        update public.parted set status = 'x';
        """
    )

    assert sorted(int(str(e["id"])) for e in await emitted(db)) == [1, 11, 12]


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_any_role_that_may_write_the_table_emits(
    sales: asyncpg.Connection, role: str
) -> None:
    await track(sales, "new.status = 'paid'")
    await sales.execute(f"grant insert on public.sales to {role}; set role {role}")

    await insert(sales, "paid")

    await sales.execute("reset role")
    assert len(await emitted(sales)) == 1


async def test_no_api_role_may_track(sales: asyncpg.Connection) -> None:
    await sales.execute("grant all on public.sales to service_role; set role service_role")

    await refused(sales, "42501", "select stepbase.track('public.sales', 'a/b')")
    await refused(sales, "42501", "select stepbase.untrack('public.sales')")


async def test_an_error_inside_names_the_table_and_the_event(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'")
    await sales.execute("alter table public.sales rename amount_cents to cents")

    error = await refused(sales, "SB012", "insert into public.sales (status) values ('paid')")

    assert 'row trigger on public.sales, event "sale/paid": record "new" has no field' in str(error)
    assert error.detail == "SQLSTATE 42703"
    assert error.hint and "call stepbase.track again" in error.hint


async def test_an_event_that_is_too_large_names_the_table(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'")

    error = await refused(
        sales,
        "SB010",
        "insert into public.sales (user_id, status) values (repeat('x', 3145728), 'paid')",
    )

    assert 'row trigger on public.sales: event "sale/paid" has' in str(error)


async def test_trigger_functions_are_static_definers_with_an_empty_search_path(
    sales: asyncpg.Connection,
) -> None:
    name = await track(sales, "new.status = 'paid'")

    proc = await sales.fetchrow(
        """
        select prosecdef, proconfig, prosrc, array(
            select role from unnest(array['public', 'anon', 'authenticated', 'service_role']) as role
            where has_function_privilege(role, p.oid, 'execute')
          ) as callers
        from pg_proc as p where proname = $1
        """,
        f"emit_{name}",
    )

    assert proc is not None
    assert (proc["prosecdef"], proc["proconfig"]) == (True, ['search_path=""'])
    assert "execute" not in proc["prosrc"].lower()
    assert "new.amount_cents" in proc["prosrc"]
    assert proc["callers"] == []


async def test_rows_that_do_not_qualify_call_no_function(sales: asyncpg.Connection) -> None:
    await track(sales, "new.status = 'paid'")

    plan = "\n".join(
        row[0]
        for row in await sales.fetch(
            "explain (analyze, timing off) insert into public.sales (status) values ('pending')"
        )
    )

    assert "Trigger" not in plan
