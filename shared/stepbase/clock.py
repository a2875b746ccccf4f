"""The only place that asks what time it is.

Engine decisions use the database's clock (`stepbase.now()` in SQL); this one stamps ids, signatures
and log lines, and nothing that two machines must agree on. A test may put another clock in its place.
"""

import time
from datetime import UTC, datetime

from stepbase import standin


def now_ms() -> int:
    """Return the wall clock in milliseconds since 1970."""
    stand_in = standin.current.get()
    if stand_in is not None:
        return round(stand_in.now().timestamp() * 1000)
    return time.time_ns() // 1_000_000


def now_s() -> int:
    """Return the wall clock in whole seconds since 1970."""
    return now_ms() // 1000


def utcnow() -> datetime:
    """Return the wall clock as an aware UTC datetime."""
    stand_in = standin.current.get()
    return datetime.now(UTC) if stand_in is None else stand_in.now()


def monotonic() -> float:
    """Return a clock in seconds that never goes back; only differences mean anything."""
    return time.monotonic()
