"""Whose turn it is: steps of one async handler that wait beside each other.

A handler is plain asyncio: it may put steps into `gather`, `TaskGroup`, `wait` or tasks of its own.
While it does, its steps park. When nothing moves any more one thing happens: the parked step whose
memo is next in the server's stack goes on; or, if there is none, what waits is decided about
(`Replay.decide`): one step runs here, several are reported and the call ends.

Movements are a step reached, a task made, a task ended; nothing moves after `QUIET_TURNS` turns of the
event loop without one. A wait for anything else (a request outside of a step, a timer) holds up no
decision: what comes after it is found in a later call. Handlers without tasks pay for none of this.

Where results can be saved on the way, several steps run here, beside each other (`sdk.together`). Their
results take their turns too, in the order in which they are saved, which is the stack of later calls.
"""

import asyncio
import heapq
import inspect
import json
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Never

from stepbase import clock
from stepbase.sdk.fault import CodedError
from stepbase.sdk.replay import Decision, NewStep, Replay, StepOp, planned
from stepbase.sdk.tasks import is_asleep, is_in_wait_for, is_waiting_on_tasks, waits_on_tasks
from stepbase.sdk.together import Parked, Together, Turn
from stepbase.sdk.verbs import Verb
from stepbase.sdk.work import NotSaved, is_inside_step, perform_async

if TYPE_CHECKING:
    from stepbase.sdk.checkpoints import Checkpoints

logger = logging.getLogger("stepbase.sdk.turns")

QUIET_TURNS: Final = 8
"""A finished task takes two turns to wake who waits for it in `gather` or `TaskGroup`, three in
`as_completed`, and one more for each `gather` around it."""

PATIENCE_SECONDS: Final = 10.0
"""How long a call for a planned step waits for it while the handler waits for other things; as the
TypeScript SDK."""

BLOCKED_SECONDS: Final = 1.0
"""How long a handler may keep the event loop to itself without a warning."""

LEAVING_SECONDS: Final = 5.0
"""How long the tasks of a handler that has ended may take to end too."""

_turns: ContextVar["Turns | None"] = ContextVar("stepbase_turns", default=None)


