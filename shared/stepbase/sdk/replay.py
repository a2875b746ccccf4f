"""Replay: which steps of a run are done, and what to do with those that are not. Pure.

A run is called again and again. Each call runs the handler from the top; a step that is done
returns its memo, the others are run here or reported, and the call ends.

Five rules:

1. A step is named by its hashed id: SHA-1 of the id, or of `id:n` for its n-th repetition.
2. A call asks either for the next step (`step_id` is "step") or for one planned step by its hashed
   id; in the second case every other unfinished step just waits.
3. One unfinished step alone runs in this call; of several, the server is told, and calls for each.
4. Where steps wait beside each other, memos are given back in the order of the server's stack, each
   only when nothing moves any more: so everything happens again in the order in which it happened.
5. Nothing may happen after the ops of a call are known: a handler that swallowed the suspension and
   reaches another step is suspended again.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

from stepbase import standin
from stepbase.errors import NonRetriableError, StepError
from stepbase.protocol import names
from stepbase.protocol.call import Call
from stepbase.protocol.ids import hash_step_id
from stepbase.protocol.memo import MemoKind, decode_memo
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed

MISSING: Final = object()
"""What `recall` returns for a step without a memo."""

RACE: Final = {"parallelMode": "race"}
"""What the `opts` of ops in a race carry (vector `21-parallel-race`)."""

UNORDERED: Final = 1 << 60
"""The position of a memo that is not in the stack (an SDK's server may leave the stack out)."""


class Decision(Enum):
    """What to do with unfinished steps."""

    RUN = auto()  # run the work of the one that is named, report what came out
    REPORT = auto()  # report all: the server does them (sleeps and the like), or plans them
    PARK = auto()  # the call is for another step, or is over: wait for a later call


@dataclass(slots=True)
class Place:
    """Where in the run a step stands.

    Attributes:
        step_id: The id as the user wrote it.
        index: Which repetition of it; 0 for the first use.
        hashed: The id on the wire.
    """

    step_id: str
    index: int
    hashed: str


@dataclass(slots=True)
class NewStep:
    """An unfinished step.

    Attributes:
        work: What to run if it is to run here, or None if the server does it.
        returns: The annotation of the result, or `typed.UNTYPED`.
        name: The op's `name` on the wire.
        is_raw: True if the work gives JSON that must be read as `returns` before it counts.
        is_racing: True inside a race, whose steps are always planned.
    """

    place: Place
    opcode: Opcode
    name: str
    work: Callable[[], Any] | None = None
    returns: Any = typed.UNTYPED
    is_raw: bool = False
    opts: dict[str, Any] | None = None
    is_racing: bool = False

    def __post_init__(self) -> None:
        stand_in = standin.current.get()
        if stand_in is not None:
            stand_in.step(self)


class Branches(Protocol):
    """Keeps the order of what branches do that run one after the other (`sdk.sync_branches`)."""

    def reach(self, step_id: str) -> None:
        """Note that a step is reached, before it is named."""

    def take(self, position: int) -> None:
        """Note that a result is taken that was stored then."""


@dataclass(slots=True)
class StepOp:
    """An op to report, its result already as JSON text.

    Attributes:
        no_retry: True if what failed is final whatever attempts are left.
        retry_after: When it may be tried again, as a header value, or None.
        is_outage: True if what it called is away.
        timing: When its work began and how long it took, in ns, or None.
    """

    place: Place
    op: Opcode
    name: str
    opts: dict[str, Any] | None = None
    data: str = "null"
    error: dict[str, object] | None = None
    no_retry: bool = False
    retry_after: str | None = None
    is_outage: bool = False
    timing: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a handler stands: the ids it has used, the steps it has left, how many memos it has taken."""

    counts: Mapping[str, int]
    used: Set[str]
    gone: Set[str]
    taken: int


class Replay:
    """The state of one call of one run.

    Attributes:
        ops: What the reply will carry.
        is_over: True once the ops are known.
        is_parallel: True while the handler runs tasks of its own, so that memos wait for their turn.
        no_retry: True if a failed step among them is final.
        is_outage: True if what a failed step called is away.
        retry_after: When the failed step may be tried again, as a header value, or None.
        passed_over: The first unfinished step met in a call that was for another one.
        branches: Told of what the branches of a plain handler reach and take; None outside of them.
    """

    __slots__ = (
        "_call", "_caught_up", "_counts", "_gone", "_left", "_memos", "_own", "_positions", "_used",
        "branches", "is_outage", "is_over", "is_parallel", "no_retry", "ops", "passed_over",
        "retry_after",
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        self._call = call
        self._memos = call.steps
        self._own: dict[str, object] | None = None
        self._counts: dict[str, int] = {}
        self._used: set[str] = set()
        self._gone: set[str] = set()
        self._left = len(call.steps)
        self._caught_up = False
        self._positions: dict[str, int] | None = None
        self.ops: list[StepOp] = []
        self.is_over = False
        self.is_parallel = False
        self.no_retry = False
        self.retry_after: str | None = None
        self.is_outage = False
        self.passed_over: Place | None = None
        self.branches: Branches | None = None

    @property
    def run_id(self) -> str:
        """The run."""
        return self._call.run_id

    @property
    def event(self) -> Mapping[str, Any]:
        """The event that started the run, as the server sent it."""
        return self._call.event

    @property
    def is_replaying(self) -> bool:
        """True while memos are left that the handler may still ask for: this code ran before."""
        return self._left > 0 and not self._caught_up

    @property
    def is_last_attempt(self) -> bool:
        """True if a failure now uses up the step's attempts."""
        most = self._call.max_attempts
        return most is not None and self._call.attempt + 1 >= most

    @property
    def unreached(self) -> int:
        """How many memos there are that the handler has not asked for, though it lost none of its steps.

        A call for a planned step may end before the memos of those beside it are asked for.
        """
        if self._left <= 0 or self._gone or self._call.is_targeted:
            return 0
        return sum(1 for hashed in self._memos if hashed not in self._used)

    def reach(self, step_id: str) -> Place:
        """Name the next use of a step id; repetitions skip over ids the user wrote out ("a:1").

        Raises:
            NonRetriableError: If the id is no usable text.
        """
        index = self._counts.get(step_id, 0) if isinstance(step_id, str) else 0
        if index == 0 and (not isinstance(step_id, str) or not step_id or "\x00" in step_id):
            raise NonRetriableError(
                f'a step id is non-empty text such as "charge-card", got {step_id!r}'
            )
        if self.branches is not None:
            self.branches.reach(step_id)
        hashed = hash_step_id(step_id, index)
        while hashed in self._used:
            index += 1
            hashed = hash_step_id(step_id, index)
        self._counts[step_id] = index + 1
        self._used.add(hashed)
        return Place(step_id, index, hashed)

    def recall(self, place: Place) -> Any:
        """Return the step's stored result, or `MISSING`: also if it must wait for its turn.

        Raises:
            StepError: If the step failed for good.
        """
        if self.is_parallel:
            return MISSING
        return self.memo(place)

    def has_memo(self, place: Place) -> bool:
        """Say whether the step is done; an edited input is no result."""
        raw = self._memos.get(place.hashed, MISSING)
        return raw is not MISSING and decode_memo(raw).kind is not MemoKind.INPUT

    def memo(self, place: Place) -> Any:
        """Return the step's stored result, or `MISSING`.

        Raises:
            StepError: If the step failed for good.
        """
        raw = self._memos.get(place.hashed, MISSING)
        if raw is MISSING:
            return MISSING
        self._left -= 1
        if self._left == 0:
            self.catch_up()
        if self.branches is not None:
            self.branches.take(self.position(place))
        if type(raw) is dict and len(raw) == 1 and "data" in raw:
            return raw["data"]  # nearly all of them, so without the detour
        memo = decode_memo(raw)
        if memo.kind is MemoKind.DATA:
            return memo.value
        if memo.kind is MemoKind.ERROR:
            raise _step_error(memo.value)
        return MISSING  # an edited input: the step is to run again

    def edited_input(self, place: Place) -> list[Any] | None:
        """Return the arguments that a rerun gives the step instead of its own, or None."""
        memo = decode_memo(self._memos.get(place.hashed))
        return memo.value if memo.kind is MemoKind.INPUT and isinstance(memo.value, list) else None

    def position(self, place: Place) -> int:
        """Return when the step's result was stored, counted from 0; `UNORDERED` if that is not known."""
        if self._positions is None:
            self._positions = {hashed: i for i, hashed in enumerate(self._call.stack)}
        return self._positions.get(place.hashed, UNORDERED)

    def add_result(self, place: Place, value: Any) -> None:
        """Add the result of a step that ran in this call, so that the handler can be gone over again."""
        self.position(place)  # counts what the call has brought
        assert self._positions is not None
        if self._own is None:
            self._memos = self._own = dict(self._memos)
        self._own[place.hashed] = {"data": value}
        self._positions[place.hashed] = len(self._positions)

    def mark(self) -> "Mark":
        """Return where the handler stands, to go back to it."""
        return Mark(
            dict(self._counts), set(self._used), set(self._gone), len(self._memos) - self._left
        )

    def go_back(self, mark: "Mark") -> None:
        """Let the handler go on from a mark, with the results that have come since."""
        self._counts, self._used = dict(mark.counts), set(mark.used)
        self._gone = set(mark.gone)
        self._left = len(self._memos) - mark.taken
        self._caught_up = self._left <= 0

    def unreach(self, step_id: str) -> None:
        """Take back the latest use of a step id."""
        index = self._counts[step_id] - 1
        self._counts[step_id] = index
        self._used.discard(hash_step_id(step_id, index))

    def catch_up(self) -> None:
        """Note that what comes now has not run before."""
        self._caught_up = True

    def abandon(self, place: Place) -> None:
        """Note that the handler waits no more for this unfinished step (it lost a race, say)."""
        self._gone.add(place.hashed)

    @property
    def is_target_gone(self) -> bool:
        """True if the call is for a step that the handler no longer waits for."""
        return self._call.step_id in self._gone

    def is_target(self, place: Place) -> bool:
        """Say whether the call is for this step, and it is not done."""
        return place.hashed == self._call.step_id and not self.has_memo(place)

    def decide(self, steps: Sequence[NewStep]) -> tuple[Decision, NewStep | None]:
        """Say what to do with all the steps that wait, none of which has a memo.

        Returns:
            The decision, and the step to run if it is RUN.
        """
        if self.is_over or not steps:
            return Decision.PARK, None
        self.catch_up()
        target = self._call.step_id
        if target != names.STEP:
            for each in steps:
                if each.place.hashed == target:
                    return (Decision.RUN if each.work else Decision.REPORT), each
            self.passed_over = self.passed_over or steps[0].place
            return Decision.PARK, None
        first = steps[0]
        if len(steps) > 1 or first.work is None or first.is_racing:
            return Decision.REPORT, None
        if self._call.is_planning:
            return Decision.REPORT, None
        return Decision.RUN, first

    def report(self, *ops: StepOp) -> None:
        """Put ops into the reply and close the call; what a reply says of its step counts for a lone one."""
        self.ops.extend(ops)
        self.is_over = True
        if len(ops) == 1:
            [op] = ops
            self.no_retry, self.retry_after, self.is_outage = (
                op.no_retry,
                op.retry_after,
                op.is_outage,
            )


def planned(step: NewStep) -> StepOp:
    """Return the op that asks the server for a step: to plan it, or to do it."""
    opcode = Opcode.STEP_PLANNED if step.opcode is Opcode.STEP_RUN else step.opcode
    return StepOp(step.place, opcode, step.name, step.opts)


def tried(step: NewStep, op: StepOp) -> StepOp:
    """Return what to report of a step that has run beside others and failed.

    Final failures stand as they are. Others are planned, and bring the error of their first attempt: a reply
    has one `Retry-After` and one error to count, these have their own. An outage counts for nothing.
    """
    if op.op is not Opcode.STEP_ERROR:
        return op
    again = planned(step)
    if op.is_outage:
        return again
    again.error = op.error
    if op.retry_after is not None:
        again.opts = {**(again.opts or {}), "retryAfter": op.retry_after}
    return again


def _step_error(error: Any) -> StepError:
    def text(field: str) -> str:
        value = error.get(field)
        return value if isinstance(value, str) else ""

    return StepError(
        text("name") or "Error", text("message"), text("stack") or None, error.get("cause")
    )
