"""When awards are due, and what the domain's models accept."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from rewards.award import MerchantConfig, Posting, award_time
from rewards.events import AwardRequested, PurchaseRefunded

_NOON = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "later"),
    [
        (0, timedelta(0)),
        (0.5, timedelta(minutes=30)),
        (3 / 3600, timedelta(seconds=3)),
        (24 * 7, timedelta(days=7)),
    ],
)
def test_an_award_is_due_after_the_merchants_delay(hours: float, later: timedelta) -> None:
    config = MerchantConfig(merchant_id="m", rate_bp=100, award_delay_hours=hours)

    assert award_time(_NOON, config) == _NOON + later


def test_a_third_of_a_second_survives_the_database_decimal() -> None:
    config = MerchantConfig.model_validate(
        {"merchant_id": "m", "rate_bp": 1, "award_delay_hours": "0.00083333333333333333"}
    )

    assert award_time(_NOON, config) - _NOON == timedelta(seconds=3)


@pytest.mark.parametrize("model", [AwardRequested, PurchaseRefunded])
def test_an_event_with_a_field_missing_is_refused_by_name(
    model: type[AwardRequested] | type[PurchaseRefunded],
) -> None:
    with pytest.raises(ValidationError, match="source_id"):
        model.model_validate({"user_id": str(_USER), "merchant_id": "m", "amount": 1})


def test_events_have_the_names_of_their_row_triggers() -> None:
    assert AwardRequested.__event_name__ == "currency/award.requested"
    assert PurchaseRefunded.__event_name__ == "purchase/refunded"


def test_a_posting_that_changed_nothing_has_no_transaction() -> None:
    posting = Posting.model_validate(
        {"outcome": "skipped", "transaction_id": None, "balance": None}
    )

    assert (posting.transaction_id, posting.balance) == (None, None)


_USER = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"
