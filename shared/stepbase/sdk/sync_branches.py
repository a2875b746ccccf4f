"""Branches of a plain handler: what each has reached, and when, on the clock of the server's stack.

Branches run one after the other, and all of them anew at every call. So the order in which they reach steps
is not the order in which it happened. This keeps the second: the time of a branch is the position of the
latest result it has taken; a branch has won a race if it ended at the earliest time; and what a loser has
reached after that time counts as not reached.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Never, TypeVar

from stepbase.errors import Suspend
from stepbase.sdk.fault import CodedError
from stepbase.sdk.replay import NewStep, Replay

T = TypeVar("T")

START: Final = -1
"""The time before any result."""

SEVERAL: Final = -1
"""Stands for more than one branch."""


@dataclass(slots=True)
class Ended(Generic[T]):
    """A branch that has ended.

    Attributes:
        value: What it returned: one value, or none if it failed.
        time: When the last of its results was stored.
    """

    value: list[T]
    error: Exception | None
    time: int

    def result(self) -> T:
        """Return what the branch returned, or raise its error."""
        if self.error is not None:
            raise self.error
        return self.value[0]


@dataclass(slots=True)
class _Use:
    """Where in a group a step id is used.

    Attributes:
        index: The branch.
        is_late: True if some use comes after a result that its branch has waited for.
    """

    index: int
    is_late: bool


class Branches:
    """The branches of one outermost group, and of the groups in them.

    Attributes:
        waiting: The steps without a result that were reached.
        is_left: True if the branch that runs waits for a step, so that nothing in it happens any more.
    """

    __slots__ = (
        "_groups",
        "_path",
        "_reached",
        "_refusal",
        "_replay",
        "_time",
        "_uses",
        "is_left",
        "waiting",
    )

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._time = START
        self._groups = 0
        self._path: list[tuple[int, int, int]] = []
        self._uses: dict[tuple[int, str], _Use] = {}
        self._reached: list[tuple[str, int]] = []
        self._refusal: CodedError | None = None
        self.waiting: list[NewStep] = []
        self.is_left = False

    def run(self, branches: Sequence[Callable[[], T]]) -> list[Ended[T] | None]:
        """Run each up to its first step without a result; None stands for those that have not ended.

        Raises:
            Suspend: If the branch they are part of is left already.
        """
        if self.is_left:
            raise Suspend
        self._groups += 1
        group = self._groups
        return [self._run_one(group, i, branch) for i, branch in enumerate(branches)]

    def _run_one(self, group: int, index: int, branch: Callable[[], T]) -> Ended[T] | None:
        start = self._time
        self._path.append((group, index, start))
        value, error = [], None
        try:
            value = [branch()]
        except Suspend:
            self.is_left = True
        except Exception as raised:
            error = raised
        ended = None if self.is_left else Ended(value, error, self._time)
        self._path.pop()
        self._time, self.is_left = start, False
        if self._refusal is not None:
            raise self._refusal  # also if others wait: it would be too late once they have ended
        return ended

    def reach(self, step_id: str) -> None:
        """Note that the branch reaches a step, before it is named.

        Raises:
            Suspend: If the branch is left already.
            CodedError: If it depends on the order of results which use of the id this is.
        """
        if self.is_left:
            raise Suspend
        for group, index, start in self._path:
            is_late = self._time > start
            use = self._uses.setdefault((group, step_id), _Use(index, is_late))
            use.is_late |= is_late
            if use.index != index:
                use.index = SEVERAL
            if use.index == SEVERAL and use.is_late:
                self._refusal = CodedError(
                    f'step id "{step_id}" stands in several branches, in one of them after another step: '
                    "which use comes first would change from call to call. Give each branch ids of its own",
                    "step_id_shared",
                )
                raise self._refusal
        self._reached.append((step_id, self._time))

    def take(self, position: int) -> None:
        """Note that the branch takes a result."""
        self._time = max(self._time, position)

    def end_parallel(self, ended: Sequence[Ended[T]]) -> None:
        """Go on after all branches have ended."""
        self._time = max((each.time for each in ended), default=self._time)

    def end_race(self, winner: Ended[T], first: int, waiting: int) -> None:
        """Go on after a race: forget what its losers have reached since it was won.

        Args:
            first: How many steps were reached before the race.
            waiting: How many of them waited.
        """
        for step in self.waiting[waiting:]:
            self._replay.abandon(step.place)
        del self.waiting[waiting:]
        reached = self._reached[first:]
        for step_id, time in reversed(reached):
            if time > winner.time:
                self._replay.unreach(step_id)
        self._reached[first:] = [each for each in reached if each[1] <= winner.time]
        self._time = winner.time

    def wait(self, step: NewStep) -> Never:
        """Let the branch wait for a step.

        Raises:
            Suspend: Always.
        """
        self.waiting.append(step)
        self.leave()

    def leave(self) -> Never:
        """Let the branch wait.

        Raises:
            Suspend: Always.
        """
        self.is_left = True
        raise Suspend

    @property
    def is_inner(self) -> bool:
        """True in a branch: a group that is reached there is an inner one."""
        return bool(self._path)

    @property
    def reached(self) -> int:
        """How many steps were reached."""
        return len(self._reached)
