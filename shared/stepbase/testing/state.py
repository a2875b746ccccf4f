"""What the server in memory remembers: runs with their steps, queue items and pauses. Plain values."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from stepbase.engine.effects import FailedAttempt
from stepbase.engine.match import Wait
from stepbase.engine.starts import Event, Function

OPEN: Final = frozenset({"sleeping", "waiting", "planned", "invoking"})
"""What a step may be while the server waits for it; `done` and `failed` are the other two."""


@dataclass(slots=True)
class StepState:
    """A step of a run.

    Attributes:
        hash: Its id on the wire.
        name: Its id as the user wrote it.
        op: The opcode that brought it.
        status: done, failed, sleeping, waiting, planned, invoking, or cancelled.
        memo: Its outcome as JSON text, exactly as calls carry it.
        due: Until when it sleeps or waits, or None.
        awaits: The event or signal it waits for, or None.
    """

    hash: str
    name: str
    op: str
    status: str
    memo: str
    due: datetime | None = None
    awaits: str | None = None

    @property
    def is_open(self) -> bool:
        """True while the server waits for it."""
        return self.status in OPEN


@dataclass(slots=True)
class RunState:
    """A run.

    Attributes:
        event: The first of its events.
        more: The others, of a batch.
        status: The wire's word: Scheduled, Running, Completed, Failed or Cancelled.
        steps: By hashed id, in the order they were first heard of.
        stack: Hashed ids in the order their outcomes were stored.
        attempts: Failed attempts, in order.
        planning: 1 while a group of parallel steps is open, 2 while a race is, else 0.
        parent: "<run>.<hash>" of the step that invoked it, or None.
        output, error: JSON text, once the run has ended.
    """

    id: str
    function: Function
    event: Event
    created_at: datetime
    parent: str | None = None
    more: tuple[Event, ...] = ()
    status: str = "Scheduled"
    steps: dict[str, StepState] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)
    attempts: list[FailedAttempt] = field(default_factory=list)
    planning: int = 0
    version: int = -1
    output: str | None = None
    error: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def slug(self) -> str:
        """The function's name on the wire."""
        return self.function.config.slug

    @property
    def events(self) -> tuple[Event, ...]:
        """All its events."""
        return (self.event, *self.more)

    @property
    def has_open_step(self) -> bool:
        """True while the server waits for a step beside the run's next call."""
        return any(step.is_open for step in self.steps.values())

    @property
    def memos(self) -> list[tuple[str, str]]:
        """The stored outcomes (hashed id, JSON text) in stack order."""
        return [(hashed, self.steps[hashed].memo) for hashed in self.stack]


@dataclass(slots=True)
class QueueItem:
    """One thing a run waits for; a call if its kind is `edge` or `step`.

    Attributes:
        job: "main" for the run's own calls, else what tells several items of a run apart.
        kind: edge, step, sleep, wait, invoke or deadline; as in the engine's queue.
        due: When it is to happen; None while it waits for open steps to close.
        step: Hashed id of the step it is for, or None.
        gen: Rises with every call; a reply to an older one counts for nothing.
        is_held: A call for it is under way.
        outage_since: Since when what it calls is away, or None.
    """

    run_id: str
    job: str
    kind: str
    due: datetime | None
    step: str | None = None
    attempt: int = 0
    gen: int = 0
    is_held: bool = False
    outage_since: datetime | None = None

    @property
    def is_call(self) -> bool:
        """True if the function is to be called."""
        return self.kind in ("edge", "step")


@dataclass(frozen=True, slots=True)
class Pause:
    """What may end a step's wait (kinds event and signal) or the run (kind cancel) from outside."""

    run_id: str
    hash: str
    kind: str
    event_name: str
    wait: Wait
    expires: datetime


@dataclass(frozen=True, slots=True)
class Leased:
    """A call to be made.

    Attributes:
        step_id: "step", or the hashed id of the planned step it is for.
        memos: The run's stored outcomes at this moment, in stack order.
        open: Hashed ids of the steps that the server waits for at this moment.
        is_together: The steps that it finds beside each other may run in it.
        body: What is posted.
    """

    run_id: str
    job: str
    gen: int
    slug: str
    step_id: str
    attempt: int
    memos: tuple[tuple[str, str], ...] = field(repr=False)
    open: frozenset[str] = field(repr=False)
    is_together: bool = False
    body: bytes = field(repr=False, default=b"")

    @property
    def known(self) -> frozenset[str]:
        """Hashed ids of the steps that are done."""
        return frozenset(hashed for hashed, _ in self.memos)
