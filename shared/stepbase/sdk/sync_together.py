"""Steps of one call of a plain handler that run beside each other; see `sdk.together`."""

import contextvars
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from stepbase.protocol.op import Opcode
from stepbase.sdk.replay import NewStep, Replay, StepOp, tried
from stepbase.sdk.together import PLAIN_AT_ONCE, SHARED_SECONDS
from stepbase.sdk.work import perform

if TYPE_CHECKING:
    from stepbase.sdk.checkpoints import Checkpoints


class SyncTogether:
    """Runs steps in threads, at most `PLAIN_AT_ONCE` at a time, and saves what they bring."""

    __slots__ = ("_checkpoints", "_replay")

    def __init__(self, replay: Replay, checkpoints: "Checkpoints") -> None:
        self._replay = replay
        self._checkpoints = checkpoints

    @property
    def is_broken(self) -> bool:
        """True if results cannot be saved, so that the call must end with them."""
        return self._checkpoints.is_broken

    def takes(self, steps: Sequence[NewStep]) -> bool:
        """Say whether these steps can run in this call: none of them is the server's, or in a race."""
        return self._checkpoints.may_begin and all(
            step.work is not None and not step.is_racing for step in steps
        )

    def run(self, steps: Sequence[NewStep]) -> tuple[list[StepOp], list[NewStep]]:
        """Run steps; what they return becomes results of the call.

        Returns:
            What to report of those that failed, and the steps that were not begun.
        """
        if self._checkpoints.is_due and not self._checkpoints.save():
            return [], list(steps)
        failed: list[StepOp] = []
        rest = list(reversed(steps))
        running: dict[Future[StepOp], NewStep] = {}
        with ThreadPoolExecutor(min(len(steps), PLAIN_AT_ONCE), "stepbase-step") as threads:
            while running or (rest and not failed and self._checkpoints.may_begin):
                while rest and len(running) < PLAIN_AT_ONCE and self._may_go_on(failed):
                    step = rest.pop()
                    context = contextvars.copy_context()
                    running[threads.submit(context.run, perform, self._replay, step)] = step
                failed += self._ended(running)
        return failed, rest[::-1]

    def _may_go_on(self, failed: Sequence[StepOp]) -> bool:
        return not failed and self._checkpoints.may_begin

    def _ended(self, running: dict["Future[StepOp]", NewStep]) -> list[StepOp]:
        """Wait until some have ended, and keep their results; returns what to report of failures."""
        done, _ = wait(running, return_when="FIRST_COMPLETED")
        if len(done) < len(running):
            done, _ = wait(running, timeout=SHARED_SECONDS)
        failed = []
        for each in done:
            step, op = running.pop(each), each.result()
            if op.op is Opcode.STEP_RUN:
                self._checkpoints.keep_beside(op)
                self._replay.add_result(op.place, json.loads(op.data))
            else:
                failed.append(tried(step, op))
        if running and self._checkpoints.is_due:
            self._checkpoints.save()
        return failed
