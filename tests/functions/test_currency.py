"""The app "currency" against the database it works on: awards, delays, refunds, repetitions."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from tests.functions.conftest import Deliver

from rewards.award import Awarded
from stepbase import Event
from stepbase.testing import Lab

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
) -> Event[Any]:
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


async def refund(shop: asyncpg.Connection, deliver: Deliver) -> Event[Any]:
    """Refund the purchase; return its event."""
    await shop.execute("update public.purchases set status = 'refunded'")
    [event] = await deliver()
    return event


async def book(shop: asyncpg.Connection) -> tuple[list[tuple[str, int]], int | None]:
    """Return the transactions and the wallet's balance."""
    rows = await shop.fetch("select kind, amount from public.wallet_transactions order by id")
    balance = await shop.fetchval("select balance from public.wallets")
    return [(row["kind"], row["amount"]) for row in rows], balance


async def test_a_purchase_is_awarded(shop: asyncpg.Connection, deliver: Deliver, lab: Lab) -> None:
    [run] = await lab.send(await buy(shop, deliver))

    assert run.result == Awarded(success=True, amount=30)
    assert list(run.steps) == [
        "calc_currency_for_source", "get_merchant_config", "post_wallet_transaction",
    ]  # fmt: skip
    assert await book(shop) == ([("award", 30)], 30)


async def test_an_award_waits_as_long_as_its_merchant_says(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    [run] = await lab.send(await buy(shop, deliver, merchant="later"))

    assert run.sleeps == {"delay-award": run.event.ts + timedelta(hours=2)}
    assert await book(shop) == ([], None)
    await lab.advance("2h")
    assert run.result == Awarded(success=True, amount=30)
    assert await book(shop) == ([("award", 30)], 30)


async def test_an_award_of_nothing_completes_without_a_transaction(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    [run] = await lab.send(await buy(shop, deliver, cents=39))

    assert run.result == Awarded(success=True, amount=0)
    assert await book(shop) == ([], None)


async def test_the_same_purchase_in_two_runs_is_awarded_once(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    event = await buy(shop, deliver)

    for _ in range(2):
        run = await lab.start("award", event)
        assert run.result == Awarded(success=True, amount=30)

    assert await book(shop) == ([("award", 30)], 30)


async def test_the_same_event_twice_starts_one_run(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    event = await buy(shop, deliver)

    assert [len(await lab.send(event)) for _ in range(2)] == [1, 0]


async def test_a_refund_after_the_award_takes_it_back_once(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    await lab.send(await buy(shop, deliver))
    event = await refund(shop, deliver)

    for _ in range(2):
        run = await lab.start("reverse", event)
        assert (run.result.outcome, run.result.balance) == ("posted", 0)

    assert await book(shop) == ([("award", 30), ("reversal", -30)], 0)


async def test_a_refund_during_the_sleep_cancels_the_award(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    [run] = await lab.send(await buy(shop, deliver, merchant="later"))

    [reversal] = await lab.send(await refund(shop, deliver))
    await lab.advance("1d")

    assert (run.status, reversal.result.outcome) == ("cancelled", "skipped")
    assert await book(shop) == ([], None)


@pytest.mark.parametrize("first", ["reverse", "award"])
async def test_a_refund_before_the_award_means_there_is_none(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab, first: str
) -> None:
    """Also when the refund's event is delivered before the purchase's."""
    events = {"award": await buy(shop, deliver), "reverse": await refund(shop, deliver)}

    runs = {}
    for name in sorted(events, key=lambda each: each != first):
        runs[name] = await lab.start(name, events[name])

    assert runs["award"].result == Awarded(success=False, amount=0)
    assert runs["reverse"].result.outcome == "skipped"
    assert await book(shop) == ([], None)


async def test_a_refund_during_the_award_means_there_is_none(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    """Between the calculation and the posting, and its event comes too late to cancel the run."""
    lab.fail_rpc("post_wallet_transaction", ConnectionError("no answer"))
    [run] = await lab.send(await buy(shop, deliver))
    assert list(run.steps) == ["calc_currency_for_source", "get_merchant_config"]
    refunded = await refund(shop, deliver)

    await lab.finish(run)
    await lab.send(refunded)

    assert run.result == Awarded(success=False, amount=0)
    assert await book(shop) == ([], None)


async def test_an_event_that_is_not_one_ends_the_run_naming_the_field(lab: Lab) -> None:
    [run] = await lab.send({"name": "currency/award.requested", "data": {"user_id": _ANN}})

    assert run.error is not None and "source_id" in run.error.message
    assert run.rpc_calls == []


async def test_a_purchase_that_is_not_there_ends_the_run(
    shop: asyncpg.Connection, deliver: Deliver, lab: Lab
) -> None:
    event = await buy(shop, deliver)
    await shop.execute("delete from public.purchases")

    [run] = await lab.send(event)

    assert run.error is not None and run.error.message == "there is no purchase p"
    assert [each.step for each in run.attempts] == ["calc_currency_for_source", None]


async def test_points_that_are_too_old_expire_once_whatever_is_repeated(
    shop: asyncpg.Connection, lab: Lab
) -> None:
    """Over two pages, a posting that is tried again, and a run that is started again."""
    await shop.execute("update public.merchants set points_expire_after_days = 30 where id = 'now'")
    await shop.execute(
        """
        insert into public.purchases (id, merchant_id, user_id, amount_cents, status)
        select 'p' || n, 'now', $1, 400, 'paid' from generate_series(1, 103) as n
        """,
        _ANN,
    )
    await shop.execute(
        "select public.post_wallet_transaction(user_id, id, 10) from public.purchases"
    )
    await shop.execute(
        "update public.wallet_transactions set created_at = now() - interval '31 days'"
        " where source_id <> 'p103'"
    )
    night = {"merchant_id": "now", "as_of": lab.now.isoformat()}
    lab.fail_rpc("expire_award", ConnectionError("no answer"))

    first = await lab.start("expire-merchant", night)
    await lab.finish(first)
    second = await lab.start("expire-merchant", night)

    pages = [run for run in lab.runs if run.function == "currency-expire-merchant"]
    assert (first.result, second.result) == (1000, 0)
    assert sum(run.result for run in pages) == 1020
    kinds = await shop.fetch(
        "select kind, count(*), sum(amount) from public.wallet_transactions group by kind order by kind"
    )
    assert [tuple(row) for row in kinds] == [("award", 103, 1030), ("expiry", 102, -1020)]
    assert await shop.fetchval("select balance from public.wallets") == 10
