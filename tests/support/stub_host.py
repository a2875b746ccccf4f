"""A function host written by hand: answers calls with whatever a test says, and records them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SDK_HEADERS = {"x-inngest-sdk": "stub:v1.0.0", "x-inngest-req-version": "2"}


@dataclass
class Answer:
    """What the host replies: status, JSON body (or raw text) and headers."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=lambda: dict(SDK_HEADERS))
    text: str | None = None


Handler = Callable[[dict[str, Any]], Answer | Awaitable[Answer]]


def ops(*ops: dict[str, Any], **headers: str) -> Answer:
    """Reply 206 with these ops."""
    extra = {key.replace("_", "-"): value for key, value in headers.items()}
    return Answer(206, list(ops), {**SDK_HEADERS, **extra})


def step_run(hashed: str, data: object) -> dict[str, Any]:
    """Return a finished step."""
    return {"op": "StepRun", "id": hashed, "displayName": hashed, "data": data}


class StubHost:
    """Serves handlers by function id (`fnId`), on a free loopback port."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.calls: list[dict[str, Any]] = []
        self.requests: list[tuple[Mapping[str, str], bytes]] = []
        self.called = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The serve URL."""
        return f"http://127.0.0.1:{self.port}/api/inngest"

    async def start(self, port: int = 0) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("POST", "/api/inngest", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = json.loads(raw)
        self.requests.append((dict(request.headers), raw))
        self.calls.append(body)
        body["_step_id"] = request.query["stepId"]
        self.called.set()
        answer = self.handlers[request.query["fnId"]](body)
        if not isinstance(answer, Answer):
            answer = await answer
        text = answer.text if answer.text is not None else json.dumps(answer.body)
        return web.Response(status=answer.status, text=text, headers=answer.headers)

    def function(self, slug: str, **options: object) -> dict[str, object]:
        """Return the registration of a function served here."""
        step: dict[str, object] = {
            "id": "step",
            "name": "step",
            "runtime": {"type": "http", "url": f"{self.url}?fnId={slug}&stepId=step"},
        }
        if "retries" in options:
            step["retries"] = {"attempts": options.pop("retries")}
        options.setdefault("triggers", [{"event": slug.replace("-", "/", 1)}])
        return {"id": slug, "name": slug.partition("-")[2], "steps": {"step": step}, **options}

    def registration(self, *functions: dict[str, object], app: str = "app") -> dict[str, object]:
        """Return the body of `POST /fn/register` for these functions."""
        return {
            "url": self.url,
            "deployType": "ping",
            "appName": app,
            "sdk": "stub:v1.0.0",
            "v": "0.1",
            "framework": "stub",
            "functions": list(functions),
        }
