"""A client for the engine's API in tests: send, look at runs, wait for them to end."""

import asyncio
import io
import json
from typing import Any

import aiohttp

ENDED = ("Completed", "Failed", "Cancelled", "Skipped")


class EngineClient:
    """Talks to an engine over real HTTP."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None = None) -> None:
        self._session = session
        self.url = url
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def request(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Make a request; return the status and the decoded body (text if it is no JSON)."""
        text = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        raw = text.encode() if isinstance(text, str) else text
        # aiohttp warns of large bodies that are no file.
        data = None if raw is None else io.BytesIO(raw)
        async with self._session.request(
            method, self.url + path, data=data, headers={**self._headers, **(headers or {})}
        ) as response:
            answer = await response.text()
            try:
                return response.status, json.loads(answer)
            except ValueError:
                return response.status, answer

    async def register(self, body: object) -> dict[str, Any]:
        """Sync an app; asserts that it worked."""
        status, answer = await self.request("POST", "/fn/register", body)
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def send(self, *events: object, key: str = "test") -> list[str]:
        """Send events; asserts that they were accepted and returns their internal ids."""
        status, answer = await self.request("POST", f"/e/{key}", list(events))
        assert status == 200, answer
        ids: list[str] = answer["ids"]
        return ids

    async def runs_of(self, event_id: str) -> list[dict[str, Any]]:
        """Return the runs that an event started."""
        status, answer = await self.request("GET", f"/v1/events/{event_id}/runs")
        assert status == 200, answer
        runs: list[dict[str, Any]] = answer["data"]
        return runs

    async def opened(self, event_id: str, kind: str) -> None:
        """Wait until an event's run waits for something of this kind."""
        while True:
            for run in await self.runs_of(event_id):
                _, jobs = await self.request("GET", f"/v1/runs/{run['run_id']}/jobs")
                if any(job["kind"] == kind for job in jobs["data"]):
                    return
            await asyncio.sleep(0.01)

    async def ended(
        self, event_id: str, count: int = 1, seconds: float = 60
    ) -> list[dict[str, Any]]:
        """Wait until an event's runs have ended, and return them."""
        pause = 0.01
        async with asyncio.timeout(seconds):
            while True:
                runs = await self.runs_of(event_id)
                if len(runs) >= count and all(run["status"] in ENDED for run in runs):
                    return runs
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.3)

    async def result(self, event_id: str) -> dict[str, Any]:
        """Wait for the one run of an event to end."""
        runs = await self.ended(event_id)
        assert len(runs) == 1, runs
        return runs[0]
