"""Cases that run all at once against one engine: most of them only wait.

A case is an async function that takes what the cases share and asserts. Each is one parameter of one
test, so it is chosen, reported and counted alone.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Generic, TypeVar

import pytest
from tests.official.features import Sdk, shows

Played = dict[str, Future[None]]
"""By case, how it ended."""


Shared = TypeVar("Shared")
Open = Callable[[], AbstractAsyncContextManager[Shared]]
Play = Callable[[Shared], Awaitable[None]]


class Cases(Generic[Shared]):
    """The cases of an SDK, filled by its modules: `@case("throttle") async def throttle(app): …`."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk: Sdk = sdk
        self._plays: dict[str, Play[Shared]] = {}
        self._marks: dict[str, pytest.MarkDecorator] = {}

    def __call__(self, *keys: str) -> Callable[[Play[Shared]], Play[Shared]]:
        """Add a case that shows these features."""

        def add(play: Play[Shared]) -> Play[Shared]:
            name = getattr(play, "__name__", "")
            assert name not in self._plays, name
            self._plays[name] = play
            self._marks[name] = shows(self._sdk, *keys)
            return play

        return add

    def parameters(self) -> list[object]:
        """Return a parameter for each case."""
        return [pytest.param(name, marks=self._marks[name], id=name) for name in self._plays]

    @contextmanager
    def playing(self, chosen: Sequence[str], shared: Open[Shared]) -> Iterator[Played]:
        """Play the chosen cases in a thread; a test waits for its own."""
        played: Played = {name: Future() for name in chosen}
        thread = threading.Thread(target=lambda: asyncio.run(self._play(played, shared)))
        thread.start()
        try:
            yield played
        finally:
            thread.join()

    async def _play(self, played: Played, shared: Open[Shared]) -> None:
        try:
            async with shared() as given:
                await asyncio.gather(
                    *(self._play_one(name, future, given) for name, future in played.items())
                )
        except Exception as error:
            for future in played.values():
                if not future.done():
                    future.set_exception(error)
            raise

    async def _play_one(self, name: str, future: Future[None], given: Shared) -> None:
        try:
            await self._plays[name](given)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)


def chosen(request: pytest.FixtureRequest, test: str) -> list[str]:
    """Return the cases of a test (the parameter `case`) that were chosen on the command line."""
    return [
        str(item.callspec.params["case"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == test
    ]
