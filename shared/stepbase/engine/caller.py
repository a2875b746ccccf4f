"""HTTP from the engine to functions: one POST, one decoded reply."""

from collections.abc import Mapping
from typing import Self

import aiohttp

from stepbase import clock
from stepbase.errors import ProtocolError
from stepbase.protocol import names, signing
from stepbase.protocol.reply import NoAnswer, Reply, decode_reply


class Caller:
    """Calls functions over kept-alive connections; signs when there are keys."""

    def __init__(
        self, session: aiohttp.ClientSession, signing_key: str | None, server_kind: str
    ) -> None:
        self._session = session
        self._key = signing_key
        self._kind = server_kind

    @classmethod
    async def open(
        cls, *, signing_key: str | None, server_kind: str, timeout: float, limit: int
    ) -> Self:
        """Make a caller; must be called on the loop that uses it."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=4.0, ttl_dns_cache=30),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=10.0),
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=False,
        )
        return cls(session, signing_key, server_kind)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def call(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> Reply | ProtocolError:
        """Post a call and decode what comes back; a broken reply is returned, not raised."""
        try:
            status, got, answer = await self._request("POST", url, body, headers)
        except aiohttp.InvalidURL as error:
            return NoAnswer(f"the function's URL {url!r} is not valid: {error}", is_outage=False)
        except (aiohttp.ClientPayloadError, ValueError) as error:
            return NoAnswer(f"the reply could not be read: {error}", is_outage=False)
        except (aiohttp.ClientError, OSError) as error:
            return NoAnswer(
                f"{url.partition('?')[0]} does not answer: {type(error).__name__}: {error}",
                is_outage=True,
            )
        except TimeoutError:
            return NoAnswer("the function did not answer in time", is_outage=False)
        try:
            return decode_reply(status, got, answer)
        except ProtocolError as error:
            return error

    async def sync(self, url: str) -> tuple[int, bytes]:
        """Ask an app to register itself (`PUT`); return the status and body of its answer.

        Raises:
            OSError: If nothing answers there.
        """
        body = signing.canonical_json(b'{"url":"' + url.encode() + b'"}')
        try:
            status, _, answer = await self._request(
                "PUT", url, body, {names.SERVER_KIND: self._kind}
            )
        except aiohttp.ClientError as error:
            raise OSError(f"{url} does not answer: {error}") from error
        return status, answer

    async def _request(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        sent = {"content-type": "application/json", "user-agent": "stepbase", **headers}
        if self._key is not None:
            body = signing.canonical_json(body)
            sent[names.SIGNATURE] = signing.sign(body, self._key, clock.now_s())
        async with self._session.request(
            method, url, data=body, headers=sent, allow_redirects=False
        ) as response:
            answer = await self._read(response)
            got = {key.lower(): value for key, value in response.headers.items()}
            return response.status, got, answer

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read the body, but not beyond the limit by which the reply is refused."""
        limit = names.MAX_REPLY_BYTES + 1
        if (response.content_length or 0) < limit and response.content_length is not None:
            return await response.read()
        chunks, size = [], 0
        async for chunk in response.content.iter_chunked(1 << 16):
            chunks.append(chunk.lstrip() if not size and response.status == 201 else chunk)
            size += len(chunks[-1])
            if size >= limit:
                response.close()
                break
        return b"".join(chunks)
