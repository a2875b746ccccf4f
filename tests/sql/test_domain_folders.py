"""What the loyalty domain does for the other function folders: expiry, reviews, reports, sign-ups."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.support.sql import blocked, refused

from rewards.events import ReviewDecided, UserSignedUp

ANN = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")
BOB = UUID("0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11")
NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
async def shop(db: asyncpg.Connection) -> asyncpg.Connection:
    """A database with `m`, whose points live for 30 days, and `n`, whose live for ever."""
    await db.execute(
        """
        insert into public.merchants (id, name, rate_bp, points_expire_after_days)
        values ('m', 'Records', 250, 30), ('n', 'Books', 250, null)
        """
    )
    return db


async def awarded(
    db: asyncpg.Connection, purchase: str, *, days_ago: float, merchant: str = "m", amount: int = 10
) -> int:
    """Record a purchase that was awarded so long before `NOW`; return the transaction."""
    await db.execute(
        """
        insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
        values ($1, $2, $3, 400, 'paid')
        """,
        purchase,
        merchant,
        ANN,
    )
    await db.execute("select public.post_wallet_transaction($1, $2, $3)", ANN, purchase, amount)
    transaction: int = await db.fetchval(
        "update public.wallet_transactions set created_at = $2 where source_id = $1 returning id",
        purchase,
        NOW - timedelta(days=days_ago),
    )
    return transaction


async def due(db: asyncpg.Connection, merchant: str = "m", **more: int) -> list[int]:
    extra = "".join(f", {name} => {value}" for name, value in more.items())
    rows = await db.fetch(
        f"select transaction_id from public.awards_to_expire($1, $2{extra})", merchant, NOW
    )
    return [row["transaction_id"] for row in rows]


async def post(db: asyncpg.Connection, call: str, *arguments: Any) -> tuple[str, int | None]:
    [row] = await db.fetch(f"select * from public.{call}", *arguments)
    return row["outcome"], row["balance"]


async def test_only_merchants_with_a_rule_let_points_expire(shop: asyncpg.Connection) -> None:
    rows = await shop.fetch("select public.merchants_with_expiry() as id")
    await awarded(shop, "old", days_ago=400, merchant="n")

    assert [row["id"] for row in rows] == ["m"]
    assert await due(shop, "n") == await due(shop, "nobody") == []


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
async def test_what_is_due_does_not_depend_on_the_session_s_time_zone(
    shop: asyncpg.Connection, zone: str
) -> None:
    """In New York the 30 days before 20 March 2027 have an hour less: the clocks went forward on the 14th."""
    as_of = datetime(2027, 3, 20, 12, 0, tzinfo=UTC)
    await awarded(shop, "young", days_ago=0)
    old = await awarded(shop, "old", days_ago=0)
    for purchase, minutes in (("young", -30), ("old", 1)):
        await shop.execute(
            "update public.wallet_transactions set created_at = $2 where source_id = $1",
            purchase,
            as_of - timedelta(days=30, minutes=minutes),
        )
    await shop.execute("select set_config('timezone', $1, true)", zone)

    rows = await shop.fetch("select * from public.awards_to_expire('m', $1)", as_of)

    assert [row["transaction_id"] for row in rows] == [old]


async def test_awards_are_due_when_they_are_older_than_the_rule(shop: asyncpg.Connection) -> None:
    old = await awarded(shop, "old", days_ago=30.001)
    await awarded(shop, "young", days_ago=29.999)

    assert await due(shop) == [old]


async def test_awards_come_in_pages(shop: asyncpg.Connection) -> None:
    all_of_them = [await awarded(shop, f"p{n}", days_ago=40) for n in range(5)]

    assert await due(shop, p_limit=2) == all_of_them[:2]
    assert await due(shop, p_limit=2, p_after=all_of_them[1]) == all_of_them[2:4]
    assert await due(shop, p_after=all_of_them[-1]) == []


async def test_an_award_expires_once(shop: asyncpg.Connection) -> None:
    old = await awarded(shop, "old", days_ago=40)
    await awarded(shop, "young", days_ago=1, amount=7)

    assert await post(shop, "expire_award($1)", old) == ("posted", 7)
    assert await post(shop, "expire_award($1)", old) == ("already", None)
    assert await due(shop) == []
    assert await shop.fetchval("select balance from public.wallets") == 7


async def test_a_refund_takes_back_an_award_or_its_expiry_does_never_both(
    shop: asyncpg.Connection,
) -> None:
    first, second = [await awarded(shop, name, days_ago=40) for name in ("first", "second")]
    await post(shop, "expire_award($1)", first)
    await shop.execute("update public.purchases set status = 'refunded'")

    assert await post(shop, "reverse_wallet_transaction('first')") == ("skipped", None)
    assert await post(shop, "reverse_wallet_transaction('second')") == ("posted", 0)
    assert await post(shop, "expire_award($1)", second) == ("skipped", None)
    assert await due(shop) == []


async def test_what_is_no_award_cannot_expire(shop: asyncpg.Connection) -> None:
    expiry = await awarded(shop, "old", days_ago=40)
    await post(shop, "expire_award($1)", expiry)
    other = await shop.fetchval("select max(id) from public.wallet_transactions")

    await refused(shop, "P0001", "select public.expire_award($1)", other)
    await refused(shop, "P0001", "select public.expire_award(0)")


async def test_a_bonus_is_given_once_for_each_user(shop: asyncpg.Connection) -> None:
    for purchase in ("one", "two"):
        await awarded(shop, purchase, days_ago=1)

    bonus = "post_welcome_bonus($1, $2, 120)"
    assert await post(shop, bonus, ANN, "one") == ("posted", 140)
    assert await post(shop, bonus, ANN, "two") == ("already", None)


async def test_a_bonus_is_for_a_purchase_that_is_paid_and_ones_own(
    shop: asyncpg.Connection,
) -> None:
    await awarded(shop, "p", days_ago=1)
    bonus = "select public.post_welcome_bonus($1, 'p', $2)"

    await refused(shop, "P0001", bonus, BOB, 120)
    await refused(shop, "22023", bonus, ANN, 0)
    await shop.execute("update public.purchases set status = 'refunded'")
    assert (await post(shop, "post_welcome_bonus($1, 'p', 120)", ANN))[0] == "skipped"


async def test_days_are_those_of_the_time_zone(shop: asyncpg.Connection) -> None:
    await shop.execute(
        """
        insert into public.purchases (id, merchant_id, user_id, amount_cents, status, created_at)
        select n::text, 'm', $1, 100 * n, (array['paid', 'refunded', 'pending', 'paid'])[n],
          timestamptz '2027-02-28 16:30 UTC' + n * interval '15 minutes'
        from generate_series(1, 4) as n
        """,
        ANN,
    )
    sales = "select * from public.sales_between('m', $1, $2, $3)"
    first, second = date(2027, 2, 28), date(2027, 3, 1)

    bangkok = [
        tuple(await shop.fetchrow(sales, day, day + timedelta(days=1), "Asia/Bangkok") or ())
        for day in (first, second)
    ]
    assert bangkok == [(1, 100, 0), (2, 600, 200)]
    assert tuple(await shop.fetchrow(sales, first, second, "UTC") or ()) == (3, 700, 200)
    await refused(shop, "22023", sales, first, second, "Nowhere")


async def test_points_of_a_day_are_awards_less_reversals(shop: asyncpg.Connection) -> None:
    for purchase in ("one", "two"):
        await awarded(shop, purchase, days_ago=0)
    await shop.execute("update public.purchases set status = 'refunded' where id = 'one'")
    await shop.execute("select public.reverse_wallet_transaction('one')")
    await shop.execute("update public.wallet_transactions set created_at = $1", NOW)

    points = await shop.fetchval(
        "select public.points_between('m', $1, $2)", NOW.date(), NOW.date() + timedelta(days=1)
    )
    assert points == 10


async def events(db: asyncpg.Connection, name: str) -> list[dict[str, Any]]:
    rows = await db.fetch("delete from stepbase.outbox where name = $1 returning payload", name)
    return [json.loads(row["payload"])["data"] for row in rows]


async def test_a_decision_on_a_review_is_an_event_and_its_lapse_is_none(
    shop: asyncpg.Connection,
) -> None:
    await awarded(shop, "p", days_ago=0)
    await shop.execute("insert into public.order_reviews (purchase_id) values ('p')")
    await shop.execute("update public.order_reviews set status = 'lapsed'")
    assert await events(shop, "order/review.decided") == []

    await shop.execute("update public.order_reviews set status = 'refused', decided_by = 'Bo'")

    [data] = await events(shop, "order/review.decided")
    assert ReviewDecided.model_validate(data) == ReviewDecided(
        purchase_id="p", status="refused", decided_by="Bo"
    )
    assert set(data) == set(ReviewDecided.model_fields)


async def test_a_sign_up_is_told_when_the_address_is_confirmed(db: asyncpg.Connection) -> None:
    await db.execute("insert into auth.users (id, email) values ($1, 'ann@shop.example')", ANN)
    assert await events(db, "user/signup") == []

    for _ in range(2):
        await db.execute("update auth.users set email_confirmed_at = now()")

    [data] = await events(db, "user/signup")
    assert UserSignedUp.model_validate(data) == UserSignedUp(id=ANN, email="ann@shop.example")
    assert set(data) == {"id", "email"}, "nothing else of auth.users may leave the database"


async def test_users_see_their_own_entry_alone(db: asyncpg.Connection) -> None:
    await db.execute(
        "insert into public.customers values ($1, 'a@shop.example'), ($2, null)", ANN, BOB
    )
    assert await db.fetchval("select public.email_of($1)", ANN) == "a@shop.example"
    assert await db.fetchval("select public.email_of($1)", BOB) is None
    await db.execute("set local role authenticated")
    claims = json.dumps({"sub": str(ANN)})
    await db.execute("select set_config('request.jwt.claims', $1, true)", claims)

    assert await db.fetchval("select array_agg(user_id) from public.customers") == [ANN]
    await refused(db, "42501", "select public.email_of($1)", BOB)
    for table in ("order_reviews", "merchant_reports", "sales_journal", "order_follow_ups"):
        await refused(db, "42501", f"select * from public.{table}")


async def test_two_workers_cannot_let_one_award_expire_twice(
    connect: Any,
) -> None:
    one, other, observer = [await connect() for _ in range(3)]
    await one.execute(
        "insert into public.merchants (id, name, rate_bp, points_expire_after_days)"
        " values ('m', 'Records', 250, 30)"
    )
    old = await awarded(one, "old", days_ago=40)
    began = one.transaction()
    await began.start()
    assert (await post(one, "expire_award($1)", old))[0] == "posted"

    second = asyncio.create_task(post(other, "expire_award($1)", old))
    await blocked(observer, other)
    await began.commit()

    assert await second == ("already", None)
