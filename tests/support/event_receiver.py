"""An event API that records: takes events as `POST /e/<key>` does, and misbehaves as a test says."""

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Event = dict[str, Any]


@dataclass(frozen=True)
class Post:
    """A request as it came; `number` counts from 1."""

    number: int
    key: str
    headers: Mapping[str, str]
    size: int
    events: list[Event]

    @property
    def ids(self) -> list[str]:
        """The events' ids."""
        return [event["id"] for event in self.events]


@dataclass(frozen=True)
class Reply:
    """What is answered; how many of the first events are recorded as accepted."""

    status: int
    body: object = None
    accepted: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Reply | None
Decide = Callable[[Post], Answer | Awaitable[Answer]]


class EventReceiver:
    """Attributes:
    accepted: How often each event id was accepted.
    events: The accepted events by id, as they came first.
    posts: Every request.
    bad: Names of events that are refused as bad.
    decide: Asked first; None behaves as an event API does, a Reply is given as it is.
    """

    def __init__(self, decide: Decide | None = None) -> None:
        self.accepted: Counter[str] = Counter()
        self.events: dict[str, Event] = {}
        self.posts: list[Post] = []
        self.bad: set[str] = set()
        self.decide: Decide = decide or (lambda _: None)
        self.arrived = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Its origin, the same in each of its lives."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen; after a stop at the same port."""
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_post("/e/{key}", self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        assert site._server is not None and isinstance(site._server, asyncio.Server)
        self._port = site._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut off who is connected."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> "EventReceiver":
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        post = Post(
            len(self.posts) + 1,
            request.match_info["key"],
            request.headers.copy(),
            len(body),
            json.loads(body),
        )
        self.posts.append(post)
        reply = self.decide(post)
        if inspect.isawaitable(reply):
            reply = await reply
        if reply is None:
            reply = self._as_an_api(post)
        self.take(post, reply.accepted)
        if reply.status == 0:
            assert request.transport is not None
            request.transport.abort()  # whatever was accepted, nobody hears of it
        return web.json_response(reply.body, status=reply.status or 200, headers=reply.headers)

    def take(self, post: Post, count: int) -> None:
        """Record the first events of a request as accepted."""
        for event in post.events[:count]:
            self.accepted[event["id"]] += 1
            self.events.setdefault(event["id"], event)
        self.arrived.set()

    def _as_an_api(self, post: Post) -> Reply:
        ids: list[str] = []
        for event in post.events:
            if event["name"] in self.bad:
                text = f"event name is reserved for internal use: {event['name']}"
                body = {"ids": ids or [""], "status": 400, "error": text}
                return Reply(400, body, len(ids))
            ids.append(f"internal-{event['id']}")
        return Reply(200, {"ids": ids, "status": 200}, len(ids))

    def reply_as_an_api(self, post: Post) -> Reply:
        """Return what an event API would answer."""
        return self._as_an_api(post)
