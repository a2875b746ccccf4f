"""What an event API's answer says of the events of a request. Pure.

`POST /e/<key>` takes events in order and stops at the first bad one (docs/protocol.md, events): 400 with
the ids of those before it, which are accepted. An answer that is not of this form (a 400 without a list of
ids, say) comes from something in between, and says nothing about any event.
"""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Final

_REFUSALS: Final = frozenset({400, 422})
_TOO_LARGE: Final = 413
_SHOWN: Final = 300
_HINTS: Final = {
    401: "the event key is not accepted: check INNGEST_EVENT_KEY",
    403: "the event key is not accepted: check INNGEST_EVENT_KEY",
    404: "there is no event API: check INNGEST_EVENT_API_BASE_URL",
    405: "there is no event API: check INNGEST_EVENT_API_BASE_URL",
    **dict.fromkeys(
        (301, 302, 303, 307, 308),
        "the event API is elsewhere, and redirects are not followed: check INNGEST_EVENT_API_BASE_URL",
    ),
}
MOST_RETRY_AFTER: Final = 600.0
"""Seconds; a receiver that asks for more is asked again nevertheless."""


class Outcome(Enum):
    """What became of the first event that was not accepted."""

    ACCEPTED = "accepted"  # there is none
    REFUSED = "refused"  # it is at fault, if it was alone or the API says so
    TOO_LARGE = "too_large"  # the request was: send less at once
    AWAY = "away"  # nothing is known: try again later


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many events were accepted, and what is with the next one.

    Attributes:
        accepted: The first so many are accepted.
        reason: For the dead letter, or for who reads why it has to wait.
        retry_after: Seconds the receiver asks to be left alone, or 0.
    """

    outcome: Outcome
    accepted: int
    reason: str = ""
    retry_after: float = 0.0


def read(status: int, body: bytes, count: int, retry_after: str | None = None) -> Verdict:
    """Read the answer to a request of `count` events."""
    found, problem = _parse(body)
    accepted = min(_leading(found or []), count)
    shown = problem or body[:_SHOWN].decode(errors="replace").strip()
    if 200 <= status < 300 and accepted == count:
        return Verdict(Outcome.ACCEPTED, count)
    if status in _REFUSALS and found is not None:
        if accepted == count:
            return Verdict(Outcome.ACCEPTED, count)
        return Verdict(Outcome.REFUSED, accepted, f"HTTP {status}: {shown}")
    if status == _TOO_LARGE:
        return Verdict(Outcome.TOO_LARGE, 0, f"HTTP 413: {shown or 'too large'}")
    if 200 <= status < 300:
        reason = f"HTTP {status}, but it names {accepted} of {count} events as accepted: {shown}"
        return Verdict(Outcome.AWAY, accepted, reason)
    hint = _HINTS.get(status)
    reason = f"HTTP {status}: {shown}" + (f" ({hint})" if hint else "")
    return Verdict(Outcome.AWAY, 0, reason, _seconds(retry_after))


def no_answer(reason: str) -> Verdict:
    """Return what a request without an answer says: nothing."""
    return Verdict(Outcome.AWAY, 0, reason)


def _parse(body: bytes) -> tuple[list[object] | None, str]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(value, dict):
        return None, ""
    problem = value.get("error")
    problem = problem[:4000] if isinstance(problem, str) else ""
    found = value.get("ids", "none")
    if found is None and problem:
        found = []  # how some servers write an empty list
    return found if isinstance(found, list) else None, problem


def _leading(found: list[object]) -> int:
    """Count the ids; where the first event is bad, the list holds one empty string."""
    for place, each in enumerate(found):
        if not (isinstance(each, str) and each):
            return place
    return len(found)


def _seconds(retry_after: str | None) -> float:
    """Read the header in seconds; as a date it is not used by event APIs, and means nothing here."""
    try:
        seconds = float(retry_after or 0)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER) if seconds == seconds else 0.0
