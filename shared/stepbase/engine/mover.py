"""Puts calls back that wait elsewhere than their functions say now, instead of making them.

Lanes are written when a run starts (`lanes.py`). Where a function was synced with other limits since then,
or paused, the call is found out when its turn comes, before it is made: so nothing has to be rewritten at a
sync, whatever is waiting and sleeping, and a call that comes back after a month keeps to the limits of today.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stepbase.engine import expr
from stepbase.engine.batcher import Batcher
from stepbase.engine.item import Item
from stepbase.engine.lanes import Lane, is_elsewhere, lane_of, lane_of_next
from stepbase.engine.registry import Registry
from stepbase.engine.starts import Function
from stepbase.engine.store import STALE, PutBack, Store
from stepbase.errors import StoreError
from stepbase.protocol.jsontext import loads


@dataclass(frozen=True, slots=True)
class _Planned:
    """A move, and the epoch of the functions it was worked out with."""

    epoch: int
    move: PutBack


class Mover:
    """Finds and moves such calls."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._batcher: Batcher[_Planned, None] = Batcher(self._flush)

    def must_move(self, item: Item) -> bool:
        """Say whether a call must wait elsewhere."""
        function = self._now(item)
        return function.is_paused or is_elsewhere(
            function.function_id, function.config.limits, item.lane, item.waited, is_new=item.is_new
        )

    async def move(self, item: Item) -> bool:
        """Put a call back; False if it need not be after all: our copy of the functions was old.

        Raises:
            StoreError: If the database is away.
        """
        while self.must_move(item):
            epoch = self._registry.epoch
            try:
                await self._batcher.add(_Planned(epoch, self._planned(item)))
            except StoreError as error:
                if error.sqlstate != STALE:
                    raise
                await self._registry.reload(unless_epoch=epoch)
            else:
                return True
        return False

    def _planned(self, item: Item) -> PutBack:
        function = self._now(item)
        event = loads(item.event)
        assert isinstance(event, dict)  # events are objects
        lane: Lane = lane_of(
            function.function_id,
            function.config.limits,
            event,
            expr.value_of,
            is_paused=function.is_paused,
        )
        place: str | None = None
        if not item.is_new:
            lane, place = lane_of_next(lane, function.function_id, is_paused=function.is_paused)
        return PutBack(item.run_id, item.job, item.gen, lane, place if item.job == "main" else None)

    def _now(self, item: Item) -> Function:
        return self._registry.functions.by_id.get(item.function.function_id, item.function)

    async def _flush(self, batch: Sequence[_Planned]) -> list[None]:
        await self._store.move(
            min(planned.epoch for planned in batch), [planned.move for planned in batch]
        )
        return [None] * len(batch)
