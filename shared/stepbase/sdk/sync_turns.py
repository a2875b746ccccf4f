"""Whose turn it is: steps of a plain `def` handler, one after the other or in branches.

Branches of `step.parallel` and `step.race` run one after the other, each up to its first step without a
result; then all that wait is decided about (`Replay.decide`). At each call every branch runs again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar

from stepbase.errors import Suspend
from stepbase.sdk.replay import RACE, Decision, NewStep, Replay, StepOp, planned
from stepbase.sdk.work import perform

if TYPE_CHECKING:
    from stepbase.sdk.checkpoints import Checkpoints

T = TypeVar("T")


@dataclass(slots=True)
class _Ended(Generic[T]):
    """A branch that has ended.

    Attributes:
        value: What it returned: one value, or none if it failed.
        position: Where in the server's stack the last of its results stands.
    """

    value: list[T]
    error: Exception | None
    position: int

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value[0]


class SyncTurns:
    """The steps of one call of a plain handler.

    Args:
        checkpoints: Where results are saved while the handler goes on; None if the call ends with a step.

    Attributes:
        on_output: Called with the op of a step that ran before it is saved, and may change it; or None.
    """

    __slots__ = ("_checkpoints", "_is_racing", "_replay", "_waiting", "on_output")

    def __init__(self, replay: Replay, checkpoints: "Checkpoints | None" = None) -> None:
        self._replay = replay
        self._checkpoints = checkpoints
        self.on_output: Callable[[StepOp], None] | None = None
        self._waiting: list[NewStep] | None = None
        self._is_racing = False

    def settle(self, step: NewStep) -> Any:
        """Run a step without a result, and return what came of it.

        Raises:
            Suspend: If it does not run here, or not yet.
        """
        if self._is_racing:
            step.is_racing = True
            step.opts = {**(step.opts or {}), **RACE}
        if self._replay.is_over:
            raise Suspend
        if self._waiting is not None:
            self._waiting.append(step)
            raise Suspend
        decision, _ = self._replay.decide([step])
        if decision is Decision.RUN:
            return self._run(step)
        self._end(decision, [step])

    def _run(self, step: NewStep) -> Any:
        checkpoints = self._checkpoints
        op = self._perform(step)
        data = op.data
        if checkpoints is not None and self.on_output is not None:
            self.on_output(op)
        if checkpoints is None or not checkpoints.keep(op):
            self._leave(op)
        return json.loads(data)

    def _perform(self, step: NewStep) -> StepOp:
        """Run a step's work, once what is due is saved."""
        checkpoints = self._checkpoints
        if checkpoints is not None and checkpoints.is_due and not checkpoints.save():
            self._leave()
        return perform(self._replay, step)

    def _leave(self, *ops: StepOp) -> Never:
        """End the call with these ops."""
        self._replay.report(*ops)
        raise Suspend

    def parallel(self, branches: Sequence[Callable[[], T]]) -> list[T]:
        """Return the results of all branches; once all have ended, raise the first error.

        Raises:
            Suspend: While one has not ended.
        """
        is_outermost, waiting = self._open()
        try:
            ended = [self._evaluate(branch) for branch in branches]
        finally:
            self._close(is_outermost)
        results = [each for each in ended if each is not None]
        if len(results) < len(ended):
            self._suspend(is_outermost, waiting)
        return [each.result() for each in results]

    def race(self, branches: Sequence[Callable[[], T]]) -> T:
        """Return the result of the branch that ended first, or raise its error.

        Raises:
            Suspend: While none has ended.
        """
        if not branches:
            raise TypeError("step.race needs a branch at least")
        is_outermost, waiting = self._open()
        start, was_racing, self._is_racing = len(waiting), self._is_racing, True
        try:
            ended = [self._evaluate(branch) for branch in branches]
        finally:
            self._is_racing = was_racing
            self._close(is_outermost)
        results = [each for each in ended if each is not None]
        if not results:
            self._suspend(is_outermost, waiting)
        for step in waiting[start:]:
            self._replay.abandon(step.place)
        del waiting[start:]
        return min(results, key=lambda each: each.position).result()

    def _open(self) -> tuple[bool, list[NewStep]]:
        is_outermost = self._waiting is None
        if self._waiting is None:
            self._waiting = []
        return is_outermost, self._waiting

    def _close(self, is_outermost: bool) -> None:
        if is_outermost:
            self._waiting = None

    def _evaluate(self, branch: Callable[[], T]) -> _Ended[T] | None:
        before = self._replay.reached()
        try:
            value, error = [branch()], None
        except Suspend:
            return None
        except Exception as raised:
            value, error = [], raised
        return _Ended(value, error, self._replay.reached_since(before))

    def _suspend(self, is_outermost: bool, waiting: list[NewStep]) -> Never:
        if not is_outermost or self._replay.is_over:
            raise Suspend
        decision, chosen = self._replay.decide(waiting)
        if decision is Decision.RUN and chosen is not None:
            self._leave(self._perform(chosen))
        self._end(decision, waiting if chosen is None else [chosen])

    def _end(self, decision: Decision, steps: Sequence[NewStep]) -> Never:
        self._leave(*(map(planned, steps) if decision is Decision.REPORT else ()))
