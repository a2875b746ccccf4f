"""Requests that the engine makes for functions (`step.fetch`, `step.ai`): op in, outcome of the step out.

It happens between a reply and its decision: a `Gateway` or `AIGateway` op is replaced by the `StepRun`,
`StepError` or `StepFailed` that a function would have reported, so retries and memos need no rules of their
own. Nothing of the request is stored or logged; the key of a model least of all.
"""

import asyncio
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, quote, urljoin, urlsplit

from stepbase.engine import addresses, http1
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps, dumps_bytes, loads
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.reply import Ops

_OPCODES = (Opcode.GATEWAY, Opcode.AI_GATEWAY)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Written by the client itself; one that is given twice would split the request.
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
_SECRET_HEADERS = frozenset({"authorization", "cookie", "x-api-key", "proxy-authorization"})
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request to make; `url` may hold a key, and is never shown."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Gateway:
    """Makes requests.

    Args:
        timeout: Seconds one may take, redirects included.
        private: Whether addresses that are not on the public internet may be reached.
    """

    def __init__(self, *, timeout: float, private: bool) -> None:
        self._timeout = timeout
        self._client = http1.Client(
            max_body=names.MAX_STEP_OUTPUT_BYTES,
            resolve=None if private else addresses.public,
        )

    def close(self) -> None:
        """Close every idle connection."""
        self._client.close()

    async def fulfil(
        self, reply: Ops, known: Container[str], *, request: str | None, is_alone: bool
    ) -> Ops:
        """Make the request that a reply asks for, and put its outcome in its place.

        One beside other steps would hold them up: it is left to an item of its own, whose call asks for
        it again, so that nothing of it is stored.

        Args:
            known: Hashes of the steps that are stored already: their requests are not made again.
            request: The step whose item this is: only what is said of it counts. Or None.
            is_alone: The run waits for nothing else.
        """
        if request is not None:
            reply = replace(reply, ops=tuple(op for op in reply.ops if op.id == request)[:1])
        reply = _without_requests(reply, known)
        asked = [op for op in reply.ops if op.op is not Opcode.NONE]
        if len(asked) != 1 or asked[0].op not in _OPCODES or not (request or is_alone):
            return reply
        done, after = await self._outcome(asked[0])
        return replace(reply, ops=(done,), retry_after=after or reply.retry_after)

    async def _outcome(self, op: Op) -> tuple[Op, str | None]:
        """Return what became of one request, and the Retry-After of an answer that is no success."""
        is_ai = op.op is Opcode.AI_GATEWAY
        try:
            asked = outgoing(op)
        except ValueError as error:
            return _failed(op, str(error)), None
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._send(asked, is_ai=is_ai)
        except addresses.PrivateAddressError as error:
            return _failed(op, str(error)), None
        except ValueError:
            return _failed(op, "the URL or a header cannot be sent"), None
        except TimeoutError:
            return _retriable(op, f"no answer within {self._timeout:g} seconds"), None
        except (OSError, http1.BrokenReplyError) as error:
            return _retriable(op, str(error)), None
        done = outcome(op, response)
        has_failed = done.op is Opcode.STEP_ERROR
        return done, response.headers.get("retry-after") if has_failed else None

    async def _send(self, asked: Outgoing, *, is_ai: bool) -> http1.Response:
        for _ in range(_MAX_REDIRECTS):
            response = await self._client.request(
                asked.method, asked.url, asked.body, asked.headers, timeout=self._timeout
            )
            following = redirected(asked, response)
            if following is None or is_ai:
                return response
            asked = following
        raise http1.BrokenReplyError(f"more than {_MAX_REDIRECTS} redirects")


def _without_requests(reply: Ops, known: Container[str]) -> Ops:
    """Drop requests of steps that are stored: what is left of them changes nothing."""
    ops = tuple(
        replace(op, op=Opcode.STEP_RUN, opts=None) if op.op in _OPCODES and op.id in known else op
        for op in reply.ops
    )
    return replace(reply, ops=ops)


def outgoing(op: Op) -> Outgoing:
    """Return the request an op asks for (vector `gateway-and-ai-outbound-requests.json`).

    Raises:
        ValueError: If it asks for none that can be made; the message shows neither URL nor headers.
    """
    opts = op.opts or {}
    url = opts.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("'url' must be an absolute http(s) URL")
    headers = {"user-agent": "stepbase", **_headers(opts.get("headers"))}
    if op.op is Opcode.AI_GATEWAY:
        return _asking_a_model(opts, url, headers)
    method, body = opts.get("method") or "GET", opts.get("body")
    if not isinstance(method, str) or not _TOKEN.fullmatch(method):
        raise ValueError("'method' must be an HTTP method")
    if method.upper() == "CONNECT":
        raise ValueError("'method' must not be CONNECT")
    if body is not None and not isinstance(body, str):
        raise ValueError("'body' must be text")
    return Outgoing(method.upper(), url, headers, (body or "").encode(errors="replace"))


