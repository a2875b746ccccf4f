"""`POST /e/{key}`: events from apps, clients and the official SDKs."""

from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine.api import auth
from stepbase.engine.api.answers import Json, body_of
from stepbase.engine.intake import Intake, Sent
from stepbase.engine.settings import Settings
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol import names
from stepbase.protocol.event import EventIn, decode_event
from stepbase.protocol.jsontext import dumps_bytes, find_unstorable, loads

_MAX_BODY = 64 * 1024 * 1024
_TOO_MUCH = f"a request may have {_MAX_BODY} bytes: send the events in several requests"


async def post_events(request: Request) -> Response:
    """Take one event or a list (vector `api-event-ingest.json`).

    Answers 200 with one internal id per event. The first bad event ends it: 400 with the ids of those
    before it, which are accepted. 401 for an unknown key; 413 for a body over 64 MiB; 503 while the
    database is away (nothing was accepted: send again).
    """
    settings: Settings = request.app.state.settings
    intake: Intake = request.app.state.intake
    if not auth.may_send(request.path_params["key"], settings):
        return Json({"status": 401, "message": "", "error": "Event key not found"}, 401)
    body = await body_of(request, _MAX_BODY)
    if body is None:
        return Json({"ids": [""], "status": 413, "error": _TOO_MUCH}, 413)
    events, problem = _decode(body)
    try:
        ids = await intake.accept(
            [Sent(event) for event in events], seed=request.headers.get(names.EVENT_ID_SEED)
        )
    except StoreError as error:
        if not error.is_transient:
            return Json({"ids": [""], "status": 400, "error": str(error)}, 400)
        return Json(
            {"ids": [""], "status": 503, "error": f"nothing was accepted, send again: {error}"},
            503,
            headers={"retry-after": "1"},
        )
    if problem is not None:
        return Json({"ids": ids or [""], "status": 400, "error": problem}, 400)
    return Json({"ids": ids or [""], "status": 200})


def _decode(body: bytes) -> tuple[list[EventIn], str | None]:
    """Return the events up to the first bad one, and what is wrong with that."""
    try:
        raw = loads(body)
    except (ValueError, RecursionError) as error:
        return [], f"the body is not JSON: {error}"
    listed = raw if isinstance(raw, list) else [raw]
    if len(listed) > names.MAX_EVENTS_PER_REQUEST:
        return [], (
            f"{len(listed)} events in one request, {names.MAX_EVENTS_PER_REQUEST} are allowed: "
            "send them in several requests"
        )
    events: list[EventIn] = []
    # Sizes and characters are only looked at closely if the whole body gives a reason to.
    is_suspect = len(body) > names.MAX_EVENT_BYTES or b"\\u" in body
    for each in listed:
        try:
            if is_suspect:
                _check_text(each)
            events.append(decode_event(each))
        except ProtocolError as error:
            return events, str(error)
    return events, None


def _check_text(event: object) -> None:
    """Refuse what the database could not keep or match: too much, NUL, half a character."""
    try:
        text = dumps_bytes(event)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the event cannot be stored: {error}") from error
    if len(text) > names.MAX_EVENT_BYTES:
        raise ProtocolError(
            f"Event is over the max size: Max {names.MAX_EVENT_BYTES} bytes / Size {len(text)} bytes"
        )
    if b"\\u0000" in text or b"\\ud" in text:
        problem = find_unstorable(event, "event")
        if problem is not None:
            raise ProtocolError(problem)
