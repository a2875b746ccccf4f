"""Running a handler for one call, and what came of it.

A sync handler runs in the current thread and leaves by `Suspend`. An async one runs inside the host's
own task (`sdk.turns`), so a call costs no task of its own and finished steps no trip through the event
loop. When the call is over it is left by CancelledError.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepbase.errors import StepbaseError, Suspend
from stepbase.protocol.call import Call
from stepbase.sdk import typed
from stepbase.sdk.app import App
from stepbase.sdk.context import Context, ReplayLogger
from stepbase.sdk.event import Event
from stepbase.sdk.fault import Fault, function_fault
from stepbase.sdk.function import Function
from stepbase.sdk.incoming import read_event
from stepbase.sdk.replay import Place, Replay, StepOp
from stepbase.sdk.step import Step
from stepbase.sdk.sync_step import SyncStep

logger = logging.getLogger("stepbase.sdk.execution")


@dataclass(frozen=True, slots=True)
class Returned:
    """The handler returned: its value as JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reported:
    """The call ended at a step."""

    ops: tuple[StepOp, ...]
    no_retry: bool
    retry_after: str | None
    is_outage: bool = False


@dataclass(frozen=True, slots=True)
class Raised:
    """The handler failed outside a step."""

    fault: Fault


Outcome = Returned | Reported | Raised


@dataclass(slots=True)
class Execution:
    """One call of one function, ready to run."""

    function: Function
    replay: Replay
    arguments: dict[str, Any]

    def run(self) -> Outcome:
        """Run a sync handler in this thread."""
        try:
            value = self.function.handler(**self.arguments)
        except Suspend:
            return self._left()
        except Exception as error:
            return self._raised(error)
        return self._returned(value)

    async def arun(self) -> Outcome:
        """Run an async handler in the running task."""
        import asyncio

        from stepbase.sdk.turns import Turns

        turns = Turns(self.replay)
        step = self.arguments.get("step")
        if step is not None:
            step.bind(turns)
        try:
            value = await turns.drive(self.function.handler(**self.arguments))
        except asyncio.CancelledError as error:
            if self._is_left:
                return self._left()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the host itself is stopping
            return Raised(function_fault(error))
        except Exception as error:
            return self._raised(error)
        return self._returned(value)

    @property
    def _is_left(self) -> bool:
        return self.replay.is_over or self.replay.passed_over is not None

    def _left(self) -> Outcome:
        replay = self.replay
        if replay.unreached:
            logger.warning(
                "run %s, function %s: %d steps with results were not reached: the function was changed "
                "while this run was under way. It goes on with the code as it is; put changed code behind "
                "step.patch, or a new step id",
                replay.run_id,
                self.function.slug,
                replay.unreached,
            )
        if replay.ops or replay.is_target_gone:
            return Reported(
                tuple(replay.ops), replay.no_retry, replay.retry_after, replay.is_outage
            )
        return Raised(function_fault(_unexpected(replay.passed_over)))

    def _returned(self, value: object) -> Outcome:
        if self._is_left:
            return self._left()  # the handler swallowed the suspension
        try:
            what = f'function "{self.function.id}"'
            return Returned(typed.encode(value, self.function.returns, what))
        except Exception as error:
            return Raised(function_fault(error))

    def _raised(self, error: Exception) -> Outcome:
        if self._is_left:
            logger.warning(
                "the handler raised while it was being left at a step; the step counts",
                exc_info=error,
            )
            return self._left()
        return Raised(function_fault(error))


def _unexpected(place: Place | None) -> Exception:
    name = place.step_id if place else "?"
    return StepUnexpectedError(
        f'found step "{name}" when targeting a different step: the function was changed while this run '
        "was under way; put changed code behind a new step id"
    )


class StepUnexpectedError(StepbaseError):
    """A call was for a planned step that the handler no longer reaches."""

    code = "step_unexpected"


def prepare(app: App, function: Function, call: Call) -> Execution:
    """Check the call's events and build the handler's arguments.

    Raises:
        CodedError: Final; if a payload does not fit its event class. The message names the field.
    """
    replay = Replay(call)
    wants = function.wants
    arguments: dict[str, Any] = {}
    if "event" in wants:
        arguments["event"] = _event(function, call.event)
    if "events" in wants:
        arguments["events"] = [_event(function, each) for each in call.events]
    if "step" in wants:
        arguments["step"] = (Step if function.is_async else SyncStep)(app, replay)
    if "ctx" in wants:
        arguments["ctx"] = _context(app, function, call, replay)
    if "event" not in wants and "events" not in wants and function.models:
        _event(function, call.event)
    return Execution(function, replay, arguments)


def _context(app: App, function: Function, call: Call, replay: Replay) -> Context:
    extra: dict[str, object] = {
        "run_id": call.run_id,
        "function": function.slug,
        "attempt": call.attempt,
    }
    return Context(
        run_id=call.run_id,
        attempt=call.attempt,
        max_attempts=call.max_attempts,
        app=app,
        function=function,
        logger=ReplayLogger(app.logger, replay, extra),
    )


def _event(function: Function, raw: Mapping[str, Any]) -> Event[Any]:
    return read_event(raw, function.model_for(str(raw.get("name") or "")))
