"""What the engine may write after a call: plain values, applied by `settle` in one transaction."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stepbase.engine.match import Wait


class Verdict(StrEnum):
    """What becomes of the queue item (the letters are `settle`'s)."""

    CONTINUE = "c"
    READY = "q"
    YIELD = "y"
    TIMER = "t"
    PARK = "p"
    DONE = "d"
    END = "e"


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step to store.

    Attributes:
        memo: JSON text, exactly as later calls carry it.
        began: Seconds before it is stored at which its work began, or None if nobody says.
        ended: Seconds before it is stored at which its work ended.
    """

    hash: str
    name: str
    op: str
    status: str
    memo: str
    attempt: int = 0
    began: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt to record. `hash` is None for the code between steps; `error` is JSON text."""

    hash: str | None
    attempt: int
    http_status: int | None
    error: str


@dataclass(frozen=True, slots=True)
class NewItem:
    """What a new open step waits for: kind "step" (a call for it), "gateway" (one for its request), "wait" or
    "invoke" (giving up), "look" (a look at the events that came before, then "wait").

    Due absolutely, or in `delay` seconds; neither: at once. Its attempt is that of its `StepRow`.
    """

    hash: str
    kind: str
    due: datetime | None = None
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class NewPause:
    """What ends a new open step from outside; `kind` "event" or "signal", `expires` in seconds.

    Attributes:
        look_back: Events that arrived at most so many seconds before count too; None: none of them.
        replaces: Of a signal: takes it over from another run that waits for it.
    """

    hash: str
    kind: str
    event_name: str
    wait: Wait
    expires: float
    look_back: float | None = None
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event of the server's own that a new open step sends; `payload` is JSON text."""

    hash: str
    id: str
    name: str
    payload: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """All effects of one call.

    Attributes:
        verdict: What becomes of the item.
        due: For TIMER: when, absolutely …
        delay: … or in seconds from now, by the database's clock.
        attempt: The item's attempt from now on.
        kind: The item's kind from now on: "edge", "step", "gateway", "sleep", "wait" or "look".
        step: For all but "edge": the hash of the step it is for.
        status: For END: Completed, Failed or Cancelled.
        output: For END: JSON text of the result.
        error: For END: JSON text of the error object.
        version: Execution version the SDK spoke, if it replied.
        was_called: The function was reached and replied.
        is_outage: The host did not answer at all.
        steps: Steps to store, or to close if they are open.
        planning: 1 if the reply opens a group of parallel steps, 2 for a race, else 0.
        items, pauses, events: What the open ones among `steps` wait for and send.
        failed: A failed attempt to record.
        tried: Failed attempts of planned steps, made in the call that found them.
    """

    verdict: Verdict
    due: datetime | None = None
    delay: float | None = None
    attempt: int = 0
    kind: str = "edge"
    step: str | None = None
    status: str | None = None
    output: str | None = None
    error: str | None = None
    version: int | None = None
    was_called: bool = True
    is_outage: bool = False
    steps: tuple[StepRow, ...] = ()
    failed: FailedAttempt | None = None
    planning: int = 0
    items: tuple[NewItem, ...] = ()
    pauses: tuple[NewPause, ...] = ()
    events: tuple[NewEvent, ...] = ()
    tried: tuple[FailedAttempt, ...] = ()
