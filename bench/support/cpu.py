"""CPU time of processes, as the kernel counts it."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _own(pid: int, first: int, last: int) -> float:
    """Return the sum of some times of /proc/PID/stat in seconds; 0 for a process that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(int(field) for field in fields[first : last + 1]) / _TICKS


def seconds(pid: int) -> float:
    """Return user and system time of a process."""
    return _own(pid, 11, 12)


def family_seconds(pid: int, *, but: int | None = None) -> float:
    """Return the same of a process, its children, and those that have ended; without child `but`."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return 0.0
    own = _own(pid, 11, 14)
    return own + sum(seconds(int(child)) for child in children if int(child) != but)
