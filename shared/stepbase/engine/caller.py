"""HTTP from the engine to functions: one POST, one decoded reply."""

from collections.abc import Mapping
from dataclasses import dataclass

from stepbase import clock
from stepbase.engine import http1
from stepbase.errors import ProtocolError, SignatureError
from stepbase.protocol import names, signing
from stepbase.protocol.reply import NoAnswer, Reply, decode_reply

_SYNC_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """What an app answered to a sync: its functions if `is_in_band`, else what became of it."""

    status: int
    body: bytes
    is_in_band: bool


class Caller:
    """Calls functions over kept-alive connections; signs when there is a key.

    Args:
        timeout: Seconds one call may take.
    """

    def __init__(self, *, signing_key: str | None, server_kind: str, timeout: float) -> None:
        self._client = http1.Client(max_body=names.MAX_REPLY_BYTES)
        self._key = signing_key
        self._kind = server_kind
        self._timeout = timeout

    async def close(self) -> None:
        """Close every idle connection."""
        self._client.close()

    async def call(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> Reply | ProtocolError:
        """Post a call and decode what comes back; a broken reply is returned, not raised."""
        try:
            response = await self._send("POST", url, body, headers, self._timeout)
        except ValueError as error:
            return NoAnswer(f"the function cannot be called: {error}", is_outage=False)
        except http1.BrokenReplyError as error:
            return NoAnswer(f"the reply could not be read: {error}", is_outage=False)
        except TimeoutError:
            return NoAnswer(
                f"the function did not answer within {self._timeout:g} seconds", is_outage=False
            )
        except OSError as error:
            return NoAnswer(f"{url.partition('?')[0]} does not answer: {error}", is_outage=True)
        try:
            return decode_reply(response.status, response.headers, response.body)
        except ProtocolError as error:
            return error

    async def sync(self, url: str) -> SyncAnswer:
        """Ask an app for its functions (`PUT`): with a key in the answer, else it is to register.

        Raises:
            OSError: If nothing (that speaks HTTP) answers there.
            ValueError: If the URL is none.
            ProtocolError: If its functions are in the answer, and that is not signed with our key.
        """
        body = b'{"url":"' + url.encode() + b'"}'
        headers = {names.SERVER_KIND: self._kind, names.OURS: names.ENGINE}
        if self._key is not None:
            headers[names.SYNC_KIND] = names.IN_BAND
        try:
            response = await self._send("PUT", url, body, headers, _SYNC_SECONDS)
        except http1.BrokenReplyError as error:
            raise OSError(f"{url}: {error}") from error
        has_functions = (
            response.status == 200 and response.headers.get(names.SYNC_KIND) == names.IN_BAND
        )
        if self._key is None or not has_functions:
            # Without a key it was not asked for functions, and any in the answer are nobody's word.
            return SyncAnswer(response.status, response.body, is_in_band=False)
        # Who registers by a request of its own has to know the key too.
        header = response.headers.get(names.SIGNATURE)
        try:
            signing.verify(header, response.body, (self._key,), clock.now_s())
        except SignatureError as error:
            raise ProtocolError(
                f"{url} answered with functions, but not with this engine's signature: is its "
                "INNGEST_SIGNING_KEY ours, and is its clock right?",
                status=error.status,
                code=error.code,
            ) from error
        return SyncAnswer(response.status, response.body, is_in_band=True)

    async def inspect(self, url: str) -> tuple[int, bytes]:
        """Ask an app what it is (`GET`); return the status and body of its answer.

        Raises:
            OSError: If nothing (that speaks HTTP) answers there in time.
            ValueError: If the URL is none.
        """
        headers = {names.SERVER_KIND: self._kind, "accept": "*/*", "user-agent": names.ENGINE_AGENT}
        if self._key is not None:
            headers[names.SIGNATURE] = signing.sign(b"", self._key, clock.now_s())
        try:
            response = await self._client.request("GET", url, b"", headers, timeout=self._timeout)
        except http1.BrokenReplyError as error:
            raise OSError(str(error)) from error
        return response.status, response.body

    async def _send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> http1.Response:
        sent = {
            "content-type": "application/json",
            "accept": "*/*",
            "user-agent": names.ENGINE_AGENT,
            **headers,
        }
        if self._key is not None:
            body = signing.canonical_json(body)
            sent[names.SIGNATURE] = signing.sign(body, self._key, clock.now_s())
        return await self._client.request(method, url, body, sent, timeout=timeout)
