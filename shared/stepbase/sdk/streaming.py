"""Keep-alive replies, for calls that outlast the silence a proxy or a platform allows.

The call is answered at once with 201 and a space every few seconds; at its end comes one JSON object
with the real status, headers and body (docs/protocol.md, replies). A client that goes away ends
nothing: the call runs to its end as it would without a stream, and nobody hears the answer.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from typing import Any

from stepbase.protocol.jsontext import dumps_bytes
from stepbase.sdk.message import Response

PAUSE_SECONDS = 3.0


def keep_alive(work: Callable[[], Response]) -> Iterator[bytes]:
    """Yield spaces while `work` runs in a thread, then its wrapped response."""
    done: Future[Response] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            done.set_result(context.run(work))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="stepbase-call", daemon=True).start()
    while True:
        yield b" "
        if wait([done], PAUSE_SECONDS).done:
            break
    yield _wrapped(done.result())


async def akeep_alive(work: Coroutine[Any, Any, Response]) -> AsyncGenerator[bytes, None]:
    """Yield spaces while `work` runs on the event loop, then its wrapped response."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            yield b" "
            await asyncio.wait({task}, timeout=PAUSE_SECONDS)
        yield _wrapped(task.result())
    finally:
        task.cancel()  # the host itself was cancelled


def _wrapped(response: Response) -> bytes:
    return dumps_bytes(
        {
            "status": response.status,
            "headers": response.headers,
            "body": response.body.decode(),
        }
    )
