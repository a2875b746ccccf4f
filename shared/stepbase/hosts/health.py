"""The health answer of a staged image: that the process is up, and which deployment it is.

No key is asked for and nothing else is told. A platform's probe, an image's HEALTHCHECK and `stepbase deploy`
ask it at any path that ends in `/health`; in front of it may be a prefix that a proxy has not removed.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stepbase import config

PATH = "/health"
HEADERS = {"content-type": "application/json", "cache-control": "no-store"}

Message = MutableMapping[str, Any]


def is_asked(method: str, path: str) -> bool:
    """Say whether a request asks for the health."""
    return method in ("GET", "HEAD") and path.endswith(PATH)


def body() -> bytes:
    """Return the answer: `{"status": "ok"}`, in a staged image with `"deployment"`, its digest."""
    deployment = config.deployment()
    said = {"status": "ok"} if deployment is None else {"status": "ok", "deployment": deployment}
    return json.dumps(said).encode()


async def asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer as an ASGI application."""
    content = body()
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    is_head = scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else content})
