"""Group commit without a timer: one statement in flight, whatever arrives meanwhile goes in the next.

An idle engine adds no latency, a busy one writes in batches (measured: the single largest gain of
the engine's design). If a batch fails, its members are tried one by one, so that one bad item fails
alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from stepbase.errors import StoreError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items while a flush is under way.

    Args:
        flush: Writes a batch and returns one result per item, in order.
        max_items: Most items in a batch.
        max_bytes: A batch closes when the sizes given to `add` reach this.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int = 256,
        max_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        self._flush = flush
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Item, int, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self.waiting_bytes = 0

    async def add(self, item: Item, size: int = 0) -> Result:
        """Write an item with the next batch and return its result.

        Raises:
            StoreError: If the store refused it, or is away (`is_transient`).
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, size, future))
        self.waiting_bytes += size
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._write(self._take())
        finally:
            self._task = None

    def _take(self) -> list[tuple[Item, int, asyncio.Future[Result]]]:
        batch: list[tuple[Item, int, asyncio.Future[Result]]] = []
        size = 0
        while self._waiting and len(batch) < self._max_items and size < self._max_bytes:
            entry = self._waiting.popleft()
            self.waiting_bytes -= entry[1]
            if entry[2].cancelled():
                continue
            batch.append(entry)
            size += entry[1]
        return batch

    async def _write(self, batch: list[tuple[Item, int, asyncio.Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = await self._flush([item for item, _, _ in batch])
        except Exception as error:
            is_away = isinstance(error, StoreError) and error.is_transient
            if len(batch) == 1 or is_away:
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                return
            for entry in batch:
                await self._write([entry])
            return
        for (_, _, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
