"""A leased queue item, with everything a call needs."""

from dataclasses import dataclass, field

from stepbase.engine.starts import Function
from stepbase.protocol import names
from stepbase.protocol.call import encode_call
from stepbase.protocol.ids import ulid_ms


@dataclass(slots=True)
class Item:
    """What an executor holds while it works on a run; it changes as the run goes on.

    Attributes:
        step: For kind "sleep": hash of the step this wakes; for "match": of the pause; for
            "deadline": "start" or "finish".
        outage: Seconds since the host stopped answering, 0 if it has not.
        memos: (hashed id, memo as JSON text), in stack order.
        other_event, residual: For kind "match": the event to check, and the condition.
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
    outage: float = 0.0
    version: int = -1
    has_started: bool = False
    is_overdue: bool = False
    state_bytes: int = 0
    memos: list[tuple[str, str]] = field(default_factory=list)
    other_event: str | None = None
    residual: str | None = None

    @property
    def created_ms(self) -> int:
        """When the run was created, from its id."""
        return ulid_ms(self.run_id)

    def call_body(self, request_id: str) -> bytes:
        """Write the body of the next call; above the size limit the SDK is told to fetch the rest."""
        for use_api in (False, True):
            body = encode_call(
                events=[self.event],
                memos=self.memos,
                run_id=self.run_id,
                fn_id=str(self.function.function_id),
                step_id=names.STEP,
                attempt=self.attempt,
                max_attempts=self.function.config.retries + 1,
                is_planning=False,
                version=self.version,
                generation_id=self.gen,
                job_id=self.job,
                request_id=request_id,
                use_api=use_api,
            )
            if len(body) <= names.MAX_CALL_BYTES:
                break
        return body
