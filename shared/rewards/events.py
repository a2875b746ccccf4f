"""What purchases tell the world: the events that row triggers on `public.purchases` emit.

The fields are those that `supabase/migrations/*_loyalty_events.sql` names; a test compares the two.
"""

from uuid import UUID

from stepbase import EventData


class AwardRequested(EventData, name="currency/award.requested"):
    """A purchase was paid, so its buyer is due an award.

    Attributes:
        source_id: The purchase.
        amount: What was paid, in cents.
    """

    user_id: UUID
    merchant_id: str
    source_id: str
    amount: int


class PurchaseRefunded(EventData, name="purchase/refunded"):
    """A purchase was refunded, so its award must not be made, or must be taken back.

    Attributes:
        source_id: The purchase.
        amount: What was paid and is given back, in cents.
    """

    user_id: UUID
    merchant_id: str
    source_id: str
    amount: int
