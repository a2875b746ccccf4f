"""The story's motor: sells purchases in order, and refunds each when its fate says so.

The demo and the crash benchmark both run it, the one with a narrator, the other in a storm. It never
has more under way than a shop would: it sells on as awards come through.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from stepbase import clock
from stepbase.demo.books import Books, Connection, Standing
from stepbase.demo.fate import Entry, Fate
from stepbase.demo.purchase import Purchase
from stepbase.demo.shop import Shop, overtake

_BATCH = 10
_LOOK_SECONDS = 0.1
_REFUND_SECONDS = 0.25
_RECENT = timedelta(seconds=15)
_EVER = timedelta(days=1)


class Story:
    """Sells and refunds.

    Args:
        shop: Where purchases are recorded.
        owner: A connection as the database's owner.
        entries: The purchases and their fates.
        window: How much may be under way before the shop waits.
    """

    def __init__(
        self, shop: Shop, owner: Connection, entries: Sequence[Entry], *, window: int = 60
    ) -> None:
        self.books = Books(owner)
        self._shop = shop
        self._owner = owner
        self._window = window
        self._to_refund = {
            each.purchase.purchase_id: each.fate
            for each in entries
            if each.fate in (Fate.WAITING, Fate.LATE)
        }

    @property
    def refunds_left(self) -> int:
        """How many refunds wait for their moment."""
        return len(self._to_refund)

    async def sell(self, entries: Sequence[Entry], *, patiently: bool = True) -> None:
        """Sell purchases in order, a few at a time; returns when all are recorded and paid.

        Patiently: not while too much is under way.
        """
        for start in range(0, len(entries), _BATCH):
            while patiently and await self.books.load() > self._window:
                await asyncio.sleep(_LOOK_SECONDS)
            await self._sell_some(entries[start : start + _BATCH])

    async def _sell_some(self, entries: Sequence[Entry]) -> None:
        pending = [e for e in entries if e.starts_pending]
        await self._record(pending, "pending")
        at_once = [e for e in entries if not e.starts_pending and e.fate is not Fate.OVERTAKEN]
        await self._record(at_once, "paid")
        overtaken = [e.purchase for e in entries if e.fate is Fate.OVERTAKEN]
        if overtaken:
            await overtake(self._owner, overtaken)
        await self._change([e for e in pending if e.fate is not Fate.UNPAID], "paid")
        await self._change([e for e in entries if e.fate in (Fate.UNPAID, Fate.RACING)], "refunded")

    async def refund(self) -> None:
        """Refund what waits for its moment as that comes; until cancelled."""
        while True:
            await self._refund_due(_RECENT)
            await asyncio.sleep(_REFUND_SECONDS)

    async def _refund_due(self, within: timedelta) -> None:
        """Refund the waiting ones that wait, the late ones that have ended.

        One that should have been refunded while it waited and has ended is refunded late.
        """
        due = [
            purchase
            for purchase, waits in await self.books.refundable(within)
            if (fate := self._to_refund.get(purchase)) and (fate is Fate.WAITING or not waits)
        ]
        if due:
            await self._shop.change(due, "refunded")
            for purchase in due:
                self._to_refund.pop(purchase, None)

    async def settle(self, patience: float) -> Standing:
        """Wait until nothing is under way, or nothing has moved for `patience` seconds."""
        before, since = await self.books.standing(), clock.monotonic()
        while not (before.is_quiet and not self._to_refund):
            await asyncio.sleep(_LOOK_SECONDS)
            now = await self.books.standing()
            if now != before:
                before, since = now, clock.monotonic()
            elif clock.monotonic() - since > patience:
                break
            if now.is_quiet:
                await self._refund_due(_EVER)
        return before

    async def _record(self, entries: Sequence[Entry], status: str) -> None:
        purchases: list[Purchase] = [entry.purchase for entry in entries]
        if purchases:
            await self._shop.record(purchases, status)

    async def _change(self, entries: Sequence[Entry], status: str) -> None:
        if entries:
            await self._shop.change([entry.purchase.purchase_id for entry in entries], status)
