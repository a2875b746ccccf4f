"""Exactly-once calls: keys, what happens to two at once, and who a call runs as."""

import asyncio
import json
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support.sql import blocked, call, refused, refused_call

_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"
_BOB = "0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11"

# An effect that can be counted: each call adds a row and returns how many there are.
_EFFECT = """
create table public.effects (id bigint generated always as identity, note text, amount numeric);
create function public.add_effect(p_note text, p_amount numeric default 1, p_more json default null)
  returns bigint
  language plpgsql as $$
begin
  insert into effects (note, amount) values (p_note, p_amount);
  return (select count(*) from effects);
end
$$;
"""


@pytest.fixture
async def ledger(db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with `add_effect`."""
    await db.execute(_EFFECT)
    return db


@pytest.fixture
async def two(connect: Connect) -> tuple[asyncpg.Connection, asyncpg.Connection]:
    """Two connections to a database of the test's own with `add_effect`."""
    first, second = await connect(), await connect()
    await first.execute(_EFFECT)
    return first, second


async def effects(db: asyncpg.Connection) -> int:
    count = await db.fetchval("select count(*) from public.effects")
    assert isinstance(count, int)
    return count


async def test_the_same_key_twice_is_one_effect_and_the_same_answer(
    ledger: asyncpg.Connection,
) -> None:
    first = await call(ledger, "add_effect", {"p_note": "a"}, key="award:1")
    second = await call(ledger, "add_effect", {"p_note": "a"}, key="award:1")

    assert (first.data, first.replayed) == (1, False)
    assert (second.data, second.replayed) == (1, True)
    assert await effects(ledger) == 1


async def test_run_and_step_are_the_key_when_none_is_given(ledger: asyncpg.Connection) -> None:
    args = {"p_note": "a"}
    assert (await call(ledger, "add_effect", args, run_id="r1", step="s1")).replayed is False
    assert (await call(ledger, "add_effect", args, run_id="r1", step="s1")).replayed is True
    assert (await call(ledger, "add_effect", args, run_id="r1", step="s2")).replayed is False
    assert (await call(ledger, "add_effect", args, run_id="r2", step="s1")).replayed is False

    assert await effects(ledger) == 3


async def test_a_business_key_outlives_its_run(ledger: asyncpg.Connection) -> None:
    args = {"p_note": "a"}
    first = await call(ledger, "add_effect", args, run_id="r1", step="s1", key="k")
    again = await call(ledger, "add_effect", args, run_id="r2", step="s9", key="k")

    assert (first.replayed, again.replayed) == (False, True)
    row = await ledger.fetchrow("select key, run_id, step, fn, result from stepbase.ledger")
    assert row is not None
    assert tuple(row) == ("key:k", "r1", "s1", "public.add_effect", "1")


async def test_a_business_key_and_a_run_key_never_meet(ledger: asyncpg.Connection) -> None:
    await call(ledger, "add_effect", {"p_note": "a"}, run_id="r", step="s")

    assert not (await call(ledger, "add_effect", {"p_note": "a"}, key="r:s")).replayed


async def test_of_two_at_once_the_second_waits_and_gets_the_first_result(
    two: tuple[asyncpg.Connection, asyncpg.Connection], connect: Connect
) -> None:
    first, second = two
    transaction = first.transaction()
    await transaction.start()
    await call(first, "add_effect", {"p_note": "a"}, key="k")

    waiting = asyncio.create_task(call(second, "add_effect", {"p_note": "a"}, key="k"))
    await blocked(await connect(), second)
    assert not waiting.done()
    await transaction.commit()

    answer = await waiting
    assert (answer.data, answer.replayed) == (1, True)
    assert await effects(second) == 1


async def test_of_two_at_once_the_second_goes_ahead_when_the_first_is_rolled_back(
    two: tuple[asyncpg.Connection, asyncpg.Connection], connect: Connect
) -> None:
    first, second = two
    transaction = first.transaction()
    await transaction.start()
    await call(first, "add_effect", {"p_note": "a"}, key="k")

    waiting = asyncio.create_task(call(second, "add_effect", {"p_note": "a"}, key="k"))
    await blocked(await connect(), second)
    await transaction.rollback()

    assert (await waiting).replayed is False
    assert await effects(second) == 1


async def test_a_caller_that_is_killed_leaves_the_key_to_the_next(
    two: tuple[asyncpg.Connection, asyncpg.Connection], connect: Connect
) -> None:
    first, second = two
    observer = await connect()
    await first.execute("begin")
    await call(first, "add_effect", {"p_note": "a"}, key="k")

    waiting = asyncio.create_task(call(second, "add_effect", {"p_note": "a"}, key="k"))
    await blocked(observer, second)
    await observer.execute("select pg_terminate_backend($1)", first.get_server_pid())

    assert (await waiting).replayed is False
    assert await effects(second) == 1


async def test_a_rolled_back_call_leaves_nothing(
    two: tuple[asyncpg.Connection, asyncpg.Connection],
) -> None:
    db, _ = two
    with pytest.raises(ZeroDivisionError):
        async with db.transaction():
            await call(db, "add_effect", {"p_note": "a"}, key="k")
            raise ZeroDivisionError

    assert await db.fetchval("select count(*) from stepbase.ledger") == 0
    assert (await call(db, "add_effect", {"p_note": "a"}, key="k")).replayed is False
    assert await effects(db) == 1


async def test_a_function_that_raises_leaves_no_key(ledger: asyncpg.Connection) -> None:
    await ledger.execute(
        """
        create function public.refuse(p_note text) returns int language plpgsql as $$
        begin
          perform add_effect(p_note);
          raise exception 'no %', p_note using hint = 'Try another.';
        end
        $$
        """
    )

    error = await refused_call(ledger, "P0001", "refuse", {"p_note": "way"}, key="k")

    assert (str(error).splitlines()[0], error.hint) == ("no way", "Try another.")
    assert await ledger.fetchval("select count(*) from stepbase.ledger") == 0
    assert await effects(ledger) == 0


async def test_other_arguments_are_an_error_that_names_them(ledger: asyncpg.Connection) -> None:
    args = {"p_note": "a", "p_amount": 5}
    await call(ledger, "add_effect", args, key="award:7")

    one = await refused_call(ledger, "SB001", "add_effect", {**args, "p_amount": 6}, key="award:7")
    two = await refused_call(
        ledger, "SB001", "add_effect", {"p_note": "b", "p_more": {}}, key="award:7"
    )

    assert str(one).splitlines()[0] == (
        'ledger key "key:award:7" stands for a call of public.add_effect with another p_amount'
    )
    assert "with another p_amount, p_more, p_note" in str(two)
    assert await effects(ledger) == 1


async def test_another_function_is_an_error_that_names_both(ledger: asyncpg.Connection) -> None:
    await ledger.execute(
        "create function public.other(p_note text) returns int language sql as 'select 1'"
    )
    await call(ledger, "add_effect", {"p_note": "a"}, key="k")

    error = await refused_call(ledger, "SB001", "other", {"p_note": "a"}, key="k")

    assert "a call of public.add_effect, and cannot be used for public.other" in str(error)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"p_note": "a", "p_amount": 1}', '{"p_amount":1,"p_note":"a"}'),
        ('{"p_note": "a", "p_amount": 1}', '{"p_note": "a", "p_amount": 1.00}'),
        ('{"p_note": "a", "p_amount": 100}', '{"p_note": "a", "p_amount": 1e2}'),
        ('{"p_note": "\\u0061"}', '{"p_note": "a"}'),
        (
            '{"p_note": "a", "p_more": {"x": [1, {"y": null}], "z": 2}}',
            '{"p_note": "a", "p_more": {"z": 2.0, "x": [1,{"y":null}]}}',
        ),
    ],
)
async def test_the_same_json_value_is_the_same_argument(
    ledger: asyncpg.Connection, one: str, other: str
) -> None:
    await call(ledger, "add_effect", one, key="k")

    assert (await call(ledger, "add_effect", other, key="k")).replayed is True


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ('{"p_note": "1"}', '{"p_note": 1}', "p_note"),
        ('{"p_note": "a"}', '{"p_note": "a", "p_amount": 1}', "p_amount"),
        ('{"p_note": "a", "p_more": null}', '{"p_note": "a"}', "p_more"),
        ('{"p_note": "a", "p_more": [1, 2]}', '{"p_note": "a", "p_more": [2, 1]}', "p_more"),
        ('{"p_note": "a"}', '{"p_note": "a "}', "p_note"),
    ],
)
async def test_another_json_value_is_another_argument(
    ledger: asyncpg.Connection, one: str, other: str, names: str
) -> None:
    await call(ledger, "add_effect", one, key="k")

    error = await refused_call(ledger, "SB001", "add_effect", other, key="k")

    assert str(error).splitlines()[0].endswith(f"with another {names}")