class Turns:
    """The steps of one call of an async handler.

    Args:
        checkpoints: Where results are saved while the handler goes on; None if the call ends with a step.

    Attributes:
        on_output: Called with the op of a step that ran before it is saved, and may change it; or None.
        called: The coroutines of steps that were called and have not begun, by their verbs.
    """

    def __init__(self, replay: Replay, checkpoints: "Checkpoints | None" = None) -> None:
        self._replay = replay
        self._checkpoints = checkpoints
        self.on_output: Callable[[StepOp], Awaitable[None]] | None = None
        self.called: dict[Verb[Any], Coroutine[Any, Any, Any]] = {}
        self._main: asyncio.Task[Any] | None = None
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._cancels = 0
        self._waits_for: Any = None
        self._must_leave = False
        self._is_closed = False
        # With who made each; in the order of their making, in which those are ended that outlive the handler.
        self._tasks: dict[asyncio.Task[Any], asyncio.Task[Any] | None] = {}
        self._had_tasks = False
        self._failed: list[asyncio.Task[Any]] = []
        self._refused: set[object] = set()
        self._stepped: set[object] = set()
        self._parked: dict[object, Parked] = {}
        self._memos: list[tuple[int, int, Parked]] = []
        self._reached = 0
        self._quiet = 0
        self._is_ticking = False
        self._running: NewStep | None = None
        self._is_warned = False
        self._timer: asyncio.TimerHandle | None = None
        self._together: Together | None = None
        if checkpoints is not None and checkpoints.is_together:
            self._together = Together(replay, checkpoints, self._wake, self._told)

    @types.coroutine
    def _forward(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Pass on what the handler waits for, and keep it, so that the wait can be ended."""
        resume: Any = coroutine.send
        argument: Any = None
        while True:
            began = clock.monotonic()
            try:
                self._waits_for = resume(argument)
            except StopIteration as done:
                return done.value
            finally:
                argument = None  # no cycle with an error that passes here
                if clock.monotonic() - began > BLOCKED_SECONDS:
                    self._warn_of_block(clock.monotonic() - began)
            if self._waits_for is not None and self._running is None and not self._is_warned:
                self._warn_of_sleep(coroutine)
            try:
                argument = yield self._waits_for
                resume = coroutine.send
            except BaseException as error:
                resume, argument = coroutine.throw, error
            self._waits_for = None
            if self._must_leave:
                self._must_leave = False
                resume, argument = coroutine.throw, _left()

    def _warn_of_block(self, seconds: float) -> None:
        logger.warning(
            "run %s: the handler held up the event loop, and every other call, for %.1f s. What blocks "
            "(time.sleep, requests) belongs into a plain function for step.run, which runs in a thread; "
            "step.sleep pauses a run",
            self._replay.run_id,
            seconds,
        )

    def _warn_of_sleep(self, coroutine: object) -> None:
        if is_asleep(coroutine):
            self._is_warned = True
            logger.warning(
                "run %s: the handler waits in asyncio.sleep outside of a step, at every call anew, and is "
                'kept in memory meanwhile: pause the run by step.sleep("id", "1h")',
                self._replay.run_id,
            )

    async def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run the handler's coroutine and return what it returns.

        Raises:
            CancelledError: If the call has ended at a step, or the host itself is stopping.
            CodedError: If the handler has returned and left steps that it had called.
        """
        self._loop = asyncio.get_running_loop()
        _watch(self._loop)
        self._coroutine = coroutine
        self._main = asyncio.current_task()
        self._cancels = self._main.cancelling() if self._main is not None else 0
        token = _turns.set(self)
        try:
            value = await self._forward(coroutine)
            if self.called and not self._replay.is_over:
                await self._check_awaited()
            return value
        except (AttributeError, TypeError) as error:
            if "coroutine" not in str(error) or not (left := self._drop_called()):
                raise
            raise _not_awaited(left, f"{error}: ") from error
        finally:
            if self.called:
                self._drop_called()
            _turns.reset(token)
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
            if self._together is not None:
                await self._together.end(is_unwanted=self._is_stopping())
            if self._tasks:
                await self._end_tasks()
            self._forget()
            self._main = self._coroutine = self._together = None  # they hold this: no cycles

    async def _check_awaited(self) -> None:
        """Refuse to end a run whose handler called steps and never awaited them: they did not happen.

        Where there were tasks it is only said: a branch that lost a race, or was cancelled, may have held
        a step that it was yet to await, and nothing is wrong.
        """
        await asyncio.sleep(0)  # a task that was just made of a step begins here
        left = self._drop_called()
        if left and self._had_tasks:
            logger.warning("run %s: %s", self._replay.run_id, _not_awaited(left))
        elif left:
            raise _not_awaited(left)

    def _drop_called(self) -> list[str]:
        """Close the steps that were called and have not begun; return their ids.

        Not closed, Python would warn of them: also where the call is over and the next one comes to them.
        """
        left = []
        for verb, step in self.called.items():
            if inspect.getcoroutinestate(step) == inspect.CORO_CREATED:
                step.close()
                known = inspect.getgeneratorlocals(verb)
                left.append(str(known.get("step_id") or known.get("name")))
        self.called.clear()
        return left

    async def settle(self, step: NewStep) -> Any:
        """Wait for the turn of a step without a result at hand; return its result.

        Raises:
            StepError: If it has failed for good.
            CancelledError: If the call is over; also if it has just ended with this step.
            CodedError: If it stands in `wait_for`.
        """
        task = asyncio.current_task()
        if self._replay.is_over or self._is_closed:
            raise _left()
        if task in self._refused or is_in_wait_for(_FORWARD):
            raise CodedError(
                f'step "{step.place.step_id}" was reached inside asyncio.wait_for, whose clock starts '
                "again at every replay: use step.timeout",
                "step_wait_for",
            )
        if task is not self._main and task is not None and task not in self._tasks:
            self.add(task)
        if not self._tasks or self._is_asked_for(task, step):
            decision, _ = self._replay.decide([step])
            if decision is Decision.RUN:
                return await self._run(step)
            self._end(decision, [step])
            raise _left()
        parking = self._park(task, step)
        # What ends a wait is an error that holds this frame, and the task holds the error: no cycles of them,
        # or the garbage collector has to find every call's.
        del task
        turn = await parking
        if turn is Decision.RUN:
            return await self._run(step)
        return json.loads(turn) if isinstance(turn, str) else self._replay.memo(step.place)

    def _is_asked_for(self, task: object, step: NewStep) -> bool:
        """True if the call is for this step, and nothing else can change that it is wanted.

        In a plain `gather`, which cancels no branch whatever the others do, it need not wait for its turn.
        """
        return (
            self._running is None
            and self._replay.is_target(step.place)
            and not step.is_racing
            and task in getattr(self._waits_for, "_children", ())
        )

    def _leave(self, *ops: StepOp) -> Never:
        """End the call with these ops."""
        self._replay.report(*ops)
        self._interrupt()
        raise _left()

    def add(self, task: "asyncio.Task[Any]") -> None:
        """Count a task as the handler's."""
        self._tasks[task] = asyncio.current_task()
        self._had_tasks = True
        self._replay.is_parallel = True
        task.add_done_callback(self._task_ended)
        self._moved()

    def _task_ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)
        self._refused.discard(task)
        self._stepped.discard(task)
        if getattr(task, "_log_traceback", False):
            self._failed.append(task)
        self._replay.is_parallel = bool(self._tasks)
        self._moved()

    async def _run(self, step: NewStep) -> Any:
        checkpoints = self._checkpoints
        self._running = step
        try:
            if checkpoints is not None:
                await checkpoints.save_before(step)
            op = await perform_async(self._replay, step)
            data = op.data
            if checkpoints is not None:
                await self._told(op)
        except NotSaved:
            self._leave()
        finally:
            self._running = None
            self._moved()
        if checkpoints is None or not checkpoints.keep(op):
            self._leave(op)
        return json.loads(data)

    async def _told(self, op: StepOp) -> None:
        if self.on_output is not None:
            await self.on_output(op)

    async def _park(self, task: "asyncio.Task[Any] | None", step: NewStep) -> Turn:
        replay = self._replay
        maker = task
        while maker is not None and maker not in self._stepped:
            self._stepped.add(maker)
            maker = self._tasks.get(maker)
        parked = self._parked[task] = Parked(step, self._loop.create_future())
        if replay.has_memo(step.place):
            self._reached += 1
            heapq.heappush(self._memos, (replay.position(step.place), self._reached, parked))
        self._moved()
        try:
            return await parked.future
        except asyncio.CancelledError:
            if not replay.is_over:
                replay.abandon(step.place)
            if self._running is step:
                self._running = None
            raise
        finally:
            del self._parked[task]
            self._moved()
            del parked, task, maker  # no cycle with the error that passes here

    def _moved(self) -> None:
        self._quiet = 0
        self._wake()

    def _wake(self) -> None:
        """See to it that turns are given, once nothing moves."""
        if self._parked and not (self._is_ticking or self._is_closed):
            self._is_ticking = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._quiet += 1
        if self._is_closed or self._replay.is_over or self._running is not None:
            self._is_ticking = False
        elif self._quiet <= QUIET_TURNS:
            self._loop.call_soon(self._tick)
        else:
            self._is_ticking = False
            self._take_turn()

    def _take_turn(self) -> None:
        """Let one step go on, or decide about all that wait."""
        while self._memos:
            parked = heapq.heappop(self._memos)[2]
            if not parked.future.done():
                parked.future.set_result(None)
                self._moved()
                return
        waiting = {
            each.step.place.hashed: each for each in self._parked.values() if each.is_waiting
        }
        if self._together is not None and self._run_together(list(waiting.values())):
            return
        steps = [each.step for each in waiting.values()]
        decision, chosen = self._replay.decide(steps)
        if decision is Decision.RUN and chosen is not None:
            self._running = chosen
            waiting[chosen.place.hashed].future.set_result(decision)
        elif steps:
            self._end(decision, steps if chosen is None else [chosen])

    def _run_together(self, waiting: list[Parked]) -> bool:
        """Run what waits here, or give back what has run; returns False if that is not to be done here."""
        together = self._together
        assert together is not None
        if together.go_on(waiting):
            return True
        failed = together.failed
        if failed or together.is_broken:
            # What is broken brings the results that are kept; all else comes again in a later call.
            self._replay.report(*failed, *(planned(each.step) for each in waiting))
            self._interrupt()
            return True
        if together.give_back():
            self._moved()
            return True
        return together.begin(waiting)

    def _end(self, decision: Decision, steps: list[NewStep]) -> None:
        """End the call with steps to report, or without the one it was for."""
        replay = self._replay
        if decision is Decision.REPORT:
            replay.report(*map(planned, steps))
        elif replay.is_target_gone or self._can_only_wait():
            replay.report()
        else:
            if self._timer is None:
                self._timer = self._loop.call_later(PATIENCE_SECONDS, self._give_up)
            return
        self._interrupt()

    def _give_up(self) -> None:
        if not (self._replay.is_over or self._is_closed or self._running):
            self._replay.report()
            self._interrupt()

    def _can_only_wait(self) -> bool:
        """True if nothing but steps can bring the handler on: every task waits for one, or for tasks."""
        if self._main is not asyncio.current_task() and self._main not in self._parked:
            if not waits_on_tasks(self._coroutine, self._waits_for):
                return False
        return all(task in self._parked or is_waiting_on_tasks(task) for task in self._tasks)

    def _interrupt(self) -> None:
        """End the handler's wait, then those of its tasks that wait for a turn."""
        if self._main is not asyncio.current_task():
            self._must_leave = self._waits_for is None or not self._waits_for.cancel()
        for parked in list(self._parked.values()):
            parked.future.cancel()

    def _is_stopping(self) -> bool:
        """True if the host has cancelled the call."""
        main = self._main
        is_cancelled = main is not None and main.cancelling() > self._cancels
        return is_cancelled and not self._replay.is_over

    def _forget(self) -> None:
        """Take back what the handler had no time for, if the call was left at a step."""
        if not self._replay.is_over:
            return
        for task in self._failed:
            task.exception()  # whether the handler would have asked, a later call shows
        while self._main and self._main.cancelling() > self._cancels:
            self._main.uncancel()  # task groups have cancelled the host's task (Python 3.11)

    async def _end_tasks(self) -> None:
        """End what lives on after the handler, but for tasks without steps of their own or of their tasks.

        Those are a library's, of a connection opened in the handler say, and others may use them.
        """
        tasks = [
            task
            for task in self._tasks
            if not task.done() and (task in self._stepped or is_waiting_on_tasks(task))
        ]
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=LEAVING_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # it was not asked for any more; nobody is to be told
        if late:
            logger.warning(
                "%d tasks of a handler do not end: they go on beside the next call", len(late)
            )


_FORWARD: Final = Turns._forward.__code__


def _not_awaited(ids: list[str], before: str = "") -> CodedError:
    steps = ", ".join(f'"{each}"' for each in ids)
    return CodedError(
        f"{before}step {steps} was called and never awaited, so it did not happen: write `await step.…`",
        "step_not_awaited",
    )


def _left() -> asyncio.CancelledError:
    return asyncio.CancelledError("this call is over; the run goes on later")


class _Watch:
    """A task factory that tells handlers' calls of their tasks; one that was set before keeps its say."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, loop: Any, coroutine: Any, **options: Any) -> Any:
        if self._before is None:
            task = asyncio.Task(coroutine, loop=loop, **options)
        else:
            task = self._before(loop, coroutine, **options)
        turns = _turns.get()
        if turns is not None and not turns._is_closed and not is_inside_step():
            if is_in_wait_for(_FORWARD):
                turns._refused.add(task)
            turns.add(task)
        return task


def _watch(loop: asyncio.AbstractEventLoop) -> None:
    before = loop.get_task_factory()
    if not isinstance(before, _Watch):
        loop.set_task_factory(_Watch(before))
