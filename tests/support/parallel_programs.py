"""Random programs of steps, and what they do by plain asyncio: no server, no replay, no memos.

A program is run by one interpreter whatever its steps are: durable ones in an async handler, or those of
`plain`, which end in an order that was given. `SyncProgram` (a `def` handler) is its only other reading.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from hypothesis import strategies as st
from tests.support.sdk_calls import hashed

from stepbase import StepError

MAX_ATTEMPTS: Final = 3
STILL: Final = 8
"""Turns of the event loop that pass while the end of one task gets round to others."""


@dataclass(frozen=True)
class Run:
    """A step that fails its first `failures` attempts."""

    id: str
    value: int
    failures: int = 0
    ticks: int = 0


@dataclass(frozen=True)
class Sleep:
    """A step that the server does.

    Attributes:
        ticks: How many turns of the event loop go by before it is reached.
    """

    id: str
    ticks: int = 0


@dataclass(frozen=True)
class Note:
    """Something that can be seen, and no step."""


@dataclass(frozen=True)
class Loop:
    """The body, some times over."""

    times: int
    body: Any


@dataclass(frozen=True)
class Branch:
    """Goes on by whether the last result was even."""

    even: Any
    odd: Any


@dataclass(frozen=True)
class Catch:
    """Goes on with `then` when the body has failed."""

    body: Any
    then: Any


@dataclass(frozen=True)
class Finally:
    """Clean-up, with steps of its own perhaps."""

    body: Any
    always: Any


@dataclass(frozen=True)
class Sequence_:
    """Parts one after the other."""

    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Group:
    """Branches beside each other.

    Attributes:
        kind: One of `KINDS`.
        then: What the parent does beside them, or once the first has ended.
    """

    kind: str
    branches: tuple[Any, ...]
    then: Any


@dataclass(frozen=True)
class Limit:
    """A body that races against a sleep."""

    id: str
    body: Any


KINDS = ("gather", "own", "group", "completed", "first", "first-only", "race")
IDS = st.sampled_from(["a", "b", "a:1", "c"])
FAILURES = st.sampled_from([0, 0, 0, 0, 1, 2, 3])
TICKS = st.sampled_from([0, 0, 0, 1, 2, 4])
RUNS = st.builds(Run, IDS, st.integers(0, 9), FAILURES, TICKS)
LEAVES = RUNS | RUNS | RUNS | st.builds(Sleep, IDS, TICKS) | st.just(Note())


def _some(inner: st.SearchStrategy[Any], least: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(inner, min_size=least, max_size=4).map(tuple)


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(Loop, st.integers(1, 3), inner),
        st.builds(Branch, inner, inner),
        st.builds(Catch, inner, inner),
        st.builds(Finally, inner, inner),
        _some(inner, 1).map(Sequence_),
    )


def _group(kind: str, branches: tuple[Any, ...], then: Any) -> Group:
    # In which order a TaskGroup cancels its tasks is left to chance, and so would be their clean-up.
    if kind == "group" and "Finally(" in repr(branches):
        kind = "gather"
    return Group(kind, branches, then)


def _beside(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    groups = st.builds(_group, st.sampled_from(KINDS), _some(inner, 1), LEAVES)
    wide = st.builds(_group, st.sampled_from(KINDS), st.tuples(inner, inner, inner), LEAVES)
    return groups | wide | st.builds(Catch, wide, inner) | st.builds(Limit, IDS, inner)


SEQUENTIAL = st.recursive(LEAVES, _around, max_leaves=8)
"""Programs without branches beside each other."""

_PARTS = st.recursive(LEAVES, lambda inner: _around(inner) | _beside(inner), max_leaves=9)
_DOOMED = st.builds(Run, IDS, st.just(0), st.just(MAX_ATTEMPTS), TICKS)
_FAILING = st.tuples(_PARTS, _DOOMED).map(Sequence_) | st.builds(
    _group, st.sampled_from(KINDS[:5]), st.tuples(LEAVES, _DOOMED, _PARTS), LEAVES
)
SAVED = st.builds(Catch, _FAILING, _PARTS)
"""Programs that catch the error of a step which fails for good, if they come to it."""

PROGRAMS = _PARTS | _beside(_PARTS) | SAVED
"""Programs of all kinds."""


class Face(Protocol):
    """What programs need of `step`."""

    def run(self, step_id: str, function: Any, *args: Any) -> Coroutine[Any, Any, Any]: ...

    def sleep(self, step_id: str, duration: str) -> Coroutine[Any, Any, None]: ...

    def race(self, *branches: Awaitable[Any]) -> Coroutine[Any, Any, Any]: ...

    def timeout(
        self, duration: str, branch: Awaitable[Any], *, id: str
    ) -> Coroutine[Any, Any, Any]: ...


Work = Callable[[Run], Any]
"""Makes what a step runs."""


@dataclass
class AsyncProgram:
    """One execution of a program in an async handler.

    Attributes:
        effects: Says what the program does outside of steps, as it does it.
        is_left: Says whether the call is over.
        facts: How many branches its groups had; and "caught", if it has caught an error.
    """

    step: Any
    work: Work
    effects: Callable[[Any], None] = lambda _: None
    is_left: Callable[[], bool] = lambda: False
    log: list[Any] = field(default_factory=list)
    facts: set[Any] = field(default_factory=set)

    def note(self, what: Any) -> Any:
        """Do something that can be seen outside."""
        self.log.append(what)
        self.effects(what)
        return what

    async def go(self, node: Any) -> Any:
        """Run a part; returns its last result."""
        match node:
            case Run() | Sleep():
                for _ in range(node.ticks):
                    await asyncio.sleep(0)
                if isinstance(node, Run):
                    return self.note(await self.step.run(node.id, self.work(node)))
                await self.step.sleep(node.id, "1h")
                return self.note("slept")
            case Note():
                return self.note("here")
            case Group():
                return await self.beside(node)
            case Limit():
                return await self.within(node)
            case _:
                return await self.around(node)

    async def around(self, node: Any) -> Any:
        """Run what goes on after a part, or not."""
        value = None
        match node:
            case Loop():
                for _ in range(node.times):
                    value = await self.go(node.body)
            case Branch():
                last = self.log[-1] if self.log and isinstance(self.log[-1], int) else 0
                value = await self.go(node.odd if last % 2 else node.even)
            case Sequence_():
                for part in node.parts:
                    value = await self.go(part)
            case Finally():
                try:
                    value = await self.go(node.body)
                finally:
                    await self.go(node.always)
            case Catch():
                try:
                    value = await self.go(node.body)
                except (StepError, ExceptionGroup) as error:
                    self.facts.add("caught")
                    self.note(f"caught {text_of(error)}")
                    value = await self.go(node.then)
        return value

    async def within(self, node: Limit) -> Any:
        """Run a part that has a limit."""
        try:
            return await self.step.timeout("2d", self.go(node.body), id=node.id)
        except TimeoutError:
            return self.note("late")

    async def beside(self, node: Group) -> Any:
        """Run branches beside each other."""
        self.facts.add(len(node.branches))
        match node.kind:
            case "gather":
                values = await asyncio.gather(*map(self.go, node.branches))
                self.note(sum_of(values))
                return await self.go(node.then)
            case "group":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self.go(each)) for each in node.branches]
                    await self.go(node.then)
                return self.note(sum_of([task.result() for task in tasks]))
            case "race":
                value = await self.step.race(*map(self.go, node.branches))
                self.note(f"won {value}")
                return await self.go(node.then)
            case _:
                return await self._of_tasks(node)

    async def _of_tasks(self, node: Group) -> Any:
        tasks = [asyncio.ensure_future(self.go(each)) for each in node.branches]
        try:
            return await self._wait_for(node, tasks)
        except BaseException:
            if not self.is_left():
                for task in tasks:  # as asyncio wants it: somebody asks for every error
                    task.add_done_callback(_ask)
            raise

    async def _wait_for(self, node: Group, tasks: "Sequence[asyncio.Future[Any]]") -> Any:
        if node.kind == "own":
            await self.go(node.then)
            return self.note(sum_of(await asyncio.gather(*tasks)))
        if node.kind == "completed":
            for i, each in enumerate(asyncio.as_completed(tasks)):
                value = self.note(f"next {await each}")
                if i == 0:
                    await self.go(node.then)
            return value
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.note(f"first {[i for i, task in enumerate(tasks) if task in done]}")
        await self.go(node.then)
        if node.kind == "first-only":
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            return self.note([text_of(each) for each in ended])
        return self.note(sum_of(await asyncio.gather(*tasks)))


def _ask(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


def sum_of(values: Sequence[Any]) -> int:
    """Return one number for all results."""
    return sum(value for value in values if isinstance(value, int))


def text_of(value: Any) -> str:
    """Show a result or an error, as far as it must be the same everywhere."""
    if isinstance(value, BaseExceptionGroup):
        return f"[{', '.join(text_of(each) for each in value.exceptions)}]"
    if isinstance(value, StepError):
        return value.message
    return type(value).__name__ if isinstance(value, BaseException) else str(value)


@dataclass
class PlainSteps:
    """Steps that end when they are told to; they name themselves as the wire does."""

    waiting: dict[str, tuple["asyncio.Future[None]", Any]] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    is_closed: bool = False

    def run(self, step_id: str, node: Any) -> Coroutine[Any, Any, Any]:
        """Wait for the step's turn, and return what it returns in the end."""
        return self._wait(step_id, node)

    def sleep(self, step_id: str, duration: str) -> Coroutine[Any, Any, Any]:
        """Wait for the step's turn."""
        return self._wait(step_id, None)

    async def _wait(self, step_id: str, node: Run | None) -> Any:
        if self.is_closed:
            raise asyncio.CancelledError
        index = 0
        while hashed(step_id, index) in self.used:
            index += 1
        hash_ = hashed(step_id, index)
        self.used.add(hash_)
        future = asyncio.get_running_loop().create_future()
        self.waiting[hash_] = (future, node)
        try:
            await future
        except asyncio.CancelledError:
            self.left.add(hash_)
            raise
        finally:
            del self.waiting[hash_]
        if node is not None and node.failures >= MAX_ATTEMPTS:
            raise StepError("ValueError", f"{node.id} failed")
        return node.value if node is not None else None

    async def race(self, *branches: Awaitable[Any]) -> Any:
        """Wait for the first branch that ends, and cancel the others."""
        tasks = [asyncio.ensure_future(branch) for branch in branches]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task.done()).result()
        finally:
            losers = [task for task in tasks if not task.done()]
            for task in losers:
                task.cancel()
            await asyncio.gather(*losers, return_exceptions=True)

    async def timeout(self, duration: str, branch: Awaitable[Any], *, id: str) -> Any:
        """Wait for the branch, or for a sleep."""

        async def clock() -> None:
            await self.sleep(id, duration)
            raise TimeoutError

        return await self.race(branch, clock())


