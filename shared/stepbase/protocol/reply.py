"""Replies: what came back from a function, decoded into one of four outcomes.

Precedence (vector `stub-sdk-odd-replies.json`): no SDK header → the host answered, not the
function; 201 → unwrap the stream and start again; 206 → ops; `x-inngest-no-retry: true` on any
status → failed; other 2xx → the run's output; anything else → a function-level error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps, loads
from stepbase.protocol.op import Op, decode_op


@dataclass(frozen=True, slots=True)
class Output:
    """The function returned.

    Attributes:
        text: Its value as JSON text ("null" for an empty body; a body that is no JSON is a string).
        version: Execution version the SDK speaks, or None.
    """

    text: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Ops:
    """The function asks for something.

    Attributes:
        no_retry: True if a StepError here is final.
        retry_after: The Retry-After header as received, or None.
        is_outage: True if a StepError here means that what the step called is away.
    """

    ops: tuple[Op, ...]
    no_retry: bool
    retry_after: str | None
    version: int | None = None
    is_outage: bool = False


@dataclass(frozen=True, slots=True)
class FunctionError:
    """The function failed outside a step.

    Attributes:
        error: The error object as sent, or one made of the body.
        status: HTTP status.
        no_retry: True if there must be no further attempt.
        retry_after: The Retry-After header as received, or None.
    """

    error: Mapping[str, object]
    status: int
    no_retry: bool = False
    retry_after: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The function did not answer: nothing listens, a proxy answered, the connection broke.

    Attributes:
        message: What was seen, for the attempt's record.
        is_outage: True if the host is away or starting (refused, reset, 502, 503, 504), or refuses by
            what passes (an app of ours says so), which costs no attempt for a while; False if
            something answers there that is no SDK.
        status: HTTP status, or None if there was none.
    """

    message: str
    is_outage: bool
    status: int | None = None


Reply = Output | Ops | FunctionError | NoAnswer

_REFUSED = (
    "the app refused the call's signature (HTTP 401): its INNGEST_SIGNING_KEY is not the engine's, or "
    "one of the two clocks is wrong"
)


def decode_reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Decode an HTTP response; `headers` has lower-case names.

    Raises:
        ProtocolError: If a reply that carries the SDK header breaks the protocol (206 without ops,
            an unknown opcode, too many ops, a body over the limit); the run cannot go on with it.
    """
    if names.SDK not in headers:
        # The one header that official SDKs leave on a refusal.
        is_refusal = status == 401 and names.SDK_HANDLED in headers
        return NoAnswer(_REFUSED, False, status) if is_refusal else _not_an_sdk(status, body)
    if len(body) > names.MAX_REPLY_BYTES:
        raise ProtocolError(
            f"the reply has {len(body)} bytes, {names.MAX_REPLY_BYTES} are allowed: "
            "return less, or store it and return a reference",
            code="reply_too_large",
        )
    if status == 201:
        return decode_reply(*_unwrap_stream(headers, body))
    version = _version(headers.get(names.REQ_VERSION))
    no_retry = headers.get(names.NO_RETRY, "").lower() == "true"
    retry_after = headers.get(names.RETRY_AFTER)
    if status == 206:
        is_outage = headers.get(names.OUTAGE, "").lower() == "true"
        return Ops(_decode_ops(body), no_retry, retry_after, version, is_outage)
    if 200 <= status < 300 and not no_retry:
        return Output(_json_text(body), version)
    if status >= 400 and headers.get(names.OUTAGE, "").lower() == "true":
        # A 2xx has an outcome; the app says of this one that it passes by itself.
        return NoAnswer(_said(status, body), is_outage=True, status=status)
    return FunctionError(_error_object(status, body), status, no_retry, retry_after, version)


def _not_an_sdk(status: int, body: bytes) -> NoAnswer:
    start = body[:120].decode(errors="replace").strip()
    if 200 <= status < 300:
        return NoAnswer(
            f"HTTP {status} without the {names.SDK} header: the URL is answered by something that "
            f"is not an app's serve endpoint; check the synced URL (body starts {start!r})",
            is_outage=False,
            status=status,
        )
    return NoAnswer(
        f"Your server returned HTTP {status} before the SDK responded (body starts {start!r})",
        is_outage=status in names.AWAY,
        status=status,
    )


def _unwrap_stream(headers: Mapping[str, str], body: bytes) -> tuple[int, Mapping[str, str], bytes]:
    try:
        wrapper: Any = loads(body)
        status = int(wrapper["status"])
        inner = wrapper.get("body")
        inside = (inner if isinstance(inner, str) else dumps(inner)).encode(errors="replace")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ProtocolError(
            f'a 201 reply must end in {{"status", "headers", "body"}}: {error}'
        ) from error
    if status == 201:
        raise ProtocolError("a 201 reply wraps another 201")
    given = wrapper.get("headers")
    more = {str(k).lower(): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    return status, {**headers, **more}, inside


def _version(text: str | None) -> int | None:
    is_small = text is not None and text.isascii() and text.isdigit() and len(text) <= 4
    return int(text) if text is not None and is_small else None


def _decode_ops(body: bytes) -> tuple[Op, ...]:
    if not body.strip():
        raise ProtocolError("a 206 reply has no body: expected a list of ops", code="no_ops")
    try:
        raw = loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a 206 reply is not JSON: {error}", code="bad_ops") from error
    if isinstance(raw, dict):
        raw = [raw]
    if not isinstance(raw, list):
        raise ProtocolError(f"a 206 reply must be a list of ops, got {raw!r:.60}", code="bad_ops")
    if len(raw) > names.MAX_OPS_PER_REPLY:
        raise ProtocolError(
            f"a reply has {len(raw)} ops, {names.MAX_OPS_PER_REPLY} are allowed: "
            "split the work over several functions with step.send_event",
            code="too_many_ops",
        )
    return tuple(decode_op(each, f"[{i}]") for i, each in enumerate(raw))


def _json_text(body: bytes) -> str:
    if not body:
        return "null"
    text = body.decode(errors="replace")
    try:
        loads(text)
    except (ValueError, RecursionError):
        return dumps(text)
    return text


def _said(status: int, body: bytes) -> str:
    """Return what the body of a refusal says."""
    message = _error_object(status, body).get("message")
    return str(message)[:500] if message else body[:500].decode(errors="replace")


def _error_object(status: int, body: bytes) -> Mapping[str, object]:
    if not body.strip():
        return {"name": "Error", "message": f"HTTP {status} without a body"}
    try:
        raw = loads(body)
    except (ValueError, RecursionError):
        raw = body[:2000].decode(errors="replace")
    if isinstance(raw, dict):
        return raw
    return {"name": "Error", "message": raw if isinstance(raw, str) else dumps(raw)}
