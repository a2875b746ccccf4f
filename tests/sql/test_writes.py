"""Exactly-once writes: keys, arguments, and what happens to two at once."""

import asyncio
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect
from tests.support.sql import blocked, call, effects, refused_write, write

_A: dict[str, Any] = {"rows": [{"note": "a", "amount": 5}]}


async def test_the_same_key_twice_is_one_row_and_the_same_answer(
    ledger: asyncpg.Connection,
) -> None:
    first = await write(ledger, "effects", "insert", _A, key="award:1")
    second = await write(ledger, "effects", "insert", _A, key="award:1")

    assert first.data == second.data == [{"id": 1, "note": "a", "amount": 5}]
    assert (first.text, first.replayed, second.replayed) == (second.text, False, True)
    assert await effects(ledger) == 1


async def test_run_and_step_are_the_key_when_none_is_given(ledger: asyncpg.Connection) -> None:
    for run_id, step, replayed in (("r", "s", False), ("r", "s", True), ("r", "t", False)):
        answer = await write(ledger, "effects", "insert", _A, run_id=run_id, step=step)
        assert answer.replayed is replayed

    row = await ledger.fetchrow("select * from stepbase.ledger order by key limit 1")
    assert row is not None
    assert (row["key"], row["run_id"], row["step"]) == ("run:r:s", "r", "s")
    assert row["fn"] == "insert into public.effects"


async def test_one_business_key_may_stand_for_a_call_and_a_write(
    ledger: asyncpg.Connection,
) -> None:
    await call(ledger, "add_effect", {"p_note": "a"}, key="k")

    assert not (await write(ledger, "effects", "insert", _A, key="k")).replayed
    assert await effects(ledger) == 2


async def test_a_step_that_was_a_call_is_no_write(ledger: asyncpg.Connection) -> None:
    """Code that changed between two attempts of one step must not have both effects."""
    await call(ledger, "add_effect", {"p_note": "a"}, run_id="r", step="s")

    error = await refused_write(ledger, "SB001", "effects", "insert", _A, run_id="r", step="s")

    assert "stands for public.add_effect, and cannot be used for insert into public" in str(error)


async def test_of_two_at_once_the_second_waits_and_gets_the_first_rows(
    two: tuple[asyncpg.Connection, asyncpg.Connection], connect: Connect
) -> None:
    first, second = two
    transaction = first.transaction()
    await transaction.start()
    await write(first, "effects", "insert", _A, key="k")

    waiting = asyncio.create_task(write(second, "effects", "insert", _A, key="k"))
    await blocked(await connect(), second)
    await transaction.commit()

    assert (await waiting).replayed is True
    assert await effects(second) == 1


async def test_of_two_at_once_the_second_goes_ahead_when_the_first_is_rolled_back(
    two: tuple[asyncpg.Connection, asyncpg.Connection], connect: Connect
) -> None:
    first, second = two
    transaction = first.transaction()
    await transaction.start()
    await write(first, "effects", "insert", _A, key="k")

    waiting = asyncio.create_task(write(second, "effects", "insert", _A, key="k"))
    await blocked(await connect(), second)
    await transaction.rollback()

    assert (await waiting).replayed is False
    assert await effects(second) == 1


async def test_a_write_that_fails_leaves_neither_key_nor_row(ledger: asyncpg.Connection) -> None:
    await ledger.execute("alter table public.effects add constraint small check (amount < 9)")
    rows = {"rows": [{"amount": 1}, {"amount": 9}]}

    await refused_write(ledger, "23514", "effects", "insert", rows, key="k")

    assert await effects(ledger) == 0
    assert await ledger.fetchval("select count(*) from stepbase.ledger") == 0


_EDIT: dict[str, Any] = {"values": {"note": "x", "amount": 1}, "filters": {"id": {"eq": 1}}}


