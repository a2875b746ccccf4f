"""What is decided about large orders."""

from typing import Literal

from pydantic import BaseModel


class Decision(BaseModel):
    """What somebody decided in a review, as it travels with the signal."""

    status: Literal["approved", "refused"]
    decided_by: str | None = None


def review_signal(purchase_id: str) -> str:
    """Return the name of the signal that ends an order's review."""
    return f"order-review:{purchase_id}"
