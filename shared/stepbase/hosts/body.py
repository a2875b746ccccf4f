"""Bodies of requests, read no further than they may go: whoever sends one may not be who they should be."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any


async def arrived(receive: Callable[[], Awaitable[MutableMapping[str, Any]]], most: int) -> bytes:
    """Return an ASGI request's body, or its beginning: no more than `most` bytes are kept."""
    body = bytearray()
    while len(body) < most:
        message = await receive()
        body += message.get("body", b"")  # a disconnect has none
        if not message.get("more_body", False):
            break
    return bytes(body[:most])


def beginning(stream: Any, most: int) -> bytes:
    """Return what a stream holds, up to `most` bytes; one read may give less than there is."""
    body = bytearray()
    while len(body) < most:
        chunk = stream.read(most - len(body))
        if not chunk:
            break
        body += chunk
    return bytes(body)