async def test_argument_hashes_are_the_same_on_every_server(db: asyncpg.Connection) -> None:
    """A key outlives upgrades of PostgreSQL by a year, so its hashes must not change with them."""
    hashes = await db.fetchval(
        """select stepbase.hash_args('{"a": 12.50, "b": "x", "c": [true, null, {"d": 1}]}', null)"""
    )

    assert json.loads(hashes) == {
        "a": "e3bbb6381f93bc57",
        "b": "796902d6c0125889",
        "c": "bd41b5329db028ac",
    }


async def test_reads_make_no_entry_and_need_no_key(ledger: asyncpg.Connection) -> None:
    await ledger.execute(
        """
        create function public.count_effects() returns bigint language sql stable
          as 'select count(*) from effects';
        create function public.twice(p int) returns int language sql immutable as 'select 2 * p';
        """
    )
    assert (await call(ledger, "count_effects")).data == 0
    await ledger.execute("select public.add_effect('a')")

    again = await call(ledger, "count_effects", run_id="r", step="s", key="k")

    assert (again.data, again.replayed) == (1, False)
    assert (await call(ledger, "twice", {"p": 4})).data == 8
    assert await ledger.fetchval("select count(*) from stepbase.ledger") == 0


@pytest.mark.parametrize(
    ("run_id", "step", "key"),
    [
        (None, None, None),
        ("r", None, None),
        (None, "s", None),
        ("r", "s", ""),
        (None, None, "k" * 1001),
    ],
)
async def test_an_effect_needs_a_key(
    ledger: asyncpg.Connection, run_id: str | None, step: str | None, key: str | None
) -> None:
    error = await refused_call(
        ledger, "SB004", "add_effect", {"p_note": "a"}, run_id=run_id, step=step, key=key
    )

    assert "a call of public.add_effect needs a key" in str(error)


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


