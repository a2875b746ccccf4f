"""Whose turn it is: steps of a plain `def` handler, one after the other or in branches.

Branches of `step.parallel` and `step.race` run one after the other, each up to its first step without a
result; then all that wait is decided about (`Replay.decide`). At each call every branch runs again.

Where results can be saved on the way, the steps that wait run here beside each other, each in a thread
(`sdk.sync_together`), and then every branch runs again in this call, as it would in the next.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Never, TypeVar

from stepbase.errors import Suspend
from stepbase.sdk.replay import RACE, Decision, NewStep, Replay, StepOp, planned
from stepbase.sdk.sync_branches import Branches
from stepbase.sdk.work import perform

if TYPE_CHECKING:
    from stepbase.sdk.checkpoints import Checkpoints
    from stepbase.sdk.sync_together import SyncTogether

T = TypeVar("T")


class SyncTurns:
    """The steps of one call of a plain handler.

    Args:
        checkpoints: Where results are saved while the handler goes on; None if the call ends with a step.

    Attributes:
        on_output: Called with the op of a step that ran before it is saved, and may change it; or None.
    """

    __slots__ = ("_branches", "_checkpoints", "_is_racing", "_replay", "_together", "on_output")

    def __init__(self, replay: Replay, checkpoints: "Checkpoints | None" = None) -> None:
        self._replay = replay
        self._checkpoints = checkpoints
        self._together: SyncTogether | None = None
        if checkpoints is not None and checkpoints.is_together:
            from stepbase.sdk import sync_together  # loaded where it is used

            self._together = sync_together.SyncTogether(replay, checkpoints)
        self.on_output: Callable[[StepOp], None] | None = None
        self._branches: Branches | None = None
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
        if self._branches is not None:
            self._branches.wait(step)
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
        mark = self._replay.mark() if self._together is not None else None
        while True:
            with self._open() as group:
                all_ = group.run(branches)
                ended = [each for each in all_ if each is not None]
                if len(ended) == len(all_):
                    group.end_parallel(ended)
                    return [each.result() for each in ended]
                if mark is None or not self._run_together(group):
                    self._suspend(group)
                self._replay.go_back(mark)

    def _run_together(self, group: Branches) -> bool:
        """Run what waits; returns True if all branches are to run again, with more results."""
        together = self._together
        # Hooks are called in the handler's thread only.
        if group.is_inner or together is None or self.on_output is not None:
            return False
        steps = group.waiting
        if self._replay.is_over or not together.takes(steps):
            return False
        self._replay.catch_up()
        failed, rest = together.run(steps)
        if together.is_broken:
            self._leave()
        if failed:
            self._leave(*failed, *map(planned, rest))
        return True

    def race(self, branches: Sequence[Callable[[], T]]) -> T:
        """Return the result of the branch that ended first, or raise its error.

        Raises:
            Suspend: While none has ended.
        """
        if not branches:
            raise TypeError("step.race needs a branch at least")
        with self._open() as group:
            reached, waiting = group.reached, len(group.waiting)
            was_racing, self._is_racing = self._is_racing, True
            try:
                ended = [each for each in group.run(branches) if each is not None]
            finally:
                self._is_racing = was_racing
            if not ended:
                self._suspend(group)
            winner = min(ended, key=lambda each: each.time)
            group.end_race(winner, reached, waiting)
        return winner.result()

    @contextmanager
    def _open(self) -> Iterator[Branches]:
        outer = self._branches
        group = self._branches = self._replay.branches = outer or Branches(self._replay)
        try:
            yield group
        finally:
            self._branches = self._replay.branches = outer

    def _suspend(self, group: Branches) -> Never:
        """Leave a group that has not ended; if it is in a branch, that is left too."""
        if group.is_inner:
            group.leave()
        if self._replay.is_over:
            raise Suspend
        decision, chosen = self._replay.decide(group.waiting)
        if decision is Decision.RUN and chosen is not None:
            self._leave(self._perform(chosen))
        self._end(decision, group.waiting if chosen is None else [chosen])

    def _end(self, decision: Decision, steps: Sequence[NewStep]) -> Never:
        self._leave(*(map(planned, steps) if decision is Decision.REPORT else ()))
