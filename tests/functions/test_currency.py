"""The app "currency" against the database it works on: awards, delays, refunds, repetitions."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from tests.functions.conftest import Deliver, Drive

_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"


@pytest.fixture(autouse=True)
async def merchants(shop: asyncpg.Connection) -> None:
    """The merchant `now`, who awards at once, and `later`, who takes two hours; both 2.5 %."""
    await shop.execute(
        """
        insert into public.merchants (id, name, rate_bp, award_delay_hours)
        values ('now', 'Now', 250, 0), ('later', 'Later', 250, 2)
        """
    )


async def buy(
    shop: asyncpg.Connection, deliver: Deliver, *, merchant: str = "now", cents: int = 1234
) -> dict[str, object]:
    """Record a paid purchase; return its event."""
    await shop.execute(
        """
        insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
        values ('p', $1, $2, $3, 'paid')
        """,
        merchant,
        _ANN,
        cents,
    )
    [event] = await deliver()
    return event


async def refund(shop: asyncpg.Connection, deliver: Deliver) -> dict[str, object]:
    """Refund the purchase; return its event."""
    await shop.execute("update public.purchases set status = 'refunded'")
    [event] = await deliver()
    return event


async def book(shop: asyncpg.Connection) -> tuple[list[tuple[str, int]], int | None]:
    """Return the transactions and the wallet's balance."""
    rows = await shop.fetch("select kind, amount from public.wallet_transactions order by id")
    balance = await shop.fetchval("select balance from public.wallets")
    return [(row["kind"], row["amount"]) for row in rows], balance


async def test_a_purchase_is_awarded(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive
) -> None:
    run = await drive("currency-award", await buy(shop, deliver))

    assert run.output == {"success": True, "amount": 30}
    assert run.shown == [
        "StepRun calc_currency_for_source",
        "StepRun get_merchant_config",
        "StepRun post_wallet_transaction",
    ]
    assert await book(shop) == ([("award", 30)], 30)


async def test_an_award_waits_as_long_as_its_merchant_says(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive
) -> None:
    event = await buy(shop, deliver, merchant="later")

    run = await drive("currency-award", event)

    ts = event["ts"]
    assert isinstance(ts, int)
    [wake] = run.sleeps
    due = datetime.fromtimestamp(ts / 1000, UTC) + timedelta(hours=2)
    assert datetime.fromisoformat(wake) == due
    assert await book(shop) == ([("award", 30)], 30)


async def test_an_award_of_nothing_completes_without_a_transaction(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive
) -> None:
    run = await drive("currency-award", await buy(shop, deliver, cents=39))

    assert run.output == {"success": True, "amount": 0}
    assert await book(shop) == ([], None)


async def test_the_same_purchase_in_two_runs_is_awarded_once(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive
) -> None:
    event = await buy(shop, deliver)

    for run_id in ("01M84KVXAAXFDZB1D48JGNR1MF", "01M84KVXAAXFDZB1D48JGNR1MG"):
        run = await drive("currency-award", event, run_id=run_id)
        assert run.output == {"success": True, "amount": 30}

    assert await book(shop) == ([("award", 30)], 30)


async def test_a_refund_after_the_award_takes_it_back_once(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive
) -> None:
    await drive("currency-award", await buy(shop, deliver))
    event = await refund(shop, deliver)

    for run_id in ("01M84KVXAAXFDZB1D48JGNR1MF", "01M84KVXAAXFDZB1D48JGNR1MG"):
        run = await drive("currency-reverse", event, run_id=run_id)
        assert (run.output["outcome"], run.output["balance"]) == ("posted", 0)

    assert await book(shop) == ([("award", 30), ("reversal", -30)], 0)


@pytest.mark.parametrize("first", ["reverse", "award"])
async def test_a_refund_before_the_award_means_there_is_none(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive, first: str
) -> None:
    """Also when the refund's event is delivered before the purchase's."""
    events = {"award": await buy(shop, deliver), "reverse": await refund(shop, deliver)}

    runs = {}
    for name in sorted(events, key=lambda each: each != first):
        runs[name] = await drive(f"currency-{name}", events[name])

    assert runs["award"].output == {"success": False, "amount": 0}
    assert runs["reverse"].output["outcome"] == "skipped"
    assert await book(shop) == ([], None)


async def test_a_refund_during_the_award_means_there_is_none(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive
) -> None:
    """Between the calculation and the posting, and its event comes too late to cancel the run."""
    event = await buy(shop, deliver)
    first = await drive("currency-award", event)
    half = dict(list(first.memos.items())[:2])
    await shop.execute("truncate public.wallets, public.wallet_transactions, stepbase.ledger")
    refunded = await refund(shop, deliver)

    run = await drive("currency-award", event, memos=half)
    await drive("currency-reverse", refunded)

    assert run.shown == ["StepRun post_wallet_transaction"]
    assert run.output == {"success": False, "amount": 0}
    assert await book(shop) == ([], None)


async def test_an_event_that_is_not_one_ends_the_run_naming_the_field(drive: Drive) -> None:
    event = {"name": "currency/award.requested", "data": {"user_id": _ANN}, "id": "x", "ts": 1}

    run = await drive("currency-award", event)

    assert len(run.replies) == 1
    assert "source_id" in run.error["message"]


async def test_a_purchase_that_is_not_there_ends_the_run(
    shop: asyncpg.Connection, deliver: Deliver, drive: Drive
) -> None:
    event = await buy(shop, deliver)
    await shop.execute("delete from public.purchases")

    run = await drive("currency-award", event)

    assert run.error["message"] == "there is no purchase p"
    assert len(run.replies) == 2