@dataclass
class End:
    """How a program ends: its log, or what it raised; and what it came by."""

    log: list[Any]
    error: list[str] | None
    facts: set[Any]


async def plain(
    program: Any,
    order: Sequence[str],
    steps: "PlainSteps | None" = None,
    read: Callable[[Any, Work], AsyncProgram] = AsyncProgram,
) -> End:
    """Run a program whose steps end in this order, each once nothing else moves any more.

    Args:
        order: Hashed ids of steps. Those that were left (by a race, say) before their turn are passed over.

    Raises:
        AssertionError: If a step's turn comes although nobody waits for it; or if the program needs more
            steps than those.
    """
    steps = steps or PlainSteps()
    running = read(steps, lambda node: node)

    async def log_of() -> list[Any]:
        await running.go(program)
        return list(running.log)

    before = asyncio.all_tasks()
    task = asyncio.ensure_future(log_of())
    try:
        await _in_order(task, steps, order)
        error = task.exception()
        log = running.log if error is not None else task.result()
        return End(log, error_of(error) if error is not None else None, running.facts)
    finally:
        steps.is_closed = True
        rest = asyncio.all_tasks() - before
        for each in rest:
            each.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def _in_order(task: "asyncio.Task[Any]", steps: PlainSteps, order: Sequence[str]) -> None:
    for hash_ in order:
        await _settle(task)
        if task.done():
            return
        if hash_ in steps.waiting:
            steps.waiting[hash_][0].set_result(None)
        else:
            assert hash_ in steps.left, "a step has a result though the program did not get to it"
    await _settle(task)
    assert task.done(), f"the program has not ended after {len(order)} steps"


def error_of(error: BaseException) -> list[str]:
    """Return an error's name and message as the wire has them."""
    if isinstance(error, StepError):
        return [error.name, error.message]
    return [type(error).__name__, str(error)]


async def _settle(task: "asyncio.Task[Any]") -> None:
    """Wait until all tasks have waited for something for some turns, so that only steps can help."""
    me = asyncio.current_task()
    still = 0
    while still < STILL and not task.done():
        await asyncio.sleep(0)
        waiters = [getattr(each, "_fut_waiter", None) for each in asyncio.all_tasks() - {me}]
        is_moving = any(waiter is None or waiter.done() for waiter in waiters)
        still = 0 if is_moving else still + 1
