"""What asyncio's tasks wait for, as far as it shows."""

import asyncio
import sys
from asyncio import taskgroups
from asyncio import tasks as asyncio_tasks
from types import CodeType
from typing import Any

_WAIT_FOR = asyncio.wait_for.__code__
_SLEEP = asyncio.sleep.__code__
_WAITING_FILES = (taskgroups.__file__, asyncio_tasks.__file__)


def waits_on_tasks(coroutine: Any, waits_for: object = None) -> bool:
    """Say whether a coroutine waits for tasks: in `gather`, `wait`, a `TaskGroup`, or for one itself.

    Args:
        waits_for: The future it waits for, if that is known.
    """
    if isinstance(waits_for, asyncio.Task) or type(waits_for).__name__ == "_GatheringFuture":
        return True
    inner = coroutine
    while True:
        following = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
        if following is None:
            return False
        code = getattr(following, "cr_code", None)
        if code is not None and code.co_filename in _WAITING_FILES:
            return bool(code.co_name != "sleep")
        inner = following


def is_asleep(coroutine: Any) -> bool:
    """Say whether a coroutine stands in `asyncio.sleep`."""
    inner = coroutine
    while inner is not None:
        if getattr(inner, "cr_code", None) is _SLEEP:
            return True
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
    return False


def is_waiting_on_tasks(task: "asyncio.Task[Any]") -> bool:
    """Say whether a task waits for other tasks."""
    return waits_on_tasks(task.get_coro(), getattr(task, "_fut_waiter", None))


def is_in_wait_for(end: CodeType) -> bool:
    """Say whether `asyncio.wait_for` is among the callers: it awaits (3.12) or makes a task (3.11).

    Args:
        end: The code whose callers are no longer looked at.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not end:
        if frame.f_code is _WAIT_FOR:
            return True
        frame = frame.f_back
    return False
