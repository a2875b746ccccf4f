"""Steps side by side in both Python packages: what `tests/support/peers.py` asks of their handlers.

The official package has one group with a mode; a race there is a group whose first result counts.
"""

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from typing import Any

from inngest import ParallelMode

UNTIL = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)


class AsyncGroups:
    """What async handlers do; `group` is the official package's, or None for ours."""

    step: Any
    group: Any

    async def work(self) -> Any:
        """The work of a step."""
        raise NotImplementedError

    async def all_of(self, *branches: Callable[[], Awaitable[Any]]) -> list[Any]:
        """Wait for all branches."""
        if self.group is None:
            return await asyncio.gather(*(branch() for branch in branches))
        return list(await self.group.parallel(branches))

    async def first_of(self, *branches: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for the first branch."""
        if self.group is None:
            return await self.step.race(*(branch() for branch in branches))
        return (await self.group.parallel(branches, parallel_mode=ParallelMode.RACE))[0]

    async def do_parallel(self) -> Any:
        return await self.all_of(
            lambda: self.step.run("a", self.work),
            lambda: self.step.sleep_until("b", UNTIL),
            lambda: self.step.run("c", self.work),
        )

    async def do_branches(self) -> Any:
        async def branch(name: str) -> list[Any]:
            first = await self.step.run(f"{name}1", self.work)
            return [first, await self.step.run(f"{name}2", self.work)]

        return await self.all_of(lambda: branch("a"), lambda: branch("b"))

    async def do_groups(self) -> Any:
        return await self.all_of(
            lambda: self.all_of(
                lambda: self.step.run("a", self.work), lambda: self.step.run("b", self.work)
            ),
            lambda: self.step.run("c", self.work),
        )

    async def do_after(self) -> Any:
        await self.step.run("a", self.work)
        both = await self.all_of(
            lambda: self.step.run("b", self.work), lambda: self.step.run("b", self.work)
        )
        return [both, await self.step.run("c", self.work)]

    async def do_race(self) -> Any:
        return await self.first_of(
            lambda: self.step.run("a", self.work), lambda: self.step.run("b", self.work)
        )


class SyncGroups:
    """What sync handlers do; see `AsyncGroups`."""

    step: Any
    group: Any

    def work(self) -> Any:
        """The work of a step."""
        raise NotImplementedError

    def all_of(self, *branches: Callable[[], Any]) -> list[Any]:
        """Wait for all branches."""
        if self.group is None:
            return list(self.step.parallel(*branches))
        return list(self.group.parallel(branches))

    def first_of(self, *branches: Callable[[], Any]) -> Any:
        """Wait for the first branch."""
        if self.group is None:
            return self.step.race(*branches)
        return self.group.parallel(branches, parallel_mode=ParallelMode.RACE)[0]

    def do_parallel(self) -> Any:
        return self.all_of(
            lambda: self.step.run("a", self.work),
            lambda: self.step.sleep_until("b", UNTIL),
            lambda: self.step.run("c", self.work),
        )

    def do_branches(self) -> Any:
        def branch(name: str) -> list[Any]:
            first = self.step.run(f"{name}1", self.work)
            return [first, self.step.run(f"{name}2", self.work)]

        return self.all_of(lambda: branch("a"), lambda: branch("b"))

    def do_groups(self) -> Any:
        return self.all_of(
            lambda: self.all_of(
                lambda: self.step.run("a", self.work), lambda: self.step.run("b", self.work)
            ),
            lambda: self.step.run("c", self.work),
        )

    def do_after(self) -> Any:
        self.step.run("a", self.work)
        both = self.all_of(
            lambda: self.step.run("b", self.work), lambda: self.step.run("b", self.work)
        )
        return [both, self.step.run("c", self.work)]

    def do_race(self) -> Any:
        return self.first_of(
            lambda: self.step.run("a", self.work), lambda: self.step.run("b", self.work)
        )
