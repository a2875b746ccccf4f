"""Answers on the wire: status, headers and bytes for each outcome of a call."""

from stepbase.config import InngestConfig
from stepbase.errors import ProtocolError, SignatureError
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.sdk.ask import origin_headers
from stepbase.sdk.execution import Outcome, Reported, Returned
from stepbase.sdk.fault import Fault
from stepbase.sdk.message import Response
from stepbase.sdk.ops import ops_text

_OF_A_DEPLOY = frozenset({"function_not_found", "signing_key_missing"})
"""Old code that does not know a new function yet, or the other way round; a key not yet there."""


def server_kind(settings: InngestConfig) -> str:
    """Return the word for the mode: dev or cloud."""
    return "dev" if settings.is_dev else "cloud"


def standing_headers(settings: InngestConfig, framework: str) -> dict[str, str]:
    """Return the headers of every response (vector `03-call…`)."""
    return {
        "content-type": "application/json",
        **origin_headers(settings),
        names.REQ_VERSION: str(names.EXECUTION_VERSION),
        names.FRAMEWORK: framework,
        names.EXPECTED_SERVER_KIND: server_kind(settings),
        names.SDK_HANDLED: "true",
    }


def reply(outcome: Outcome) -> Response:
    """Write the answer to a call."""
    if isinstance(outcome, Returned):
        return Response(200, outcome.text.encode())
    if isinstance(outcome, Reported):
        body = ops_text(outcome.ops)
        headers = _retry_headers(outcome)
        if outcome.is_outage:
            headers[names.OUTAGE] = "true"
        return Response(206, body.encode(), headers)
    return raised(outcome.fault)


def raised(fault: Fault) -> Response:
    """Write the answer of a function that failed outside a step."""
    return Response(500, dumps_bytes(fault.error), _retry_headers(fault))


def refusal(error: ProtocolError) -> Response:
    """Write the answer to a request that is none; servers try it again.

    What passes when a deploy or a change of keys is over says so: our engine counts no attempt for it.
    """
    body = {"code": error.code, "message": str(error), "name": type(error).__name__}
    passes = error.status == 503 or isinstance(error, SignatureError) or error.code in _OF_A_DEPLOY
    headers = {names.OUTAGE: "true"} if passes else {}
    return Response(error.status, dumps_bytes(body), headers)


def _retry_headers(outcome: Reported | Fault) -> dict[str, str]:
    headers = {}
    if outcome.no_retry:
        headers[names.NO_RETRY] = "true"
    retry_after = outcome.retry_after
    if retry_after is not None:
        headers[names.RETRY_AFTER] = retry_after
    return headers
