"""The events of the loyalty domain.

Those of purchases, sign-ups and reviews come from row triggers: their fields are those that
`supabase/migrations/*_loyalty_*.sql` names, and a test compares the two. The others are sent and
invoked by the functions themselves.
"""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from rewards.reports import DayFigures
from stepbase import EventData


class Purchase(EventData):
    """What all events of a purchase say.

    Attributes:
        source_id: The purchase.
        amount: What is or was to be paid, in cents.
    """

    user_id: UUID
    merchant_id: str
    source_id: str
    amount: int


class PurchasePlaced(Purchase, name="purchase/placed"):
    """A purchase was made, and is not paid yet."""


class AwardRequested(Purchase, name="currency/award.requested"):
    """A purchase was paid, so its buyer is due an award."""


class PurchaseRefunded(Purchase, name="purchase/refunded"):
    """A purchase was refunded, so its award must not be made, or must be taken back."""


class PointsExpiring(EventData, name="currency/points.expiring"):
    """Points of a merchant that are too old must expire.

    Attributes:
        as_of: When they are too old: the beginning of the night's run, for all its pages.
        after: The last transaction that was looked at; 0 for the first page.
    """

    merchant_id: str
    as_of: datetime
    after: int = 0


class BonusEarned(EventData, name="currency/bonus.earned"):
    """A user has earned the welcome bonus with their first purchase.

    Attributes:
        source_id: The purchase.
        amount: The bonus, in points.
    """

    user_id: UUID
    source_id: str
    amount: int


class ReviewDecided(EventData, name="order/review.decided"):
    """Somebody has decided on a large order, in the table `order_reviews`."""

    purchase_id: str
    status: Literal["approved", "refused"]
    decided_by: str | None = None


class ReportRequested(EventData, name="report/requested"):
    """Somebody wants the reports of a day."""

    day: date


class MerchantReportDue(EventData, name="report/merchant.due"):
    """The report of one merchant for one day is to be made."""

    merchant_id: str
    day: date


class SummaryWanted(EventData, name="report/summary.wanted"):
    """The figures of a day are to be put into words."""

    figures: DayFigures


class UserSignedUp(EventData, name="user/signup"):
    """A user has signed up and confirmed their address.

    Attributes:
        email: None for one who signed up without an address.
    """

    id: UUID
    email: str | None = None
