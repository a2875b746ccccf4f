"""Group commit: what arrives while a batch is written goes in the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from stepbase.engine.batcher import Batcher
from stepbase.errors import StoreError

Flush = Callable[[Sequence[int]], Awaitable[Sequence[int]]]


class Writer:
    """Doubles numbers, a batch at a time, when it is let go; fails where it is told to."""

    def __init__(self, *, bad: int | None = None, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self._bad = bad
        self._error = error

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.go.wait()
        if self._error is not None and (self._bad is None or self._bad in items):
            raise self._error
        return [item * 2 for item in items]


def refused() -> StoreError:
    return StoreError("refused", sqlstate="23505", is_transient=False)


def away() -> StoreError:
    return StoreError("away", sqlstate=None, is_transient=True)


async def test_one_item_alone_is_written_at_once() -> None:
    writer = Writer()
    writer.go.set()

    assert await Batcher(writer).add(1) == 2
    assert writer.batches == [[1]]


async def test_what_comes_while_a_batch_is_written_goes_in_the_next() -> None:
    writer = Writer()
    batcher = Batcher(writer)

    first = asyncio.create_task(batcher.add(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [asyncio.create_task(batcher.add(i)) for i in range(2, 6)]
    await asyncio.sleep(0)
    writer.go.set()

    assert [await first, *await asyncio.gather(*rest)] == [2, 4, 6, 8, 10]
    assert writer.batches == [[1], [2, 3, 4, 5]]


async def test_a_batch_closes_at_its_count_and_at_its_bytes() -> None:
    writer = Writer()
    writer.go.set()
    batcher = Batcher(writer, max_items=3, max_bytes=100)

    await asyncio.gather(*(batcher.add(i, 60 if i > 5 else 1) for i in range(9)))

    assert writer.batches == [[0, 1, 2], [3, 4, 5], [6, 7], [8]]
    assert batcher.waiting_bytes == 0


async def test_one_bad_item_fails_alone() -> None:
    writer = Writer(bad=3, error=refused())
    writer.go.set()
    batcher = Batcher(writer)

    results = await asyncio.gather(*(batcher.add(i) for i in range(5)), return_exceptions=True)

    assert [str(r) if isinstance(r, StoreError) else r for r in results] == [0, 2, 4, "refused", 8]


@pytest.mark.parametrize("error", [ValueError("a bug"), RecursionError("deep")])
async def test_an_unexpected_error_is_isolated_too(error: Exception) -> None:
    writer = Writer(bad=1, error=error)
    writer.go.set()
    batcher = Batcher(writer)

    results = await asyncio.gather(*(batcher.add(i) for i in range(3)), return_exceptions=True)

    assert results == [0, error, 4]


async def test_a_database_that_is_away_fails_the_batch_without_trying_each() -> None:
    writer = Writer(error=away())
    writer.go.set()
    batcher = Batcher(writer)

    results = await asyncio.gather(*(batcher.add(i) for i in range(5)), return_exceptions=True)

    assert [str(r) for r in results] == ["away"] * 5
    assert writer.batches == [[0, 1, 2, 3, 4]]


async def test_it_goes_on_after_a_failure() -> None:
    writer = Writer(bad=1, error=away())
    writer.go.set()
    batcher = Batcher(writer)

    with pytest.raises(StoreError, match="away"):
        await batcher.add(1)

    assert await batcher.add(2) == 4


async def test_who_no_longer_waits_is_left_out_of_the_next_batch() -> None:
    writer = Writer()
    batcher = Batcher(writer)
    first = asyncio.create_task(batcher.add(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    given_up = asyncio.create_task(batcher.add(2, 50))
    kept = asyncio.create_task(batcher.add(3, 50))
    await asyncio.sleep(0)

    given_up.cancel()
    writer.go.set()

    assert await first == 2 and await kept == 6
    assert writer.batches == [[1], [3]]
    assert batcher.waiting_bytes == 0
