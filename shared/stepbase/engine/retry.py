"""When to try again. Pure: randomness and times are arguments."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from stepbase.protocol import names

# Inngest's schedule by 0-based failed attempt, in seconds; the last value repeats.
_SCHEDULE = (15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200)
_JITTER_SECONDS = 30.0

OUTAGE_SECONDS = 3600.0
"""For so long a host that does not answer at all costs no attempt."""


def delay(
    header: str | None,
    attempt: int,
    *,
    now: datetime,
    chance: float,
    interval: float | None,
    first: float | None,
) -> float:
    """Return seconds until the next attempt after the failed `attempt` (from 0).

    Args:
        header: What Retry-After says, or None: it counts before all else.
        interval: A fixed pause (development), or None.
        first: The function's own first pause, which doubles, or None for the schedule.
    """
    asked = retry_after(header, now)
    if asked is not None:
        return asked
    if interval is not None:
        return interval
    return backoff(attempt, chance) if first is None else doubling(first, attempt, chance)


def backoff(attempt: int, chance: float) -> float:
    """Return seconds until the next attempt after the failed `attempt` (from 0).

    Args:
        chance: Uniform in [0, 1); spreads the retries over 30 seconds.
    """
    return _SCHEDULE[min(attempt, len(_SCHEDULE) - 1)] + _JITTER_SECONDS * chance


def doubling(first: float, attempt: int, chance: float) -> float:
    """Return seconds until the next attempt by a function's own curve: doubling, at most an hour.

    Args:
        chance: Uniform in [0, 1); spreads the retries over a tenth of the pause.
    """
    return min(first * 2.0 ** min(attempt, 40), 3600.0) * (1 + 0.1 * chance)


def outage_delay(elapsed: float) -> float:
    """Return seconds until a silent host is asked again: quickly at first, then every 30 seconds."""
    return min(30.0, max(1.0, elapsed / 4))


def retry_after(header: str | None, now: datetime) -> float | None:
    """Read a Retry-After header (seconds, HTTP date or ISO time), clipped to 1 s … 24 h.

    Returns None if there is none or it cannot be read: then the schedule applies
    (vector `stub-sdk-odd-replies.json`, "retry-after-garbage").
    """
    if header is None:
        return None
    seconds = _seconds(header.strip(), now)
    if seconds is None:
        return None
    return min(max(seconds, names.MIN_RETRY_AFTER_SECONDS), names.MAX_RETRY_AFTER_SECONDS)


def _seconds(text: str, now: datetime) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        return None if math.isnan(seconds) else seconds
    when = parse_instant(text)
    if when is None:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - now).total_seconds()


def parse_instant(text: str) -> datetime | None:
    """Read an ISO 8601 time; without an offset it is UTC. None if it is not one."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
