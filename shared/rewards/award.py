"""The rules of awards that need no database. Pure: time is an argument."""

from datetime import datetime, timedelta
from uuid import UUID

from pydantic import BaseModel


class MerchantConfig(BaseModel):
    """How a merchant rewards.

    Attributes:
        rate_bp: What a purchase earns, in basis points of its amount.
        award_delay_hours: From the purchase to its award; fractions are allowed.
    """

    merchant_id: str
    rate_bp: int
    award_delay_hours: float


class Awarded(BaseModel):
    """What an award run returns.

    Attributes:
        success: False when the purchase had been refunded.
        amount: What was credited, in points; zero when what it earns rounds down to nothing.
    """

    success: bool
    amount: int


class Posting(BaseModel):
    """What came of posting or reversing a transaction.

    Attributes:
        outcome: ``posted``, ``already`` (it had been before), ``skipped`` (refunded, or nothing to take
            back) or ``nothing`` (an award of zero).
        transaction_id: The new transaction, if there is one.
        balance: The wallet's balance after it.
    """

    outcome: str
    transaction_id: int | None = None
    balance: int | None = None


class AwardToExpire(BaseModel):
    """An award that is too old."""

    transaction_id: int
    user_id: UUID
    amount: int


def award_time(purchased_at: datetime, config: MerchantConfig) -> datetime:
    """Return when the award for a purchase is due."""
    return purchased_at + timedelta(hours=config.award_delay_hours)
