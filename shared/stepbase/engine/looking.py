"""A wait that looks back: which of the events that came before it ends it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from stepbase.engine import expr
from stepbase.engine.effects import Settlement, StepRow, Verdict
from stepbase.protocol.jsontext import loads


@dataclass(frozen=True, slots=True)
class Page:
    """Events that came before a wait and fit as far as the index goes, oldest first.

    Attributes:
        payloads: The events as functions see them, as JSON text.
        residual: The rest of the condition, or None.
        expires_at: When the wait's time is over.
    """

    payloads: Sequence[str]
    residual: str | None
    expires_at: datetime


async def look(hashed: str, event: str, pages: AsyncIterator[Page]) -> Settlement:
    """Return what ends a wait: the first event that fits, or else its time.

    Args:
        hashed: The step that waits.
        event: The run's event, as JSON text.
        pages: What came before; without any the wait has ended meanwhile.
    """
    expires_at = None
    async for page in pages:
        expires_at = page.expires_at
        for payload in page.payloads:
            if page.residual is not None:
                roots = {"event": loads(event), "async": loads(payload)}
                if not expr.holds(page.residual, roots):
                    continue
            found = StepRow(hashed, "", "", "done", payload)
            return Settlement(Verdict.DONE, was_called=False, steps=(found,))
    if expires_at is None:
        return Settlement(Verdict.DONE, was_called=False)
    return Settlement(Verdict.TIMER, due=expires_at, kind="wait", step=hashed, was_called=False)