async def test_pruned_results_are_an_error_and_pruned_keys_are_new(
    ledger: asyncpg.Connection,
) -> None:
    await ledger.execute("set stepbase.fake_now = '2027-01-01T00:00:00Z'")
    await call(ledger, "add_effect", {"p_note": "a"}, run_id="ended", step="s", key="old")
    await call(ledger, "add_effect", {"p_note": "a"}, run_id="alive", step="s")
    await ledger.execute(
        """
        insert into stepbase.runs (run_id, function_id, fn_version, event_id, created_at)
        values ('alive', gen_random_uuid(), 1, 'e', now())
        """
    )
    prune = "select stepbase.ledger_prune($1::text::timestamptz, $2::text::timestamptz)"

    assert await ledger.fetchval(prune, "2027-01-01", "2026-01-01") == 0
    assert await ledger.fetchval(prune, "2027-02-01", "2026-01-01") == 1
    error = await refused_call(ledger, "SB005", "add_effect", {"p_note": "a"}, key="old")
    assert "was made at 2027-01-01" in str(error)
    assert await ledger.fetchval(prune, "2028-02-01", "2028-01-01") == 1

    assert not (await call(ledger, "add_effect", {"p_note": "a"}, key="old")).replayed
    assert (await call(ledger, "add_effect", {"p_note": "a"}, run_id="alive", step="s")).replayed


async def test_a_rerun_25_hours_later_is_one_transaction(db: asyncpg.Connection) -> None:
    await db.execute("set stepbase.fake_now = '2027-01-01T00:00:00Z'")
    await db.execute(
        f"""
        insert into public.merchants (id, name, rate_bp) values ('mm', 'M', 100);
        insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
        values ('pp', 'mm', '{_ANN}', 1000, 'paid');
        """
    )
    args = {"p_user_id": _ANN, "p_source_id": "pp", "p_amount": 10}
    first = await call(db, "post_wallet_transaction", args, run_id="r1", step="s", key="award:pp")

    await db.execute("set stepbase.fake_now = '2027-01-02T01:00:00Z'")
    rerun = await call(db, "post_wallet_transaction", args, run_id="r2", step="s", key="award:pp")
    without_a_key = await call(db, "post_wallet_transaction", args, run_id="r3", step="s")

    assert (rerun.data, rerun.replayed) == (first.data, True)
    assert without_a_key.data["outcome"] == "already"
    assert (
        await db.fetchval("select balance from public.wallets where user_id = $1", UUID(_ANN)) == 10
    )
