"""Random programs as `def` handlers run them, and what that means without a server, a replay or memos.

Every group is a `step.parallel` there, or a `step.race`. A branch keeps a log of its own, as branches run
again at every call, and has step ids of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tests.support.parallel_programs import (
    AsyncProgram,
    Branch,
    Catch,
    Finally,
    Group,
    Limit,
    Loop,
    Note,
    PlainSteps,
    Run,
    Sequence_,
    Sleep,
    Work,
    text_of,
)

from stepbase import StepError


@dataclass
class SyncProgram:
    """One execution of a program, or of one of its branches, in a plain handler."""

    step: Any
    work: Work
    path: str = ""
    log: list[Any] = field(default_factory=list)

    def go(self, node: Any) -> Any:
        """Run a part."""
        match node:
            case Run():
                self.log.append(self.step.run(node.id + self.path, self.work(node)))
            case Sleep():
                self.step.sleep(node.id + self.path, "1h")
                self.log.append("slept")
            case Note():
                self.log.append("here")
            case Loop():
                for _ in range(node.times):
                    self.go(node.body)
            case Branch():
                last = self.log[-1] if self.log and isinstance(self.log[-1], int) else 0
                self.go(node.odd if last % 2 else node.even)
            case Sequence_():
                for part in node.parts:
                    self.go(part)
            case Finally() | Catch():
                self._guard(node)
            case _:
                self._beside(node)

    def _guard(self, node: Finally | Catch) -> None:
        if isinstance(node, Finally):
            try:
                self.go(node.body)
            finally:
                self.go(node.always)
            return
        try:
            self.go(node.body)
        except StepError as error:
            self.log.append(f"caught {text_of(error)}")
            self.go(node.then)

    def _beside(self, node: Group | Limit) -> None:
        if isinstance(node, Limit):
            try:
                body = self._branch(0, node.body)
                self.log.append(self.step.timeout("2d", body, id=node.id + self.path))
            except TimeoutError:
                self.log.append("late")
            return
        branches = [self._branch(i, part) for i, part in enumerate(node.branches)]
        do = self.step.race if node.kind == "race" else self.step.parallel
        self.log.append(do(*branches))
        self.go(node.then)

    def _branch(self, index: int, part: Any) -> Callable[[], list[Any]]:
        def branch() -> list[Any]:
            inner = SyncProgram(self.step, self.work, f"{self.path}/{index}")
            inner.go(part)
            return inner.log

        return branch


class _NoSteps:
    """Steps of a program that is asked whether it needs any."""

    def run(self, *_: Any) -> Any:
        raise _Needed

    sleep = run

    def parallel(self, *branches: Callable[[], Any]) -> list[Any]:
        return [branch() for branch in branches]

    def race(self, *branches: Callable[[], Any]) -> Any:
        ready = [branch for branch in branches if _ends(branch)]
        if not ready:
            raise _Needed
        return ready[0]()

    def timeout(self, duration: str, branch: Callable[[], Any], *, id: str) -> Any:
        return branch()


class _Needed(BaseException):
    """A step is needed."""


def _ends(branch: Callable[[], Any]) -> bool:
    try:
        branch()
    except _Needed:
        return False
    return True


def _needs_no_step(part: Any) -> bool:
    return _ends(lambda: SyncProgram(_NoSteps(), lambda node: node).go(part))


_turns: ContextVar[int] = ContextVar("turns", default=60)
"""How long a race waits for its branches to reach their steps; inside of races less."""


class PlainSyncSteps(PlainSteps):
    """Plain steps of a program that is read as a plain handler: who is left does nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving: set[object] = set()

    async def _wait(self, step_id: str, node: Run | None) -> Any:
        task = asyncio.current_task()
        if task in self.leaving:
            raise asyncio.CancelledError
        try:
            return await super()._wait(step_id, node)
        except asyncio.CancelledError:
            self.leaving.add(task)
            raise

    async def parallel(self, *branches: Coroutine[Any, Any, Any]) -> list[Any]:
        """Wait for all; raise the error of the first that failed."""
        tasks = self._tasks(branches)
        await self._until(tasks, tasks, asyncio.ALL_COMPLETED)
        return [task.result() for task in tasks]

    async def race(self, *branches: Awaitable[Any], ready: Sequence[int] = ()) -> Any:
        """Wait for the first branch that ends; of those that need no step, it is the first of all."""
        turns = _turns.get()
        token = _turns.set(8)
        try:
            tasks = self._tasks(branches)
        finally:
            _turns.reset(token)
        those = [tasks[ready[0]]] if ready else tasks
        await self._until(tasks, those, asyncio.FIRST_COMPLETED, turns)
        return next(task for task in those if task.done() and not task.cancelled()).result()

    def _tasks(self, branches: Sequence[Any]) -> "list[asyncio.Future[Any]]":
        if asyncio.current_task() in self.leaving:
            for branch in branches:
                branch.close()
            raise asyncio.CancelledError
        return [asyncio.ensure_future(branch) for branch in branches]

    async def _until(
        self,
        tasks: "Sequence[asyncio.Future[Any]]",
        those: "Sequence[asyncio.Future[Any]]",
        when: str,
        turns: int = 0,
    ) -> None:
        try:
            await asyncio.wait(those, return_when=when)
            for _ in range(turns):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.leaving.add(asyncio.current_task())
            raise
        finally:
            rest = [task for task in tasks if not task.done()]
            for each in rest:
                each.cancel()
            if rest:
                await asyncio.wait(rest)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # whose it is, is not asked


class ReadAsSync(AsyncProgram):
    """The meaning of `SyncProgram`: the same on plain steps, its branches as tasks."""

    path = ""

    def __init__(self, step: Any, work: Work, path: str = "") -> None:
        super().__init__(step, work)
        self.path = path

    async def go(self, node: Any) -> Any:
        """Run a part."""
        match node:
            case Run():
                self.log.append(await self.step.run(node.id + self.path, node))
            case Sleep():
                await self.step.sleep(node.id + self.path, "1h")
                self.log.append("slept")
            case Note():
                self.log.append("here")
            case _:
                await super().go(node)

    async def within(self, node: Limit) -> Any:
        """Run a part that has a limit."""
        try:
            body = self._branch(0, node.body)
            self.log.append(await self.step.timeout("2d", body, id=node.id + self.path))
        except TimeoutError:
            self.log.append("late")

    async def beside(self, node: Group) -> Any:
        """Run branches beside each other."""
        self.facts.add(len(node.branches))
        branches = [self._branch(i, part) for i, part in enumerate(node.branches)]
        if node.kind == "race":
            ready = [i for i, part in enumerate(node.branches) if _needs_no_step(part)]
            self.log.append(await self.step.race(*branches, ready=ready))
        else:
            self.log.append(await self.step.parallel(*branches))
        await self.go(node.then)

    def _branch(self, index: int, part: Any) -> Coroutine[Any, Any, list[Any]]:
        async def branch() -> list[Any]:
            inner = ReadAsSync(self.step, self.work, f"{self.path}/{index}")
            inner.facts = self.facts
            await inner.go(part)
            return inner.log

        return branch()
