"""The only place that asks what time it is.

Engine decisions use the database's clock (`stepbase.now()` in SQL); this one stamps ids, signatures
and log lines, and nothing that two machines must agree on.
"""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the wall clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def now_s() -> int:
    """Return the wall clock in whole seconds since 1970."""
    return int(time.time())


def utcnow() -> datetime:
    """Return the wall clock as an aware UTC datetime."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return a clock in seconds that never goes back; only differences mean anything."""
    return time.monotonic()
