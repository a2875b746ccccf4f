"""The app "currency" without a database: what each run does, and when; milliseconds each."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from rewards.award import Awarded, Posting
from rewards.events import AwardRequested, BonusEarned, PointsExpiring, PurchaseRefunded
from stepbase import NonRetriableError
from stepbase.testing import Lab, Run, load_app

_ANN = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")
_FOLDER = Path(__file__).parents[2] / "functions" / "currency"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The app with its SQL functions faked: 30 points a purchase, credited at once."""
    with Lab(load_app(_FOLDER), always_replay=True) as lab:
        lab.fake_rpc("calc_currency_for_source", 30)
        lab.fake_rpc("get_merchant_config", config(0))
        lab.fake_rpc("post_wallet_transaction", Posting(outcome="posted", balance=30))
        lab.fake_rpc("reverse_wallet_transaction", Posting(outcome="posted", balance=0))
        yield lab


def config(hours: float) -> dict[str, Any]:
    return {"merchant_id": "m", "rate_bp": 250, "award_delay_hours": hours}


def purchase(source_id: str = "p") -> AwardRequested:
    return AwardRequested(user_id=_ANN, merchant_id="m", source_id=source_id, amount=1200)


def refund(source_id: str = "p") -> PurchaseRefunded:
    return PurchaseRefunded(user_id=_ANN, merchant_id="m", source_id=source_id, amount=1200)


def called(run: Run[Any]) -> list[str]:
    return [call.function for call in run.rpc_calls]


async def test_a_purchase_is_awarded_at_once(lab: Lab) -> None:
    [run] = await lab.send(purchase())

    assert run.result == Awarded(success=True, amount=30)
    assert list(run.steps) == [
        "calc_currency_for_source", "get_merchant_config", "post_wallet_transaction",
    ]  # fmt: skip
    assert run.steps["post_wallet_transaction"] == Posting(outcome="posted", balance=30)
    [posted] = [call for call in run.rpc_calls if call.function == "post_wallet_transaction"]
    assert posted.args == {"p_user_id": str(_ANN), "p_source_id": "p", "p_amount": 30}
    assert posted.key == "award:p"


async def test_a_delayed_award_sleeps_as_long_as_its_merchant_says(lab: Lab) -> None:
    lab.fake_rpc("get_merchant_config", config(7 * 24))
    began = lab.now

    [run] = await lab.send(purchase())

    assert run.status == "sleeping"
    assert run.sleeps == {"delay-award": began + timedelta(days=7)}
    await lab.advance("6d 23h")
    assert run.status == "sleeping"
    await lab.advance("1h")
    assert run.result == Awarded(success=True, amount=30)


async def test_a_refund_during_the_sleep_cancels_the_award(lab: Lab) -> None:
    lab.fake_rpc("get_merchant_config", config(2))
    [run] = await lab.send(purchase())
    await lab.advance("1h")

    [reversal] = await lab.send(refund())
    await lab.advance("1d")

    assert run.status == "cancelled"
    assert called(run) == ["calc_currency_for_source", "get_merchant_config"]
    assert reversal.result == Posting(outcome="posted", balance=0)


async def test_a_refund_of_another_purchase_changes_nothing(lab: Lab) -> None:
    lab.fake_rpc("get_merchant_config", config(2))
    [run] = await lab.send(purchase("p"))

    await lab.send(refund("another"))
    await lab.advance("2h")

    assert run.status == "completed"


async def test_a_posting_that_is_skipped_is_no_success(lab: Lab) -> None:
    lab.fake_rpc("post_wallet_transaction", {"outcome": "skipped"})

    [run] = await lab.send(purchase())

    assert run.result == Awarded(success=False, amount=0)


async def test_a_database_that_is_away_for_a_while_delays_the_award(lab: Lab) -> None:
    lab.fail_rpc("post_wallet_transaction", ConnectionError("no answer"), times=2)
    began = lab.now

    [run] = await lab.send(purchase())

    assert run.status == "retrying"
    await lab.finish(run)
    assert run.result == Awarded(success=True, amount=30)
    assert lab.now - began == timedelta(seconds=15 + 30)
    assert [(each.step, each.attempt) for each in run.attempts] == [
        ("post_wallet_transaction", 0), ("post_wallet_transaction", 1),
    ]  # fmt: skip


async def test_a_purchase_that_is_not_there_fails_the_run(lab: Lab) -> None:
    lab.fake_rpc("calc_currency_for_source", NonRetriableError("there is no purchase p"))

    [run] = await lab.send(purchase())

    assert run.status == "failed"
    assert run.error is not None and run.error.message == "there is no purchase p"


async def test_the_same_purchase_twice_is_posted_with_one_key(lab: Lab) -> None:
    balances = iter([30, 60])
    lab.fake_rpc(
        "post_wallet_transaction",
        lambda **_: Posting(outcome="posted", balance=next(balances)),
    )

    [first] = await lab.send(purchase())
    [second] = await lab.send(purchase())

    assert first.steps["post_wallet_transaction"] == second.steps["post_wallet_transaction"]
    assert [first.rpc_calls[-1].is_replayed, second.rpc_calls[-1].is_replayed] == [False, True]


async def test_points_expire_by_merchant_and_page(lab: Lab) -> None:
    awards = [{"transaction_id": n, "user_id": str(_ANN), "amount": 30} for n in range(1, 131)]
    lab.fake_rpc("merchants_with_expiry", ["m"])
    lab.fake_rpc(
        "awards_to_expire",
        lambda p_after, p_limit, **_: awards[p_after : p_after + p_limit],
    )
    lab.fake_rpc("expire_award", {"outcome": "posted", "balance": 0})

    run = await lab.start("expire", {})

    assert run.result == 1
    pages = [each for each in lab.runs if each.function == "currency-expire-merchant"]
    assert [page.result for page in pages] == [3000, 900]
    calls = [call for page in pages for call in page.rpc_calls if call.key]
    assert [call.key for call in calls] == [f"expire:{n}" for n in range(1, 131)]
    nights = {call.args["p_as_of"] for page in pages for call in page.rpc_calls[:1]}
    assert len(nights) == 1


async def test_an_award_taken_back_meanwhile_is_not_counted_as_expired(lab: Lab) -> None:
    lab.fake_rpc("awards_to_expire", [{"transaction_id": 1, "user_id": str(_ANN), "amount": 30}])
    lab.fake_rpc("expire_award", {"outcome": "skipped"})

    run = await lab.start("expire-merchant", PointsExpiring(merchant_id="m", as_of=lab.now))

    assert run.result == 0


async def test_a_bonus_has_the_users_key(lab: Lab) -> None:
    lab.fake_rpc("post_welcome_bonus", Posting(outcome="posted", balance=100))
    earned = BonusEarned(user_id=_ANN, source_id="p", amount=100)

    run = await lab.start("bonus", earned)

    assert run.result == Posting(outcome="posted", balance=100)
    assert run.rpc_calls[0].key == f"welcome-bonus:{_ANN}"
