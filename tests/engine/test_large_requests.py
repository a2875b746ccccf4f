"""Requests that would fill the engine's memory are turned away before they do."""

from collections.abc import AsyncIterator

import aiohttp
from tests.support.engine_client import EngineClient

LIMIT = 64 * 1024 * 1024
TOO_MUCH = {
    "ids": [""],
    "status": 413,
    "error": "a request may have 67108864 bytes: send the events in several requests",
}


async def test_a_body_over_64_mebibytes_is_refused_by_its_length(client: EngineClient) -> None:
    assert await client.request("POST", "/e/test", b" " * (LIMIT + 1)) == (413, TOO_MUCH)


async def test_a_body_without_a_length_is_read_no_further_than_it_may_go(
    client: EngineClient,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b" " * (1024 * 1024)

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{client.url}/e/test", data=pieces()) as response,
    ):
        assert (response.status, await response.json()) == (413, TOO_MUCH)


async def test_a_body_of_the_allowed_size_is_looked_at(client: EngineClient) -> None:
    status, answer = await client.request("POST", "/e/test", b" " * LIMIT)

    assert status == 400
    assert answer["error"].startswith("the body is not JSON")
