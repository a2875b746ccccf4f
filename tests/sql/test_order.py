"""Refunds, awards and reversals in any order, one after another and at once: the wallet is right.

Right means: a purchase that is refunded has earned nothing in the end, any other has earned its award
once if it was asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import hypothesis
import pytest
from hypothesis import strategies as st
from tests.conftest import Connect
from tests.support.sql import blocked, blocked_or_done, call

_USERS = (
    UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"),
    UUID("0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11"),
)
_AMOUNT = 30


async def open_shop(db: asyncpg.Connection) -> None:
    await db.execute("insert into public.merchants (id, name, rate_bp) values ('m', 'M', 250)")


async def pay(db: asyncpg.Connection, n: int = 0) -> None:
    await db.execute(
        """
        insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
        values ($1, 'm', $2, 1200, 'paid')
        """,
        f"p{n}",
        _USERS[n % 2],
    )


async def refund(db: asyncpg.Connection, n: int = 0) -> str:
    return await db.execute(
        "update public.purchases set status = 'refunded' where id = $1", f"p{n}"
    )


async def award(db: asyncpg.Connection, n: int = 0, key: str | None = None) -> str:
    args = {"p_user_id": str(_USERS[n % 2]), "p_source_id": f"p{n}", "p_amount": _AMOUNT}
    answer = await call(db, "post_wallet_transaction", args, run_id="r", step="s", key=key)
    return str(answer.data["outcome"])


async def reverse(db: asyncpg.Connection, n: int = 0, key: str | None = None) -> str:
    args = {"p_source_id": f"p{n}"}
    answer = await call(db, "reverse_wallet_transaction", args, run_id="r", step="v", key=key)
    return str(answer.data["outcome"])


async def wallets(db: asyncpg.Connection) -> dict[UUID, int]:
    """Return the balances, having checked that each is the sum of its transactions."""
    rows = await db.fetch(
        """
        select w.user_id, w.balance,
          (select coalesce(sum(amount), 0) from public.wallet_transactions t
            where t.user_id = w.user_id)::bigint as booked
        from public.wallets w
        """
    )
    assert all(row["balance"] == row["booked"] for row in rows)
    return {row["user_id"]: row["balance"] for row in rows}


@pytest.fixture
async def three(connect: Connect) -> tuple[asyncpg.Connection, ...]:
    """Two connections that compete for the paid purchase p0, and one that looks on."""
    connections = (await connect(), await connect(), await connect())
    await open_shop(connections[0])
    await pay(connections[0])
    return connections


async def test_an_award_waits_for_a_refund_that_is_on_its_way(
    three: tuple[asyncpg.Connection, ...],
) -> None:
    refunding, awarding, observer = three
    transaction = refunding.transaction()
    await transaction.start()
    await refund(refunding)

    waiting = asyncio.create_task(award(awarding))
    await blocked_or_done(observer, awarding, waiting)
    await transaction.commit()

    assert await waiting == "skipped"
    assert await wallets(observer) == {}


async def test_an_award_goes_ahead_when_the_refund_is_rolled_back(
    three: tuple[asyncpg.Connection, ...],
) -> None:
    refunding, awarding, observer = three
    transaction = refunding.transaction()
    await transaction.start()
    await refund(refunding)

    waiting = asyncio.create_task(award(awarding))
    await blocked(observer, awarding)
    await transaction.rollback()

    assert await waiting == "posted"


async def test_a_refund_waits_for_an_award_that_is_on_its_way(
    three: tuple[asyncpg.Connection, ...],
) -> None:
    awarding, refunding, observer = three
    transaction = awarding.transaction()
    await transaction.start()
    assert await award(awarding) == "posted"

    waiting = asyncio.create_task(refund(refunding))
    await blocked(observer, refunding)
    await transaction.commit()
    await waiting

    assert await reverse(refunding) == "posted"
    assert await wallets(observer) == {_USERS[0]: 0}


async def test_two_awards_at_once_are_one(three: tuple[asyncpg.Connection, ...]) -> None:
    """Under different keys, as two runs without a business key would have them."""
    first, second, observer = three
    transaction = first.transaction()
    await transaction.start()
    assert await award(first, key="one") == "posted"

    waiting = asyncio.create_task(award(second, key="two"))
    await blocked(observer, second)
    await transaction.commit()

    assert await waiting == "already"
    assert await wallets(observer) == {_USERS[0]: _AMOUNT}


async def test_two_reversals_at_once_are_one(three: tuple[asyncpg.Connection, ...]) -> None:
    first, second, observer = three
    await award(first)
    await refund(first)
    transaction = first.transaction()
    await transaction.start()
    assert await reverse(first, key="one") == "posted"

    waiting = asyncio.create_task(reverse(second, key="two"))
    await blocked(observer, second)
    await transaction.commit()

    assert await waiting == "already"
    assert await wallets(observer) == {_USERS[0]: 0}


async def test_awards_of_one_user_for_many_purchases_do_not_deadlock(connect: Connect) -> None:
    connections = [await connect() for _ in range(6)]
    await open_shop(connections[0])
    for n in range(0, 60, 2):
        await pay(connections[0], n)

    async def award_every(db: asyncpg.Connection, start: int) -> None:
        for n in range(start, 60, 12):
            await award(db, n, key=f"award:{n}")

    await asyncio.gather(*(award_every(db, 2 * i) for i, db in enumerate(connections)))

    assert await wallets(connections[0]) == {_USERS[0]: 30 * _AMOUNT}


_STEPS: dict[str, Callable[[asyncpg.Connection, int], Awaitable[object]]] = {
    "refund": refund,
    "award": award,
    "reverse": reverse,
    "award by key": lambda db, n: award(db, n, key=f"award:p{n}"),
    "reverse by key": lambda db, n: reverse(db, n, key=f"reverse:p{n}"),
}


class _Model:
    """What ought to be: per purchase, whether it is paid, refunded, awarded."""

    def __init__(self) -> None:
        self.paid: set[int] = set()
        self.refunded: set[int] = set()
        self.awarded: set[int] = set()
        self.reversed: set[int] = set()

    def take(self, step: str, n: int) -> bool:
        """Do a step; say whether the database ought to accept it."""
        if step == "pay":
            accepted = n not in self.paid
            self.paid.add(n)
            return accepted
        if step == "refund":
            if n in self.paid:
                self.refunded.add(n)
            return True
        if step.startswith("award"):
            if n in self.paid and n not in self.refunded:
                self.awarded.add(n)
            return n in self.paid
        if n in self.refunded and n in self.awarded:
            self.reversed.add(n)
        return n in self.refunded

    def wallets(self) -> dict[UUID, int]:
        balances: dict[UUID, int] = {}
        for n in self.awarded:
            earned = 0 if n in self.reversed else _AMOUNT
            balances[_USERS[n % 2]] = balances.get(_USERS[n % 2], 0) + earned
        return balances


_PROGRAMS = st.lists(
    st.tuples(st.sampled_from(["pay", *_STEPS]), st.integers(0, 2)), min_size=1, max_size=25
)


@hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(program=_PROGRAMS)
@hypothesis.example(
    program=[("pay", 0), ("award", 0), ("refund", 0), ("reverse", 0), ("award by key", 0)]
)
async def test_any_order_leaves_the_wallets_right(
    db: asyncpg.Connection, program: list[tuple[str, int]]
) -> None:
    everything = db.transaction()
    await everything.start()
    try:
        await open_shop(db)
        await _run(db, program)
    finally:
        await everything.rollback()


async def _run(db: asyncpg.Connection, program: list[tuple[str, int]]) -> None:
    """Take the steps of a program, each in a transaction and a run of its own, beside the model."""
    model = _Model()
    for number, (step, n) in enumerate(program):
        # Of the keys, only business keys repeat.
        await db.execute(
            "update stepbase.ledger set key = key || $1 where key like 'run:%'", f"#{number}"
        )
        try:
            async with db.transaction():
                await (pay(db, n) if step == "pay" else _STEPS[step](db, n))
            accepted = True
        except asyncpg.PostgresError:
            accepted = False
        assert accepted == model.take(step, n), (step, n)
        assert await wallets(db) == model.wallets(), (step, n)
