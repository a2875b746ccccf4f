"""The engine's API as the benchmarks use it."""

import aiohttp


async def post(
    http: aiohttp.ClientSession, engine_url: str, events: list[dict[str, object]]
) -> list[str]:
    """Send events; return their ids."""
    async with http.post(f"{engine_url}/e/bench", json=events) as response:
        answer = await response.json(content_type=None)
        assert response.status == 200, answer
        ids: list[str] = answer["ids"]
        return ids
