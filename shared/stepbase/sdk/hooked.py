"""A call of a function that has middleware: what `sdk.execution` does, with hooks at every turn.

Functions without middleware never come here, so they pay nothing for it.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stepbase.errors import StepError, Suspend
from stepbase.protocol.call import Call
from stepbase.sdk import replies
from stepbase.sdk.app import App
from stepbase.sdk.execution import Execution, Outcome, prepare
from stepbase.sdk.function import Function
from stepbase.sdk.hooks import Hooks, failed
from stepbase.sdk.message import Request, Response
from stepbase.sdk.middleware import Input, StepInfo
from stepbase.sdk.replay import NewStep, Replay
from stepbase.sdk.script import Script, adrive, drive
from stepbase.sdk.step import Step
from stepbase.sdk.sync_step import SyncStep
from stepbase.sdk.sync_turns import SyncTurns
from stepbase.sdk.verbs import Verb
from stepbase.sdk.work import acall_work, call_work

if TYPE_CHECKING:
    import asyncio

    from stepbase.sdk.checkpoints import Checkpoints
    from stepbase.sdk.turns import Turns

T = TypeVar("T")


class HookedCall:
    """One call of one function, ready to run between its hooks."""

    def __init__(
        self,
        app: App,
        function: Function,
        call: Call,
        request: Request,
        checkpoints: "Checkpoints | None" = None,
    ) -> None:
        self.app = app
        self._checkpoints = checkpoints
        self._inner: Execution | None = None
        self.function = function
        self._call = call
        self._request = request

    def run(self) -> Response:
        """Answer the call of a sync handler in this thread."""
        return drive(self._script())

    async def arun(self) -> Response:
        """Answer the call of an async handler in the running task."""
        return await adrive(self._script())

    def _script(self) -> Script[Response]:
        hooks = None
        try:
            hooks = Hooks(self.app, self.function.middleware, self.function, self._request)
            outcome = yield from hooks.around_call(self._outcome(hooks))
        except Exception as error:
            outcome = failed(error)
        response = replies.reply(outcome)
        if hooks is not None:
            yield from hooks.before_response(response)
        return response

    def _outcome(self, hooks: Hooks) -> Script[Outcome]:
        try:
            execution = yield from self._prepare(hooks)
        except Exception as error:
            outcome: Outcome = failed(error)
        else:
            outcome = yield (execution.arun if self.function.is_async else execution.run)
            yield from hooks.end()
            if hooks.failure is not None:
                outcome = failed(hooks.failure)
        try:
            outcome = yield from hooks.outcome(outcome)
        except Exception as error:
            outcome = failed(error)
        return outcome if self._inner is None else self._inner.complete(outcome)

    def _prepare(self, hooks: Hooks) -> Script[Execution]:
        call = self._call
        events = [dict(each) for each in call.events or [call.event]]
        input = Input(call.run_id, call.attempt, call.max_attempts, events, dict(call.steps))
        yield from hooks.transform_input(input)
        call = dataclasses.replace(
            call, event=input.events[0], events=input.events, steps=input.steps
        )
        execution = self._inner = prepare(self.app, self.function, call, self._checkpoints)
        arguments, replay, turns = execution.arguments, execution.replay, execution.turns
        if isinstance(turns, SyncTurns):
            turns.on_output = lambda op: drive(hooks.step_output(op))
            step: Step | SyncStep = HookedSyncStep(hooks, replay, turns)
        else:
            turns.on_output = lambda op: adrive(hooks.step_output(op))
            step = HookedStep(hooks, replay, turns)
        if "step" in arguments:
            arguments["step"] = step
        if "ctx" in arguments:
            arguments["ctx"].extra.update(input.extra)
        yield from hooks.before_memoization()
        if not replay.is_replaying:
            yield from hooks.begin(is_replayed=True)
        return execution


class HookedStep(Step):
    """The steps of an async handler, with hooks around what is new."""

    __slots__ = ("_begun", "_hooks")

    def __init__(self, hooks: Hooks, replay: Replay, turns: "Turns") -> None:
        super().__init__(hooks, replay, turns)
        self._hooks = hooks
        self._begun: asyncio.Future[None] | None = None

    async def _step(self, verb: Verb[T]) -> T:
        self._turns.called.pop(verb, None)
        try:
            try:
                value = await super()._step(_watched(verb, self._around))
            except StepError:
                await self._memo_taken()
                raise
            await self._memo_taken()
        except Exception as error:
            if self._hooks.failure is None:
                raise
            import asyncio

            raise asyncio.CancelledError("a hook failed; the call is over") from error
        return value

    async def _memo_taken(self) -> None:
        if not self._replay.is_replaying:
            await self._begin()

    async def _begin(self) -> None:
        """Call the hooks of new code once; parallel branches wait until they are through."""
        import asyncio

        if self._begun is not None:
            await self._begun
            return
        self._begun = asyncio.get_running_loop().create_future()
        try:
            await adrive(self._hooks.begin(is_replayed=not self._replay.unreached))
        finally:
            self._begun.set_result(None)

    def _around(self, step: StepInfo, work: Callable[[], Any]) -> Callable[[], Any]:
        async def run() -> Any:
            await self._begin()
            return await adrive(self._hooks.around_step(step, _alone(partial(acall_work, work))))

        return run


class HookedSyncStep(SyncStep):
    """The steps of a sync handler, with hooks around what is new."""

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Hooks, replay: Replay, turns: SyncTurns) -> None:
        super().__init__(hooks, replay, turns)
        self._hooks = hooks

    def _do(self, verb: Verb[T]) -> T:
        try:
            try:
                value = super()._do(_watched(verb, self._around))
            except StepError:
                self._memo_taken()
                raise
            self._memo_taken()
        except Exception as error:
            if self._hooks.failure is None:
                raise
            raise Suspend from error  # nothing in the handler may go on
        return value

    def _memo_taken(self) -> None:
        if not self._replay.is_replaying:
            drive(self._hooks.begin(is_replayed=not self._replay.unreached))

    def _around(self, step: StepInfo, work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            drive(self._hooks.begin(is_replayed=not self._replay.unreached))
            return drive(self._hooks.around_step(step, _alone(partial(call_work, work))))

        return run


def _watched(
    verb: Verb[T], around: Callable[[StepInfo, Callable[[], Any]], Callable[[], Any]]
) -> Verb[T]:
    """Pass a verb on, with hooks around the work of its step."""
    try:
        new: NewStep = next(verb)
    except StopIteration as done:
        value: T = done.value
        return value
    if new.work is not None:
        place = new.place
        new.work = around(
            StepInfo(place.step_id, place.hashed, str(new.opcode), new.opts), new.work
        )
    resume: Callable[[], Any]
    try:
        resume = partial(verb.send, (yield new))
    except StepError as error:
        resume = partial(verb.throw, error)
    try:
        resume()
    except StopIteration as done:
        value = done.value
        return value
    raise AssertionError("a step is one NewStep")


def _alone(work: Callable[[], Any]) -> Script[Any]:
    return (yield work)