@pytest.mark.parametrize(
    ("action", "args", "other", "names"),
    [
        ("insert", _A, {"rows": [{"note": "a", "amount": 6}]}, "rows.amount"),
        ("insert", _A, {"rows": [{"note": "a"}]}, "rows.amount"),
        (
            "insert",
            {"rows": [{"note": "a"}, {"note": "b"}]},
            {"rows": [{"note": "b"}, {"note": "a"}]},
            "rows",
        ),
        ("update", _EDIT, {**_EDIT, "values": {"note": "y", "amount": 1}}, "values.note"),
        ("update", _EDIT, {**_EDIT, "filters": {"id": {"eq": 2}}}, "filters.id"),
        ("update", _EDIT, {**_EDIT, "filters": {"id": {"neq": 1}}}, "filters.id"),
        (
            "update",
            _EDIT,
            {**_EDIT, "filters": {"id": {"eq": 1}, "note": {"is_null": True}}},
            "filters.note",
        ),
        ("delete", {"filters": {"id": {"eq": 1}}}, {"filters": {"id": {"eq": 2}}}, "filters.id"),
    ],
)
async def test_other_arguments_are_an_error_that_names_them(
    ledger: asyncpg.Connection, action: str, args: Any, other: Any, names: str
) -> None:
    await write(ledger, "effects", action, args, key="k")

    error = await refused_write(ledger, "SB001", "effects", action, other, key="k")

    assert str(error).splitlines()[0].endswith(f" public.effects with another {names}")


async def test_another_conflict_target_is_named(ledger: asyncpg.Connection) -> None:
    await ledger.execute("alter table public.effects add unique (id), add unique (note)")
    upsert = {**_A, "on_conflict": ["note"]}
    await write(ledger, "effects", "upsert", upsert, key="k")

    target = await refused_write(
        ledger, "SB001", "effects", "upsert", {**upsert, "on_conflict": ["id"]}, key="k"
    )
    kind = await refused_write(ledger, "SB001", "effects", "insert", _A, key="k")

    assert "with another on_conflict" in str(target)
    assert "upsert into public.effects, and cannot be used for insert into" in str(kind)


@pytest.mark.parametrize(
    "other",
    [
        '{"rows": [{"amount": 5.0, "note": "a"}]}',
        '{"rows":[{"note":"\\u0061","amount":5e0}]}',
    ],
)
async def test_the_same_json_value_is_the_same_argument(
    ledger: asyncpg.Connection, other: str
) -> None:
    await write(ledger, "effects", "insert", _A, key="k")

    assert (await write(ledger, "effects", "insert", other, key="k")).replayed is True


async def test_what_is_wanted_back_is_no_argument(ledger: asyncpg.Connection) -> None:
    none = await write(ledger, "effects", "insert", _A, key="k", returning=False)
    again = await write(ledger, "effects", "insert", _A, key="k")

    assert (none.text, again.text, again.replayed) == ("null", "null", True)
    assert await effects(ledger) == 1


@pytest.mark.parametrize(
    ("run_id", "step", "key"),
    [(None, None, None), ("r", None, None), ("r", "s", ""), (None, None, "k" * 1000)],
)
async def test_a_write_needs_a_key(
    ledger: asyncpg.Connection, run_id: str | None, step: str | None, key: str | None
) -> None:
    error = await refused_write(
        ledger, "SB004", "effects", "insert", _A, run_id=run_id, step=step, key=key
    )

    assert "insert into public.effects needs a key" in str(error)


async def test_a_pruned_result_is_an_error(ledger: asyncpg.Connection) -> None:
    await write(ledger, "effects", "insert", _A, key="k")
    await ledger.execute("update stepbase.ledger set result = null")

    error = await refused_write(ledger, "SB005", "effects", "insert", _A, key="k")

    assert "insert into public.effects was done at" in str(error)


async def test_rows_over_four_mebibytes_are_refused_and_undone(ledger: asyncpg.Connection) -> None:
    long = {"rows": [{"note": "x" * 2_200_000}] * 2}

    error = await refused_write(ledger, "SB003", "effects", "insert", long, key="k")

    assert "the result of insert into public.effects has" in str(error)
    assert await effects(ledger) == 0
    assert (await write(ledger, "effects", "insert", long, key="k", returning=False)).data is None
    assert await effects(ledger) == 2


async def test_a_timeout_cuts_waits_for_locks_and_stays_with_the_write(
    two: tuple[asyncpg.Connection, asyncpg.Connection],
) -> None:
    first, second = two
    await first.execute("begin; lock table public.effects")

    await refused_write(second, "55P03", "effects", "insert", _A, key="k", timeout_ms=50)

    await first.execute("rollback")
    await write(second, "effects", "insert", _A, key="k", timeout_ms=5000)
    assert await second.fetchval("show lock_timeout") == "0"


async def test_the_api_is_told_to_allow_a_minute(db: asyncpg.Connection) -> None:
    settings = await db.fetchval(
        "select proconfig from pg_proc where oid = 'public.stepbase_write'::regproc"
    )

    assert sorted(settings) == ['search_path=""', "statement_timeout=60s"]
