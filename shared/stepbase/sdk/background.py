"""One event loop in a thread of its own, for async handlers under hosts that are not async.

A loop per call would throw away what belongs to a loop: open connections of HTTP and Supabase clients.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and wait for its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _running_loop()).result()


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _pid
    with _lock:
        if _loop is None or _pid != os.getpid():  # a forked worker has no thread of its parent's
            _loop = asyncio.new_event_loop()
            _pid = os.getpid()
            threading.Thread(target=_loop.run_forever, name="stepbase-loop", daemon=True).start()
        return _loop


def stop() -> None:
    """Stop the loop and close it; for tests."""
    global _loop
    with _lock:
        loop, _loop = _loop, None
    if loop is None:
        return
    stopped = threading.Event()

    def finish() -> None:
        loop.stop()
        loop.call_soon(stopped.set)

    loop.call_soon_threadsafe(finish)
    stopped.wait(1)
    loop.call_soon_threadsafe(loop.stop)
