"""Exactly-once calls: keys, arguments, and what happens to two at once."""

import asyncio
import json
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support.sql import blocked, call, effects, refused_call

_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"


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
        'ledger key "key:award:7" stands for public.add_effect with another p_amount'
    )
    assert "with another p_amount, p_more, p_note" in str(two)
    assert await effects(ledger) == 1


async def test_another_function_is_an_error_that_names_both(ledger: asyncpg.Connection) -> None:
    await ledger.execute(
        "create function public.other(p_note text) returns int language sql as 'select 1'"
    )
    await call(ledger, "add_effect", {"p_note": "a"}, key="k")

    error = await refused_call(ledger, "SB001", "other", {"p_note": "a"}, key="k")

    assert "stands for public.add_effect, and cannot be used for public.other" in str(error)


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

    assert "public.add_effect needs a key" in str(error)


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
    assert "was done at 2027-01-01" in str(error)
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
