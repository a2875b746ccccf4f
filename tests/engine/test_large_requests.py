"""Requests that would fill the engine's memory are turned away before they do."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.support.engine_client import EngineClient

MIB = 1024 * 1024
LIMIT = 64 * MIB
RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
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
            yield b" " * MIB

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{client.url}/e/test", data=pieces()) as response,
    ):
        assert (response.status, await response.json()) == (413, TOO_MUCH)


async def test_a_body_of_the_allowed_size_is_looked_at(client: EngineClient) -> None:
    status, answer = await client.request("POST", "/e/test", b" " * LIMIT)

    assert status == 400
    assert answer["error"].startswith("the body is not JSON")


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/fn/register", 4 * MIB),
        ("PUT", "/fn/sync", 4 * MIB),
        ("POST", "/invoke/app-f", 3 * MIB),
        ("POST", f"/v1/runs/{RUN}/rerun", 4 * MIB),
        ("POST", "/v1/cancellations", 4 * MIB),
        ("POST", f"/v1/checkpoint/{RUN}/async", 8 * MIB),
        ("POST", "/v1/signals", 4 * MIB),
        ("POST", "/v0/gql", MIB),
    ],
)
async def test_bodies_of_other_requests_have_a_limit_too(
    client: EngineClient, method: str, path: str, limit: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(limit // MIB):
            yield b" " * MIB
        yield b" "

    within, _ = await client.request(method, path, b" " * limit)
    told = await client.request(method, path, b" " * (limit + 1))
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, client.url + path, data=pieces()) as response,
    ):
        untold = response.status, await response.json()

    assert within in (400, 404)
    for status, answer in (told, untold):
        assert (status, answer["status"]) == (413, 413)
        assert answer["error"].endswith(f" may have {limit} bytes")
    assert (await client.request("GET", "/health"))[0] == 200
