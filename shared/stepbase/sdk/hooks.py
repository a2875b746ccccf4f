"""The hooks of one call: the middleware objects made for it, and when each of their hooks is due.

Everything is written as scripts (`sdk.script`), once for sync and async handlers. `sdk.hooked` calls
them at the right places of a call; `App.send` uses the two that belong to sending.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stepbase import config
from stepbase.errors import SendError
from stepbase.protocol.op import Opcode
from stepbase.sdk import sender, typed
from stepbase.sdk.event import Event
from stepbase.sdk.execution import Outcome, Raised, Reported, Returned
from stepbase.sdk.fault import Fault, function_fault
from stepbase.sdk.message import Request, Response
from stepbase.sdk.middleware import Factory, Input, Middleware, Output, Sent, StepInfo
from stepbase.sdk.replay import StepOp
from stepbase.sdk.script import Script, T, adrive, drive, within

if TYPE_CHECKING:
    from stepbase.sdk.app import App
    from stepbase.sdk.function import Function

logger = logging.getLogger("stepbase.sdk.hooks")

_RAN = (Opcode.STEP_RUN, Opcode.STEP_ERROR, Opcode.STEP_FAILED)


class Hooks:
    """The middleware objects of one call, or of one sending outside a call.

    Attributes:
        failure: What a hook raised inside the handler; it ends the call, whatever the handler makes of it.
        has_begun: True once new code runs.
    """

    def __init__(
        self,
        app: "App",
        factories: Sequence[Factory],
        function: "Function | None" = None,
        request: Request | None = None,
    ) -> None:
        self._middleware = [_make(each, app, function, request) for each in factories]
        self._raised: dict[str, BaseException] = {}
        self._transformed: set[str] = set()
        self.failure: Exception | None = None
        self.has_begun = False

    def _of(self, name: str, *, is_reversed: bool = False) -> list[Callable[..., Any]]:
        found = [getattr(each, name) for each in self._middleware if name in each.written_hooks]
        return found[::-1] if is_reversed else found

    def _fire(self, name: str, *args: Any, is_reversed: bool = False) -> Script[None]:
        for hook in self._of(name, is_reversed=is_reversed):
            yield partial(hook, *args)

    def _look_back(self, name: str, *args: Any, is_reversed: bool = True) -> Script[None]:
        """Call hooks whose failure must not undo what was done."""
        for hook in self._of(name, is_reversed=is_reversed):
            try:
                yield partial(hook, *args)
            except Exception:
                logger.exception("a hook failed; the call counts", extra={"hook": name})

    def around_call(self, script: Script[T]) -> Script[T]:
        """Run a script inside every `around_call`."""
        yield from ()
        return (yield from within([hook() for hook in self._of("around_call")], script))

    def transform_input(self, input: Input) -> Script[None]:
        """Change what the call starts from."""
        return self._fire("transform_input", input)

    def before_memoization(self) -> Script[None]:
        """Say that the handler starts."""
        return self._fire("before_memoization")

    def begin(self, *, is_replayed: bool) -> Script[None]:
        """Say that new code starts; only the first call of it counts.

        Args:
            is_replayed: True if no memo is left.
        """
        if self.has_begun:
            return
        self.has_begun = True
        try:
            if is_replayed:
                yield from self._fire("after_memoization", is_reversed=True)
            yield from self._fire("before_execution")
        except Exception as error:
            self.failure = error
            raise

    def end(self) -> Script[None]:
        """Say that the new code of this call is over."""
        if self.has_begun:
            yield from self._look_back("after_execution")

    def before_response(self, response: Response) -> Script[None]:
        """Say that the answer is ready."""
        return self._look_back("before_response", response, is_reversed=False)

    def around_step(self, step: StepInfo, work: Script[T]) -> Script[T]:
        """Run a step's work inside every `around_step`."""
        try:
            return (yield from within([hook(step) for hook in self._of("around_step")], work))
        except Exception as error:
            self._raised[step.hashed] = error
            raise

    def step_output(self, op: StepOp) -> Script[None]:
        """Let hooks change the op of a step that ran; once for each op."""
        if op.place.hashed in self._transformed:
            return
        self._transformed.add(op.place.hashed)
        try:
            yield from self._transform_step(op)
        except Exception as error:
            self.failure = error
            raise

    def _transform_step(self, op: StepOp) -> Script[None]:
        hooks = self._of("transform_output", is_reversed=True)
        if not hooks:
            return
        output = Output(_info(op), json.loads(op.data), op.error, self._raised.get(op.place.hashed))
        for hook in hooks:
            yield partial(hook, output)
        had_failed, op.error = op.error is not None, output.error
        if output.error is None:
            op.data = typed.encode(output.data, typed.UNTYPED, f'step "{op.place.step_id}"')
            op.op = Opcode.STEP_RUN
        elif not had_failed:
            op.data, op.op = "null", Opcode.STEP_ERROR

    def outcome(self, outcome: Outcome) -> Script[Outcome]:
        """Let hooks change what the call ends with."""
        if isinstance(outcome, Reported):
            return (yield from self._reported(outcome))
        return (yield from self._ended(outcome))

    def _reported(self, outcome: Reported) -> Script[Outcome]:
        had_failed = any(op.error for op in outcome.ops)
        for op in outcome.ops:
            if op.op in _RAN:
                yield from self.step_output(op)
            else:
                step = _info(op)
                yield from self._fire("transform_step_input", step)
                op.opts = step.opts
        if had_failed and not any(op.error for op in outcome.ops):
            return dataclasses.replace(outcome, no_retry=False, retry_after=None, is_outage=False)
        return outcome

    def _ended(self, outcome: Returned | Raised) -> Script[Outcome]:
        hooks = self._of("transform_output", is_reversed=True)
        if not hooks:
            return outcome
        fault = None
        if isinstance(outcome, Returned):
            output = Output(None, json.loads(outcome.text), None)
        else:
            fault = outcome.fault
            output = Output(None, None, fault.error, fault.exception, fault.no_retry)
        for hook in hooks:
            yield partial(hook, output)
        if output.error is None:
            return Returned(typed.encode(output.data, typed.UNTYPED, "the function"))
        if fault is None:
            return Raised(Fault(output.error, no_retry=output.is_final, retry_after=None))
        return Raised(dataclasses.replace(fault, error=output.error, no_retry=output.is_final))

    async def send_events(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send events on the running event loop, through the hooks."""
        return await adrive(self._sending(events, sender.asend))

    def send_events_sync(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send events, blocking, through the hooks."""
        return drive(self._sending(events, sender.send))

    def _sending(self, events: Sequence[Event[Any]], send: Callable[..., Any]) -> Script[list[str]]:
        outgoing = [sender.plain_copy(event) for event in events]
        yield from self._fire("before_send_events", outgoing)
        try:
            ids: list[str] = yield partial(send, outgoing, config.inngest())
        except SendError as error:
            yield from self._look_back("after_send_events", Sent(error.ids, error))
            raise
        yield from self._look_back("after_send_events", Sent(ids))
        return ids


def _make(
    factory: Factory, app: "App", function: "Function | None", request: Request | None
) -> Middleware:
    made = factory()
    made.app, made.function, made.request = app, function, request
    return made


def _info(op: StepOp) -> StepInfo:
    return StepInfo(op.place.step_id, op.place.hashed, str(op.op), op.opts)


def failed(error: Exception) -> Raised:
    """Return the outcome of a call that a hook ended."""
    return Raised(function_fault(error))
