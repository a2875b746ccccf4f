"""What will happen to each purchase: decided before the story begins. Pure.

Most purchases are paid and kept. The others are refunded, each at a moment that could go wrong:

    unpaid      before it was ever paid: no award is even asked for
    overtaken   right after it was paid, and the refund's event is delivered before the payment's
    racing      right after it was paid: before, during or after the award, as it comes
    waiting     while its award waits (one merchant delays them): the run is cancelled
    late        after its award was posted: it is taken back
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stepbase.demo.purchase import Purchase

DELAYED_MERCHANT = "7"
# What each merchant's purchases earn, in basis points, by its digit. The last one is so stingy that
# most of its awards round down to nothing.
_RATES = (100, 150, 200, 250, 300, 350, 400, 500, 50, 1)

_PENDING_SHARE = 0.3


class Fate(StrEnum):
    """What becomes of a purchase; see the module."""

    KEPT = "kept"
    UNPAID = "unpaid"
    OVERTAKEN = "overtaken"
    RACING = "racing"
    WAITING = "waiting"
    LATE = "late"


# Of all purchases that could have this fate.
_SHARES = {
    Fate.WAITING: 0.4,
    Fate.LATE: 0.06,
    Fate.RACING: 0.05,
    Fate.UNPAID: 0.02,
    Fate.OVERTAKEN: 0.02,
}


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant and how it rewards."""

    merchant_id: str
    rate_bp: int
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A purchase with its fate; `starts_pending`: it is recorded first and paid a moment later."""

    purchase: Purchase
    fate: Fate
    starts_pending: bool


def merchants(delay_seconds: float) -> list[Merchant]:
    """Return the ten merchants; one delays its awards."""
    return [
        Merchant(str(i), rate, delay_seconds if str(i) == DELAYED_MERCHANT else 0)
        for i, rate in enumerate(_RATES)
    ]


def decide_fates(purchases: Sequence[Purchase], seed: int) -> list[Entry]:
    """Give every purchase its fate, in the given order; the same seed gives the same fates.

    Every fate occurs if there is a purchase that could have it.
    """
    chance = random.Random(seed)
    fates: dict[Purchase, Fate] = {}
    for fate, share in _SHARES.items():
        able = [p for p in _able(fate, purchases) if p not in fates]
        count = min(len(able), max(1, round(len(able) * share)))
        fates.update(dict.fromkeys(chance.sample(able, count), fate))
    entries = []
    for purchase in purchases:
        fate = fates.get(purchase, Fate.KEPT)
        pending = fate is Fate.UNPAID or (
            fate is not Fate.OVERTAKEN and chance.random() < _PENDING_SHARE
        )
        entries.append(Entry(purchase, fate, pending))
    return entries


def _able(fate: Fate, purchases: Iterable[Purchase]) -> list[Purchase]:
    delayed = fate is Fate.WAITING
    able = [p for p in purchases if (p.merchant_id == DELAYED_MERCHANT) == delayed]
    # There must be something to take back.
    return [p for p in able if fate is not Fate.LATE or _award(p)]


def _award(purchase: Purchase) -> int:
    return purchase.cents * _RATES[int(purchase.merchant_id)] // 10_000
