"""The world outside of the chaos benchmark's functions: who sends them events, and what they ask."""

import asyncio
import base64
import random
import time
from collections.abc import Mapping, Sequence

import aiohttp
from aiohttp import web
from bench.support.chaos_books import Books
from bench.support.chaos_shapes import Sent
from bench.support.fleet import Fleet

SEND_SECONDS = 120.0


class Outside:
    """What functions ask over HTTP: `/` answers at once, `/held/<case>` only when it is let go."""

    def __init__(self) -> None:
        self.came: list[tuple[float, str]] = []
        self.let_go = asyncio.Event()
        self.url = ""

    async def start(self) -> web.AppRunner:
        """Listen; returns what is to be cleaned up."""
        app = web.Application()
        app.router.add_get("/", self._answer)
        app.router.add_get("/held/{case}", self._hold)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return runner

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text="here")

    async def _hold(self, request: web.Request) -> web.Response:
        self.came.append((time.monotonic(), request.match_info["case"]))
        await self.let_go.wait()
        return web.Response(text="let go")


class Sender:
    """Sends events: over the API of any engine, or through the outbox; until they are accepted."""

    def __init__(self, fleet: Fleet, books: Books, http: aiohttp.ClientSession, seed: int) -> None:
        self._fleet = fleet
        self._books = books
        self._http = http
        self._chance = random.Random(seed)

    async def send(self, events: Sequence[Sent], engine: str | None = None) -> None:
        """Send events in one request, or one by one through the outbox."""
        now = int(time.time() * 1000)
        if engine is None and self._chance.random() < 0.3:
            for i, event in enumerate(events):
                ts = now + event.delay_ms + i
                await self._books.emit(event.name, event.data, event.id, ts)
            return
        body = [
            {"name": e.name, "id": e.id, "data": e.data, "ts": now + e.delay_ms + i}
            for i, e in enumerate(events)
        ]
        entropy = base64.b64encode(self._chance.randbytes(10)).decode()
        seed = {"x-inngest-event-id-seed": f"{now},{entropy}"}
        # With a seed a repetition has the same internal ids; without, only the same ids of the sender.
        await self._post("/e/bench", body, seed if self._chance.random() < 0.5 else {}, engine)

    async def signal(self, name: str) -> None:
        """Send a signal."""
        await self._post("/v1/signals", {"signal": name, "data": "here it is"}, {}, None)

    async def _post(
        self, path: str, body: object, headers: Mapping[str, str], engine: str | None
    ) -> None:
        deadline = time.monotonic() + SEND_SECONDS
        while True:
            url = self._fleet.url(engine or self._chance.choice(self._fleet.engines))
            try:
                async with self._http.post(url + path, json=body, headers=headers) as response:
                    text = await response.text()
                    if response.status in (200, 404):
                        return
                    if response.status < 500:
                        raise AssertionError(f"{path}: {response.status} {text}")
            except (aiohttp.ClientError, TimeoutError, OSError):
                text = "no answer"
            if time.monotonic() > deadline:
                raise AssertionError(f"{path} was not accepted for {SEND_SECONDS:g} s: {text}")
            await asyncio.sleep(0.1)
