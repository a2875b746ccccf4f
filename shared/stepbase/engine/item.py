"""A leased queue item, with everything a call needs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from stepbase.engine.starts import Function
from stepbase.protocol import names
from stepbase.protocol.call import encode_call
from stepbase.protocol.ids import ulid_ms
from stepbase.protocol.jsontext import dumps, loads


def open_edits(edits: str | None, closed: Iterable[str]) -> list[tuple[str, str]]:
    """Return a rerun's edited inputs (hash, JSON text) without those whose step has run since."""
    if edits is None:
        return []
    known, memos = frozenset(closed), loads(edits)
    assert isinstance(memos, dict)  # as `rerun` writes it
    return [(hashed, dumps(memo)) for hashed, memo in memos.items() if hashed not in known]


@dataclass(slots=True)
class Item:
    """What an executor holds while it works on a run; it changes as the run goes on.

    Attributes:
        step: Hash of the step this is for (kinds step, sleep, wait, invoke, match); for "deadline":
            "start" or "finish".
        lane: Where calls of its limits wait, or None if it has none.
        place: What its run counts for as one that is going on, or None.
        waited: The lane in which it waited for this call, or None.
        outage: Seconds since the host stopped answering, 0 if it has not.
        memos: (hashed id, memo as JSON text), in stack order.
        open: Hashes of the steps the run waits for in parallel.
        planning: 1 while a group of parallel steps is open, 2 while a race is.
        has_planned: There are planned steps, whose own calls may be going on just now.
        other_event, pause_kind, residual: For kind "match": the event to check, what its pause is
            for, and the condition.
        batch: All events of a batch (`event` is the first), or empty.
        edits: Of a rerun: JSON object of memos that a step runs with, by hash ({"input": […]}).
    """

    run_id: str
    job: str
    kind: str
    step: str | None
    gen: int
    attempt: int
    function: Function
    event: str
    losses: int = 0
    hops: int = 0
    lane: str | None = None
    place: str | None = None
    waited: str | None = None
    outage: float = 0.0
    version: int = -1
    has_started: bool = False
    is_overdue: bool = False
    state_bytes: int = 0
    memos: list[tuple[str, str]] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    planning: int = 0
    has_planned: bool = False
    other_event: str | None = None
    pause_kind: str | None = None
    residual: str | None = None
    edits: str | None = None
    batch: list[str] = field(default_factory=list)

    @property
    def created_ms(self) -> int:
        """When the run was created, from its id."""
        return ulid_ms(self.run_id)

    @property
    def target(self) -> str | None:
        """The planned step this item calls the function for, or None."""
        return self.step if self.kind == "step" else None

    @property
    def is_new(self) -> bool:
        """Whether its run has made no call yet, as far as one can tell; a lost engine may have made one."""
        is_first = self.gen == 1 or self.waited is not None
        return self.job == "main" and is_first and self.place is None and not self.has_started

    @property
    def makes_call(self) -> bool:
        """Whether it is for the function, and no duty of the engine."""
        return self.kind in ("edge", "sleep", "step", "gateway")

    @property
    def request(self) -> str | None:
        """The step whose request is to be made, which the function is called to ask for again, or None."""
        return self.step if self.kind == "gateway" else None

    @property
    def url(self) -> str:
        """Where its calls go: the target is in the query (vector `19-parallel.json`)."""
        url = self.function.config.url
        if self.target is None:
            return url
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        query["stepId"] = self.target
        return urlunsplit(parts._replace(query=urlencode(query)))

    @property
    def is_planning(self) -> bool:
        """Whether the call must leave new steps to calls of their own.

        So must one that goes on after a race: an SDK that finds a planned step to be the only one left
        would run it here, beside its own call.
        """
        if self.request is not None:
            return True
        return self.planning > 0 and (self.target is not None or self.has_planned)

    def call_body(self, request_id: str) -> bytes:
        """Write the body of the next call; above the size limit the SDK is told to fetch the rest."""
        for use_api in (False, True):
            body = encode_call(
                events=self.batch or [self.event],
                memos=self.memos,
                edits=open_edits(self.edits, (hashed for hashed, _ in self.memos)),
                run_id=self.run_id,
                fn_id=str(self.function.function_id),
                step_id=names.STEP,
                attempt=self.attempt,
                max_attempts=self.function.config.retries + 1,
                is_planning=self.is_planning,
                version=self.version,
                generation_id=self.gen,
                job_id=self.job,
                request_id=request_id,
                use_api=use_api,
            )
            if len(body) <= names.MAX_CALL_BYTES:
                break
        return body
