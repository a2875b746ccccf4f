"""One event loop in a thread of its own, for async handlers under hosts that are not async.

A loop per call would throw away what belongs to a loop: open connections of HTTP and Supabase clients.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from stepbase.sdk import http
from stepbase.supabase import client

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_pid = 0


def run(coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
    """Run a coroutine on the background loop and wait for its result.

    Raises:
        TimeoutError: If there is none after so many seconds; the coroutine is cancelled.
    """
    running = asyncio.run_coroutine_threadsafe(coroutine, _running_loop())
    try:
        return running.result(seconds)
    except TimeoutError:
        running.cancel()
        raise


def stop() -> None:
    """Stop the loop, if there is one; the next `run` starts another."""
    global _loop, _thread
    with _lock:
        loop, thread = _loop, _thread
        _loop = _thread = None
    if loop is not None and thread is not None and _pid == os.getpid():
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread, _pid
    with _lock:
        if _loop is None or _pid != os.getpid():  # a forked worker has no thread of its parent's
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            _thread = threading.Thread(
                target=_serve, args=(_loop,), name="stepbase-loop", daemon=True
            )
            _thread.start()
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(http.aclose())
        loop.run_until_complete(client.aclose())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
