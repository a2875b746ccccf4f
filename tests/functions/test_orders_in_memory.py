"""The app "orders" without a database: reviews, follow-ups and alerts, when and with what."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from rewards.events import AwardRequested, PurchasePlaced, PurchaseRefunded, ReviewDecided
from rewards.mail import Mail
from stepbase import Event
from stepbase.testing import Lab, Run, load_app

_ANN = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")
_FOLDER = Path(__file__).parents[2] / "functions" / "orders"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The app with its tables and mails faked; Ann has an address."""
    with Lab(load_app(_FOLDER), always_replay=True) as lab:
        for table in ("order_reviews", "order_follow_ups", "purchases"):
            lab.fake_table(table, None)
        lab.fake_rpc("email_of", "ann@shop.example")
        lab.fake_step("remind", "mail-1")
        yield lab


def paid(cents: int = 10_001, source_id: str = "p") -> AwardRequested:
    return AwardRequested(user_id=_ANN, merchant_id="m", source_id=source_id, amount=cents)


def placed() -> PurchasePlaced:
    return PurchasePlaced(user_id=_ANN, merchant_id="m", source_id="p", amount=1200)


def refunded(cents: int) -> PurchaseRefunded:
    return PurchaseRefunded(user_id=_ANN, merchant_id="m", source_id="p", amount=cents)


def written(run: Run[Any], table: str) -> list[dict[str, Any]]:
    return [dict(call.args) for call in run.rpc_calls if call.function.endswith(f" {table}")]


@pytest.mark.parametrize(("cents", "runs"), [(9_999, 0), (10_000, 0), (10_001, 1)])
async def test_only_orders_above_a_hundred_are_reviewed(lab: Lab, cents: int, runs: int) -> None:
    assert len(await lab.send(paid(cents))) == runs


@pytest.mark.parametrize("status", ["approved", "refused"])
async def test_a_decision_ends_the_review_and_a_refusal_refunds(lab: Lab, status: str) -> None:
    [review] = await lab.send(paid())
    assert review.status == "waiting"

    [decide] = await lab.send(
        Event("order/review.decided", {"purchase_id": "p", "status": status, "decided_by": "Bo"})
    )

    assert (review.result, decide.result) == (status, True)
    refunds = written(review, "purchases")
    assert [each["values"] for each in refunds] == [{"status": "refunded"}] * (status == "refused")


async def test_a_review_that_nobody_decides_lapses_after_two_days(lab: Lab) -> None:
    [review] = await lab.send(paid())

    await lab.advance("47h")
    assert review.status == "waiting"
    await lab.advance("1h")

    assert review.result == "lapsed"
    assert written(review, "order_reviews")[-1]["values"] == {"status": "lapsed"}


async def test_a_decision_that_comes_too_late_is_noted(lab: Lab) -> None:
    [decide] = await lab.send(ReviewDecided(purchase_id="p", status="refused"))

    assert decide.result is False
    assert "nothing was done" in written(decide, "order_reviews")[0]["values"]["note"]


async def test_a_decision_on_another_order_changes_nothing(lab: Lab) -> None:
    [review] = await lab.send(paid())

    await lab.send(ReviewDecided(purchase_id="another", status="refused"))

    assert review.status == "waiting"


async def test_an_order_that_is_paid_in_time_is_left_alone(lab: Lab) -> None:
    [run] = await lab.send(placed())
    await lab.advance("23h")

    await lab.send(paid(1200))

    assert run.result == "paid"
    assert "remind" not in run.steps


@pytest.mark.parametrize(("days", "outcome"), [(3, "paid after a reminder"), (None, "not paid")])
async def test_an_unpaid_order_is_reminded_of_once(
    lab: Lab, days: int | None, outcome: str
) -> None:
    mails: list[tuple[Mail, str]] = []

    def send(mail: Mail, key: str) -> str:
        mails.append((mail, key))
        return "id"

    lab.fake_step("remind", send)
    [run] = await lab.send(placed())

    await lab.advance("1d")
    [(mail, key)] = mails
    assert (mail.to, mail.subject) == ("ann@shop.example", "Your order p")
    assert mail.text.startswith("12.00 are still open") and key
    if days is not None:
        await lab.advance(timedelta(days=days))
        await lab.send(paid(1200))
    await lab.advance("7d")

    assert run.result == outcome
    assert written(run, "order_follow_ups")[0]["rows"] == [{"purchase_id": "p", "outcome": outcome}]
    assert len(mails) == 1


async def test_a_buyer_without_an_address_is_not_written_to(lab: Lab) -> None:
    lab.fake_rpc("email_of", None)
    [run] = await lab.send(placed())

    await lab.advance("7d")

    assert run.result == "not paid"
    assert "remind" not in run.steps


async def test_a_payment_just_before_the_wait_counts(lab: Lab) -> None:
    await lab.send(paid(1200))
    await lab.advance("30s")

    [run] = await lab.send(placed())

    assert run.result == "paid"


async def test_a_large_refund_is_told_where_there_is_a_chat(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"url": "", "status_code": 200, "headers": {}, "body": ""}
    lab.fake_step("tell", told)
    monkeypatch.setenv("STAFF_WEBHOOK_URL", "https://chat.example/hook")

    [run] = await lab.send(refunded(10_001))
    assert await lab.send(refunded(10_000)) == []
    monkeypatch.delenv("STAFF_WEBHOOK_URL")
    [silent] = await lab.send(refunded(10_001))

    assert (run.result, silent.result) == (True, False)
    assert "tell" in run.steps and "tell" not in silent.steps
