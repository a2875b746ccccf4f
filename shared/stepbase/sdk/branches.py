"""Branches of an async handler that race against each other. Plain asyncio: the order is in the steps'."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def race(branches: Iterable[Awaitable[T]]) -> T:
    """Return the result of the branch that ends first, or raise its error; cancel the others."""
    return (await _first(branches)).result()


async def within(branch: Awaitable[T], clock: Callable[[], Awaitable[None]], what: str) -> T:
    """Return the branch's result if it ends before the clock.

    Args:
        clock: Begins the limit's sleep.
        what: Names the limit, for the message.

    Raises:
        TimeoutError: If it does not.
    """

    async def limit() -> T:
        await clock()
        raise TimeoutError(f"step.timeout {what} is over")

    return await race((branch, limit()))


async def _first(branches: Iterable[Awaitable[T]]) -> "asyncio.Future[T]":
    tasks = [asyncio.ensure_future(branch) for branch in branches]
    if not tasks:
        raise TypeError("step.race needs a branch at least")
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done)
    finally:
        for task in tasks:
            task.add_done_callback(_forget)
        await _cancel([task for task in tasks if not task.done()])


def _forget(task: "asyncio.Future[T]") -> None:
    """Ask for a branch's error: nobody is to be told of what losers raise."""
    if not task.cancelled():
        task.exception()


async def _cancel(tasks: "list[asyncio.Future[T]]") -> None:
    """End the losers, and wait until their `finally` blocks have run; if this is cancelled, so are they."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
