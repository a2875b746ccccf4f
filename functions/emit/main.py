"""Takes events from the signed-in users of the shop's apps: what they say, never what the database knows.

An event that moves money is not among them: awards and refunds come from row triggers on `purchases`,
and a client that could send those would pay itself.
"""

from pydantic import Field

from stepbase import EventData, RateLimit, accept_events


class PurchaseRated(EventData, name="app/purchase.rated"):
    """A buyer says how they liked what they bought; who they are is in `event.user`.

    Attributes:
        source_id: The purchase.
        stars: From 1 to 5.
    """

    source_id: str = Field(min_length=1, max_length=100)
    stars: int = Field(ge=1, le=5)
    comment: str | None = Field(default=None, max_length=2000)


class OfferOpened(EventData, name="app/offer.opened"):
    """A merchant's offer was opened in an app."""

    merchant_id: str = Field(min_length=1, max_length=100)
    offer: str = Field(min_length=1, max_length=100)


main = accept_events(PurchaseRated, OfferOpened, rate_limit=RateLimit(60, "1m"))
