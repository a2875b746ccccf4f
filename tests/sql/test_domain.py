"""The loyalty domain: what purchases earn, who may see it, and what the world is told."""

import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.support.sql import call, refused

from rewards.award import MerchantConfig, Posting
from rewards.events import AwardRequested, PurchasePlaced, PurchaseRefunded

ANN = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")
BOB = UUID("0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11")


@pytest.fixture
async def shop(db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with the merchant `m` (2.5 %, awards after a quarter of an hour)."""
    await db.execute(
        """
        insert into public.merchants (id, name, rate_bp, award_delay_hours)
        values ('m', 'Records', 250, 0.25)
        """
    )
    return db


async def buy(
    db: asyncpg.Connection,
    purchase: str = "p",
    *,
    cents: int = 1234,
    status: str = "paid",
    user: UUID = ANN,
) -> None:
    await db.execute(
        """
        insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
        values ($1, 'm', $2, $3, $4)
        """,
        purchase,
        user,
        cents,
        status,
    )


async def refund(db: asyncpg.Connection, purchase: str = "p") -> None:
    await db.execute("update public.purchases set status = 'refunded' where id = $1", purchase)


async def award(db: asyncpg.Connection, amount: int = 30, user: UUID = ANN) -> Posting:
    row = await db.fetchrow(
        "select * from public.post_wallet_transaction($1, 'p', $2)", user, amount
    )
    return Posting.model_validate(dict(row or {}))


async def reverse(db: asyncpg.Connection) -> Posting:
    row = await db.fetchrow("select * from public.reverse_wallet_transaction('p')")
    return Posting.model_validate(dict(row or {}))


async def balance(db: asyncpg.Connection, user: UUID = ANN) -> int | None:
    found: int | None = await db.fetchval(
        "select balance from public.wallets where user_id = $1", user
    )
    return found


@pytest.mark.parametrize(
    ("cents", "award_is"),
    [(0, 0), (39, 0), (40, 1), (79, 1), (1234, 30), (99_999_999_999_999, 2_499_999_999_999)],
)
async def test_an_award_is_the_rate_of_the_amount_rounded_down(
    shop: asyncpg.Connection, cents: int, award_is: int
) -> None:
    await buy(shop, cents=cents)

    assert await shop.fetchval("select public.calc_currency_for_source('p')") == award_is


async def test_a_merchants_config_has_rate_and_delay(shop: asyncpg.Connection) -> None:
    answer = await call(shop, "get_merchant_config", {"p_merchant_id": "m"})

    assert answer.data == {"merchant_id": "m", "rate_bp": 250, "award_delay_hours": 0.25}


async def test_an_award_is_credited_once(shop: asyncpg.Connection) -> None:
    await buy(shop)

    first, second = await award(shop), await award(shop)

    assert (first.outcome, first.balance, second.outcome) == ("posted", 30, "already")
    assert await balance(shop) == 30


async def test_an_award_is_taken_back_once(shop: asyncpg.Connection) -> None:
    await buy(shop)
    await award(shop)
    await refund(shop)

    first, second = await reverse(shop), await reverse(shop)

    assert (first.outcome, first.balance, second.outcome) == ("posted", 0, "already")
    rows = await shop.fetch("select kind, amount from public.wallet_transactions order by id")
    assert [tuple(row) for row in rows] == [("award", 30), ("reversal", -30)]


async def test_a_refunded_purchase_is_never_credited(shop: asyncpg.Connection) -> None:
    await buy(shop)
    await refund(shop)

    assert (await award(shop)).outcome == "skipped"
    assert (await reverse(shop)).outcome == "skipped"
    assert (await award(shop)).outcome == "skipped"
    assert await balance(shop) is None


async def test_an_award_of_zero_makes_no_transaction(shop: asyncpg.Connection) -> None:
    await buy(shop, cents=1)

    assert (await award(shop, 0)).outcome == "nothing"
    assert await balance(shop) is None


async def test_a_spent_award_is_taken_back_all_the_same(shop: asyncpg.Connection) -> None:
    await buy(shop)
    await award(shop)
    await shop.execute("update public.wallets set balance = 0")
    await refund(shop)

    assert (await reverse(shop)).balance == -30


@pytest.mark.parametrize(
    ("call_of", "message"),
    [
        ("calc_currency_for_source('x')", "there is no purchase x"),
        ("get_merchant_config('x')", "there is no merchant x"),
        (f"post_wallet_transaction('{ANN}', 'x', 1)", "there is no purchase x"),
        (f"post_wallet_transaction('{BOB}', 'paid', 1)", f"purchase paid is not of user {BOB}"),
        (f"post_wallet_transaction('{ANN}', 'pending', 1)", "purchase pending is not paid"),
        ("reverse_wallet_transaction('x')", "there is no purchase x"),
        ("reverse_wallet_transaction('paid')", "purchase paid is paid, not refunded"),
    ],
)
async def test_what_would_never_work_is_refused_for_good(
    shop: asyncpg.Connection, call_of: str, message: str
) -> None:
    await buy(shop, "paid")
    await buy(shop, "pending", status="pending")

    error = await refused(shop, "P0001", f"select public.{call_of}")

    assert message in str(error)


async def test_a_negative_award_is_refused(shop: asyncpg.Connection) -> None:
    await buy(shop)

    await refused(shop, "22023", f"select public.post_wallet_transaction('{ANN}', 'p', -1)")


async def test_a_refund_is_final(shop: asyncpg.Connection) -> None:
    await buy(shop)
    await refund(shop)

    error = await refused(shop, "P0001", "update public.purchases set status = 'paid'")

    assert "purchase p is refunded and stays so" in str(error)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("update public.merchants set rate_bp = 10001", "a_rate_is_between_nothing_and_everything"),
        ("update public.merchants set award_delay_hours = -1", "a_delay_is_at_most_a_year"),
        (
            "update public.purchases set amount_cents = -1",
            "an_amount_is_not_negative_and_below_1e14",
        ),
        ("update public.purchases set status = 'x'", "a_purchase_is_pending_paid_or_refunded"),
        (
            "update public.wallet_transactions set amount = -amount",
            "an_award_adds_and_a_reversal_takes",
        ),
    ],
)
async def test_the_tables_hold_their_own_rules(
    shop: asyncpg.Connection, statement: str, constraint: str
) -> None:
    await buy(shop)
    await award(shop)

    error = await refused(shop, "23514", statement)

    assert error.constraint_name == constraint


async def test_a_source_has_one_transaction_of_a_kind_whoever_writes_it(
    shop: asyncpg.Connection,
) -> None:
    await buy(shop)
    await award(shop)

    error = await refused(
        shop,
        "23505",
        "insert into public.wallet_transactions (user_id, kind, source_id, amount)"
        " select user_id, kind, source_id, 1 from public.wallet_transactions",
    )

    assert error.constraint_name == "a_source_has_one_transaction_of_a_kind"


@pytest.mark.parametrize("table", ["purchases", "wallets", "wallet_transactions"])
async def test_users_see_their_own_rows_and_change_none(
    shop: asyncpg.Connection, table: str
) -> None:
    await buy(shop)
    await award(shop)
    await buy(shop, "b", user=BOB)
    await shop.execute("select public.post_wallet_transaction($1, 'b', 5)", BOB)
    await shop.execute("set local role authenticated")
    await shop.execute(
        "select set_config('request.jwt.claims', $1, true)", json.dumps({"sub": str(ANN)})
    )

    assert await shop.fetchval(f"select array_agg(user_id) from public.{table}") == [ANN]
    for statement in (
        f"delete from public.{table}",
        f"update public.{table} set user_id = user_id",
        f"insert into public.{table} (user_id) values ('{ANN}')",
    ):
        await refused(shop, "42501", statement)
    await refused(shop, "42501", "select * from public.merchants")


async def test_strangers_see_nothing(shop: asyncpg.Connection) -> None:
    await shop.execute("set local role anon")

    for table in ("merchants", "purchases", "wallets", "wallet_transactions"):
        await refused(shop, "42501", f"select * from public.{table}")


async def events(db: asyncpg.Connection) -> list[tuple[str, Any]]:
    rows = await db.fetch("delete from stepbase.outbox returning name, payload")
    return [(row["name"], json.loads(row["payload"])["data"]) for row in rows]


async def test_a_paid_purchase_asks_for_its_award(shop: asyncpg.Connection) -> None:
    await buy(shop, status="pending")
    [(name, data)] = await events(shop)
    assert name == "purchase/placed"
    assert set(data) == set(PurchasePlaced.model_fields)
    await shop.execute("update public.purchases set status = 'paid'")

    [(name, data)] = await events(shop)

    assert name == "currency/award.requested"
    assert AwardRequested.model_validate(data) == AwardRequested(
        user_id=ANN, merchant_id="m", source_id="p", amount=1234
    )
    assert set(data) == set(AwardRequested.model_fields)


async def test_a_refunded_purchase_tells_so_once(shop: asyncpg.Connection) -> None:
    await buy(shop)
    await events(shop)
    await refund(shop)
    await refund(shop)

    [(name, data)] = await events(shop)

    assert name == "purchase/refunded"
    assert PurchaseRefunded.model_validate(data).source_id == "p"
    assert set(data) == set(PurchaseRefunded.model_fields)


async def test_typed_calls_understand_what_comes_back(shop: asyncpg.Connection) -> None:
    await buy(shop)
    config = await call(shop, "get_merchant_config", {"p_merchant_id": "m"})
    posting = await call(
        shop,
        "post_wallet_transaction",
        {"p_user_id": str(ANN), "p_source_id": "p", "p_amount": 3},
        key="k",
    )

    assert MerchantConfig.model_validate(config.data).award_delay_hours == 0.25
    assert Posting.model_validate(posting.data).balance == 3
    assert (await call(shop, "calc_currency_for_source", {"p_source_id": "p"})).data == 30
