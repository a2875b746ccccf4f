"""Running a handler for one call, and what came of it.

A sync handler runs in the current thread and leaves by `Suspend`. An async one runs inside the host's
own task (`sdk.turns`), so a call costs no task of its own and finished steps no trip through the event
loop. When the call is over it is left by CancelledError.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from stepbase.errors import StepbaseError, Suspend
from stepbase.protocol.call import Call
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed
from stepbase.sdk.app import App
from stepbase.sdk.context import Context, ReplayLogger
from stepbase.sdk.event import Event
from stepbase.sdk.fault import Fault, function_fault
from stepbase.sdk.function import Function
from stepbase.sdk.incoming import read_event
from stepbase.sdk.ops import run_complete
from stepbase.sdk.replay import Place, Replay, StepOp
from stepbase.sdk.step import Step
from stepbase.sdk.sync_step import SyncStep
from stepbase.sdk.sync_turns import SyncTurns

if TYPE_CHECKING:
    from stepbase.sdk.checkpoints import Checkpoints
    from stepbase.sdk.turns import Turns

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
    turns: "Turns | SyncTurns"
    checkpoints: "Checkpoints | None"

    def run(self) -> Outcome:
        """Run a plain handler in this thread."""
        outcome = self._run()
        if self.checkpoints is not None:
            if _leaves_no_room(outcome) or self.checkpoints.is_heavy:
                self.checkpoints.save()
            self.checkpoints.close()
        return outcome

    async def arun(self) -> Outcome:
        """Run an async handler in the running task."""
        outcome = await self._arun(cast("Turns", self.turns))
        if self.checkpoints is not None:
            if _leaves_no_room(outcome) or self.checkpoints.is_heavy:
                await self.checkpoints.asave()
            await self.checkpoints.aclose()
        return outcome

    def complete(self, outcome: Outcome) -> Outcome:
        """Add the results that are not saved yet to what came of the call."""
        checkpoints = self.checkpoints
        if checkpoints is None or not checkpoints.is_used:
            return outcome
        if checkpoints.is_stale:
            from stepbase.sdk.checkpoints import stale

            return Raised(function_fault(stale()))
        unsaved = checkpoints.unsaved
        if isinstance(outcome, Returned) and not checkpoints.has_failed:
            return Reported((*unsaved, run_complete(outcome.text)), False, None)
        if not unsaved:
            return outcome
        if isinstance(outcome, Reported) and not _leaves_no_room(outcome):
            return replace(outcome, ops=(*unsaved, *outcome.ops))
        from stepbase.sdk.checkpoints import fitting

        # They could not be saved; what follows comes again.
        return Reported(fitting(unsaved), False, None)

    def _run(self) -> Outcome:
        try:
            value = self.function.handler(**self.arguments)
        except Suspend:
            return self._left()
        except Exception as error:
            return self._raised(error)
        return self._returned(value)

    async def _arun(self, turns: "Turns") -> Outcome:
        import asyncio

        try:
            value = await turns.drive(self.function.handler(**self.arguments))
        except asyncio.CancelledError as error:
            if self._is_left:
                # A task group's frame keeps the error that it raises (Python 3.11): no cycle of the two.
                error.__traceback__ = None
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

    def _warn_of_change(self) -> None:
        """Say that the code that runs is not the code that ran before."""
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

    def _left(self) -> Outcome:
        self._warn_of_change()
        replay = self.replay
        if replay.ops or replay.is_target_gone:
            return Reported(
                tuple(replay.ops), replay.no_retry, replay.retry_after, replay.is_outage
            )
        return Raised(function_fault(_unexpected(replay.passed_over)))

    def _returned(self, value: object) -> Outcome:
        if self._is_left:
            return self._left()  # the handler swallowed the suspension
        if self.checkpoints is not None and self.checkpoints.is_used:
            self._warn_of_change()
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


def _leaves_no_room(outcome: Outcome) -> bool:
    """Say whether unsaved results cannot travel along: only results stand beside results."""
    if isinstance(outcome, Reported):
        return any(op.op is not Opcode.STEP_RUN for op in outcome.ops)
    return isinstance(outcome, Raised)


def _unexpected(place: Place | None) -> Exception:
    name = place.step_id if place else "?"
    return StepUnexpectedError(
        f'found step "{name}" when targeting a different step: the function was changed while this run '
        "was under way; put changed code behind a new step id"
    )


class StepUnexpectedError(StepbaseError):
    """A call was for a planned step that the handler no longer reaches."""

    code = "step_unexpected"


def prepare(
    app: App, function: Function, call: Call, checkpoints: "Checkpoints | None" = None
) -> Execution:
    """Check the call's events and build the handler's arguments.

    Args:
        checkpoints: Where results are saved on the way; None if the call is to end with its first step.

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
    turns: Turns | SyncTurns
    if function.is_async:
        from stepbase.sdk import turns as async_turns

        turns = async_turns.Turns(replay, checkpoints)
        step: Step | SyncStep = Step(app, replay, turns)
    else:
        turns = SyncTurns(replay, checkpoints)
        step = SyncStep(app, replay, turns)
    if "step" in wants:
        arguments["step"] = step
    if "ctx" in wants:
        arguments["ctx"] = _context(app, function, call, replay)
    if "event" not in wants and "events" not in wants and function.models:
        _event(function, call.event)
    return Execution(function, replay, arguments, turns, checkpoints)


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
