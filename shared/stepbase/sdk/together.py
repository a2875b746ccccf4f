"""Steps of one call that run beside each other, where their results can be saved on the way.

Without this a call that finds several steps ends, and the server calls again for each. With it they run
here at once. Each result is saved as checkpoints are, those that end at nearly the same time in one
request. Once all have ended the results are given to their branches one by one, in the order of saving,
which is the order of later calls; then what the branches have come to runs, and so on. The handler goes on
after the last of a group, as it does when the server calls for each.

What does not fit in is left to the server as ever. When one of a group has failed, or the call is late,
nothing more begins; those under way end, their results are kept, and the call ends with the rest. Where
one waits that only the server can do, all of them are its. A step under way always ends.
"""

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from stepbase import standin
from stepbase.protocol.op import Opcode
from stepbase.sdk.replay import Decision, NewStep, Replay, StepOp, tried
from stepbase.sdk.work import perform_async

if TYPE_CHECKING:
    from stepbase.sdk.checkpoints import Checkpoints

PLAIN_AT_ONCE: Final = 8
"""So many plain functions of a call run beside each other, each in a thread. Async ones are not limited:
there are as many as the handler has branches, each a task already."""

SHARED_SECONDS: Final = 0.01
"""So long a result waits for others to share its request, while steps are under way."""

Turn = Decision | str | None
"""What a step that waited is told: RUN; its result of this call as JSON text; None: its memo may be taken."""


class Parked:
    """A step that waits for its turn.

    Attributes:
        is_begun: Its work is under way beside others, or over.
        context: Of the branch that waits; the work runs in it.
    """

    __slots__ = ("context", "future", "is_begun", "step")

    def __init__(self, step: NewStep, future: "asyncio.Future[Turn]") -> None:
        self.step = step
        self.future = future
        self.is_begun = False
        self.context = contextvars.copy_context()

    @property
    def is_waiting(self) -> bool:
        """True if something is to be decided about it."""
        return not (self.is_begun or self.future.done())


class _Ended:
    """What a work has brought: the result as JSON text, or what a hook raised."""

    __slots__ = ("data", "error", "parked")

    def __init__(self, parked: Parked, data: str, error: BaseException | None) -> None:
        self.parked = parked
        self.data = data
        self.error = error


class Together:
    """The works of one call.

    Args:
        wake: Called when there is a result to give back, or when the last work has ended.
        told: Called with the op of a step that ran before it is saved, and may change it.
    """

    def __init__(
        self,
        replay: Replay,
        checkpoints: "Checkpoints",
        wake: Callable[[], None],
        told: Callable[[StepOp], Awaitable[None]],
    ) -> None:
        self._replay = replay
        self._checkpoints = checkpoints
        self._wake = wake
        self._told = told
        self._works: set[asyncio.Task[None]] = set()
        self._plain = 0
        self._ended: deque[_Ended] = deque()
        self._failed: list[tuple[Parked, StepOp]] = []
        self._is_ending = False
        self._saving: asyncio.Task[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_broken(self) -> bool:
        """True if what has ended cannot be saved, so that the call must end with it."""
        return self._checkpoints.is_broken

    @property
    def failed(self) -> list[StepOp]:
        """What to report of the steps that have failed and are still wanted."""
        return [tried(parked.step, op) for parked, op in self._failed if not parked.future.done()]

    def go_on(self, waiting: Sequence[Parked]) -> bool:
        """Begin what had to wait for others; returns False once none is under way."""
        return bool(self._works) and self.begin(waiting)

    def begin(self, waiting: Sequence[Parked]) -> bool:
        """Begin what can run beside each other; returns True while works are under way."""
        may_begin = not self._is_ending and self._checkpoints.may_begin
        is_group = len(waiting) > 1 or bool(self._works)
        if (
            may_begin
            and is_group
            and all(each.step.work and not each.step.is_racing for each in waiting)
        ):
            self._replay.catch_up()
            for each in waiting:
                self._begin(each)
        return bool(self._works)

    def give_back(self) -> bool:
        """Let the branch go on that waits for the next result; False if there is none."""
        while self._ended:
            ended = self._ended.popleft()
            future = ended.parked.future
            if future.done():
                continue
            if ended.error is not None:
                future.set_exception(ended.error)
            else:
                future.set_result(ended.data)
            return True
        return False

    async def end(self, *, is_unwanted: bool) -> None:
        """Wait for the works under way; with `is_unwanted`, cancel them: the host is stopping."""
        self._is_ending = True
        if is_unwanted:
            for work in self._works:
                work.cancel()
        if self._works:
            await asyncio.wait(self._works)
        if self._timer is not None:
            self._timer.cancel()
        if self._saving is not None:
            await asyncio.wait([self._saving])
        self._failed.clear()  # their work holds this: no cycles

    def _begin(self, parked: Parked) -> None:
        plain = parked.step.work
        if plain is not None and not inspect.iscoroutinefunction(plain):
            if self._plain >= PLAIN_AT_ONCE:
                return  # when another has ended
            self._plain += 1
            parked.step.work = partial(self._in_thread, plain)
        parked.is_begun = True
        # Not by the loop's factory: what it makes inside a handler counts as the handler's own.
        work = asyncio.Task(
            self._work(parked), loop=asyncio.get_running_loop(), context=parked.context
        )
        self._works.add(work)
        work.add_done_callback(self._work_ended)

    async def _in_thread(self, plain: Callable[[], Any]) -> Any:
        """Call a plain function; what it returns may have to be awaited, and that takes no thread."""
        try:
            value = await asyncio.to_thread(plain)
        finally:
            self._plain -= 1
            self._wake()
        return await value if inspect.isawaitable(value) else value

    def _work_ended(self, work: "asyncio.Task[None]") -> None:
        self._works.discard(work)
        if not work.cancelled() and work.exception() is not None:
            work.get_loop().call_exception_handler(
                {"message": "a step beside others has broken", "exception": work.exception()}
            )
        self._wake()

    async def _work(self, parked: Parked) -> None:
        if not await self._is_saved():
            parked.is_begun, self._is_ending = False, True
            return
        op = await perform_async(self._replay, parked.step)
        data = op.data
        try:
            await self._told(op)
        except Exception as error:
            self._is_ending = True
            self._ended.append(_Ended(parked, "", error))
            return
        if op.op is not Opcode.STEP_RUN:
            self._is_ending = True
            self._failed.append((parked, op))
            return
        self._checkpoints.keep_beside(op)
        self._ended.append(_Ended(parked, data, None))
        self._save_soon()

    async def _is_saved(self) -> bool:
        """Save what is due before a step begins; returns False if that failed."""
        # The first may have been under way before what this step follows from was there.
        for _ in range(2):
            if not self._checkpoints.is_due:
                return True
            if not await asyncio.shield(self._save()):
                return False
        return True

    def _save(self) -> "asyncio.Task[bool]":
        """Save in a thread, one request at a time."""
        if self._saving is None or self._saving.done():
            loop = asyncio.get_running_loop()
            self._saving = asyncio.Task(self._checkpoints.asave(), loop=loop)
            self._saving.add_done_callback(lambda _: self._save_soon())
        return self._saving

    def _save_soon(self) -> None:
        """Save what is due while steps are under way: their end may be far, and a crash nearer."""
        is_coming = self._saving is not None and not self._saving.done()
        # In a test without a server no time passes while a step runs.
        if self._timer is not None or is_coming or standin.current.get() is not None:
            return
        if self._works and self._checkpoints.is_due and not self._checkpoints.is_broken:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SHARED_SECONDS, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self._works and self._checkpoints.is_due:
            self._save()
