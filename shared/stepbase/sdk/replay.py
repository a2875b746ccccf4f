"""Replay: which steps of a run are done, and what to do with the first that is not. Pure.

A run is called again and again. Each call runs the handler from the top; a step that is done
returns its memo at once, the first that is not either runs here or is reported, and the call ends.

Three rules:

1. A step is named by its hashed id: SHA-1 of the id, or of `id:n` for its n-th repetition.
2. A call asks either for the next step (`step_id` is "step") or for one planned step by its hashed
   id; in the second case every other unfinished step just waits.
3. Nothing may happen after the ops of a call are known: a handler that swallowed the suspension and
   reaches another step is suspended again.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from stepbase.errors import NonRetriableError, StepError
from stepbase.protocol import names
from stepbase.protocol.call import Call
from stepbase.protocol.ids import hash_step_id
from stepbase.protocol.memo import MemoKind, decode_memo
from stepbase.protocol.op import Opcode

MISSING: Final = object()
"""What `recall` returns for a step without a memo."""


class Decision(Enum):
    """What to do with an unfinished step."""

    RUN = auto()  # run its work now, report what came out
    REPORT = auto()  # report it: the server does it (sleeps and the like), or plans it
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
class StepOp:
    """An op to report, its result already as JSON text."""

    place: Place
    op: Opcode
    name: str
    opts: dict[str, Any] | None = None
    data: str = "null"
    error: dict[str, object] | None = None


class Replay:
    """The state of one call of one run.

    Attributes:
        ops: What the reply will carry.
        no_retry: True if a failed step among them is final.
        is_outage: True if what a failed step called is away.
        retry_after: When the failed step may be tried again, as a header value, or None.
        passed_over: The first unfinished step met in a call that was for another one.
    """

    __slots__ = (
        "_call", "_counts", "_left", "_used", "is_outage", "is_over", "no_retry", "ops",
        "passed_over", "retry_after",
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        self._call = call
        self._counts: dict[str, int] = {}
        self._used: set[str] = set()
        self._left = len(call.steps)
        self.ops: list[StepOp] = []
        self.is_over = False
        self.no_retry = False
        self.retry_after: str | None = None
        self.is_outage = False
        self.passed_over: Place | None = None

    @property
    def run_id(self) -> str:
        """The run."""
        return self._call.run_id

    @property
    def is_replaying(self) -> bool:
        """True while memos are left that the handler has not asked for: this code ran before."""
        return self._left > 0 and not self.is_over

    @property
    def is_last_attempt(self) -> bool:
        """True if a failure now uses up the step's attempts."""
        most = self._call.max_attempts
        return most is not None and self._call.attempt + 1 >= most

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
        hashed = hash_step_id(step_id, index)
        while hashed in self._used:
            index += 1
            hashed = hash_step_id(step_id, index)
        self._counts[step_id] = index + 1
        self._used.add(hashed)
        return Place(step_id, index, hashed)

    def recall(self, place: Place) -> Any:
        """Return the step's stored result, or `MISSING`.

        Raises:
            StepError: If the step failed for good.
        """
        raw = self._call.steps.get(place.hashed, MISSING)
        if raw is MISSING:
            return MISSING
        self._left -= 1
        if type(raw) is dict and len(raw) == 1 and "data" in raw:
            return raw["data"]  # nearly all of them, so without the detour
        memo = decode_memo(raw)
        if memo.kind is MemoKind.DATA:
            return memo.value
        if memo.kind is MemoKind.ERROR:
            raise _step_error(memo.value)
        return MISSING  # an edited input: the step is to run again

    def decide(self, place: Place, opcode: Opcode) -> Decision:
        """Say what to do with an unfinished step."""
        if self.is_over:
            return Decision.PARK
        target = self._call.step_id
        if target != names.STEP and target != place.hashed:
            self.passed_over = self.passed_over or place
            return Decision.PARK
        if opcode is not Opcode.STEP_RUN:
            return Decision.REPORT
        if self._call.is_planning and target == names.STEP:
            return Decision.REPORT
        return Decision.RUN

    def report(self, op: StepOp) -> None:
        """Put an op into the reply and close the call."""
        self.ops.append(op)
        self.is_over = True


def _step_error(error: Any) -> StepError:
    def text(field: str) -> str:
        value = error.get(field)
        return value if isinstance(value, str) else ""

    return StepError(
        text("name") or "Error", text("message"), text("stack") or None, error.get("cause")
    )