def _asking_a_model(opts: Mapping[str, object], url: str, headers: dict[str, str]) -> Outgoing:
    key, format_ = opts.get("auth_key") or "", opts.get("format")
    if not isinstance(key, str):
        raise ValueError("'auth_key' must be text")
    headers.setdefault("content-type", "application/json")
    if format_ == "anthropic":
        headers.setdefault("anthropic-version", _ANTHROPIC_VERSION)
    if key and format_ == "gemini":
        url = _with_key(url, key)
    elif key and format_ == "anthropic":
        headers["x-api-key"] = key
    elif key:
        headers["authorization"] = key if format_ == "bedrock" else f"Bearer {key}"
    body = opts.get("body")
    sent = body.encode(errors="replace") if isinstance(body, str) else dumps_bytes(body)
    return Outgoing("POST", url, headers, sent)


def _with_key(url: str, key: str) -> str:
    query = urlsplit(url).query
    if "key" in parse_qs(query):  # the official adapters have put it there themselves
        return url
    return url + ("&" if query else "?") + "key=" + quote(key, safe="")


def _headers(given: object) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError("'headers' must be a JSON object")
    headers: dict[str, str] = {}
    for name, value in given.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if not _TOKEN.fullmatch(name) or any(c in text for c in "\r\n\x00"):
            raise ValueError("a header has a name or a value that cannot be sent")
        if name.lower() not in _OWN_HEADERS:
            headers[name.lower()] = text
    return headers


def redirected(asked: Outgoing, response: http1.Response) -> Outgoing | None:
    """Return the request that a redirect asks for, or None if the answer is none.

    Another origin does not get what was meant for the first one: keys, tokens and cookies.
    """
    where = response.headers.get("location")
    if response.status not in _REDIRECTS or not where:
        return None
    url = urljoin(asked.url, where)
    headers = dict(asked.headers)
    before, after = urlsplit(asked.url), urlsplit(url)
    if (before.scheme, before.netloc) != (after.scheme, after.netloc):
        headers = {name: text for name, text in headers.items() if name not in _SECRET_HEADERS}
    if response.status in (307, 308) or asked.method in ("GET", "HEAD"):
        return replace(asked, url=url, headers=headers)
    headers.pop("content-type", None)
    return Outgoing("GET", url, headers, b"")


def outcome(op: Op, response: http1.Response) -> Op:
    """Return what an answer makes of its step (vector `stub-sdk-odd-replies.json`)."""
    text = response.body.decode(errors="replace")
    if len(response.body) > names.MAX_STEP_OUTPUT_BYTES:
        return _failed(op, f"the answer is larger than {names.MAX_STEP_OUTPUT_BYTES} bytes")
    is_ai = op.op is Opcode.AI_GATEWAY
    if not 200 <= response.status < 300:
        return _retriable(op, f"unsuccessful status code: {response.status}", text)
    data: object = {
        "url": (op.opts or {}).get("url"),
        "headers": {_title(name): value for name, value in response.headers.items()},
        "body": text,
        "status_code": response.status,
    }
    if is_ai:
        try:
            data = loads(text)
        except (ValueError, RecursionError):
            return _retriable(op, "the answer is not JSON", text)
    if len(dumps_bytes(data)) > names.MAX_STEP_OUTPUT_BYTES - 16:
        return _failed(op, f"the answer is larger than {names.MAX_STEP_OUTPUT_BYTES} bytes as JSON")
    return replace(op, op=Opcode.STEP_RUN, data=data, opts=None)


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def _error(op: Op, message: str, answer: str | None) -> Mapping[str, object]:
    is_ai = op.op is Opcode.AI_GATEWAY
    error: dict[str, object] = {
        "name": "AIGatewayError" if is_ai else "GatewayError",
        "message": f"Error making {'AI' if is_ai else 'gateway'} request: {message}",
    }
    if answer:
        error["stack"] = answer[:100_000]
        try:
            error["data"] = loads(answer)
        except (ValueError, RecursionError):
            pass
        if len(dumps(error)) > 1_000_000:
            error.pop("data", None)
    return error


def _retriable(op: Op, message: str, answer: str | None = None) -> Op:
    return replace(op, op=Opcode.STEP_ERROR, error=_error(op, message, answer), opts=None)


def _failed(op: Op, message: str) -> Op:
    return replace(op, op=Opcode.STEP_FAILED, error=_error(op, message, None), opts=None)
