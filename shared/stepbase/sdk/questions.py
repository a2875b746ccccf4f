"""The questions of `app.api` as scripts, and the answers as values.

The real server answers some refusals with HTTP 200: what the body says counts for more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from stepbase import config
from stepbase.errors import ApiError, DefinitionError
from stepbase.protocol.jsontext import dumps, dumps_bytes
from stepbase.sdk import typed
from stepbase.sdk.ask import TRIES, Script, ask, is_away, tried
from stepbase.sdk.event import Event, event_name_of, from_payload
from stepbase.sdk.function import Function
from stepbase.sdk.http import Answer


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the server knows it.

    Attributes:
        status: Scheduled, Running, Completed, Failed, Cancelled or Skipped.
        function_id: The server's id of the function, a UUID.
        event_id: The server's id of the event that started it.
        ended_at: When it ended, or None.
        output: What the function returned, or the error object of a run that failed.
    """

    id: str
    status: str
    function_id: str
    event_id: str
    started_at: datetime
    ended_at: datetime | None
    output: Any = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.ended_at is not None


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event as the server received it.

    Attributes:
        internal_id: The server's id of it, which `app.send` returns.
        event: The event; its data is not checked against an event class.
    """

    internal_id: str
    received_at: datetime
    event: Event[Any]


def run(run_id: str) -> Script[Run]:
    """Ask for a run."""
    return _to_run((yield from _data("GET", f"runs/{_part(run_id)}", dict)))


def runs(event_id: str) -> Script[list[Run]]:
    """Ask for the runs an event started."""
    found = yield from _data("GET", f"events/{_part(event_id)}/runs", list)
    return [_to_run(each) for each in found]


def cancel(run_id: str) -> Script[None]:
    """Have a run cancelled."""
    yield from _data("DELETE", f"runs/{_part(run_id)}", object)


def event(event_id: str) -> Script[ReceivedEvent]:
    """Ask for an event."""
    return _to_event((yield from _data("GET", f"events/{_part(event_id)}", dict)))


def events(
    name: Any,
    after: datetime | None,
    before: datetime | None,
    cursor: str | None,
    limit: int,
) -> Script[list[ReceivedEvent]]:
    """Ask for events; see `Api.events`."""
    wanted = {
        "limit": limit,
        "name": event_name_of(name) or name,
        "received_after": _instant(after),
        "received_before": _instant(before),
        "cursor": cursor,
    }
    query = urlencode({key: value for key, value in wanted.items() if value is not None}, safe="/")
    found = yield from _data("GET", f"events?{query}", list)
    return [_to_event(each) for each in found]


def signal(name: str, data: Any) -> Script[str | None]:
    """Have a signal given; see `Api.signal`."""
    text = typed.encode(data, type(data), f'signal "{name}"')
    return (yield from give_signal(name, text))


def give_signal(name: str, text: str, tries: int = TRIES) -> Script[str | None]:
    """Have a signal given, its data as JSON text; returns the run it woke, or None."""
    body = f'{{"signal":{dumps(name)},"data":{text}}}'.encode()
    answer = yield from _answer("POST", "signals", body, tries)
    if answer.status == 404 and "error" in _object(answer):
        return None
    data = _checked(answer, "POST", "signals", dict)
    return str(data["run_id"])


def cancel_runs(
    app_id: str,
    function: Function | str,
    before: datetime,
    after: datetime | None,
    if_: str | None,
) -> Script[str]:
    """Have runs cancelled in bulk; see `Api.cancel_runs`."""
    wanted = {
        "app_id": app_id,
        "function_id": function.id if isinstance(function, Function) else function,
        "started_after": _instant(after),
        "started_before": _instant(before),
        "if": if_,
    }
    body = dumps_bytes({key: value for key, value in wanted.items() if value is not None})
    made = yield from _data("POST", "cancellations", dict, body)
    return str(made.get("id", ""))


def _data(method: str, path: str, kind: type, body: bytes | None = None) -> Script[Any]:
    return _checked((yield from _answer(method, path, body)), method, path, kind)


def _answer(
    method: str, path: str, body: bytes | None = None, tries: int = TRIES
) -> Script[Answer]:
    settings = config.inngest()
    if settings.signing_key is None and not settings.is_dev:
        raise ApiError(
            "no signing key: set INNGEST_SIGNING_KEY, or INNGEST_DEV=1 for the dev server"
        )
    headers = {} if body is None else {"content-type": "application/json"}
    url = f"{settings.api_origin}/v1/{path}"
    return (yield from tried(lambda: ask(method, url, settings, headers, body), tries))


def _checked(answer: Answer, method: str, path: str, kind: type) -> Any:
    """Return an answer's data.

    Raises:
        ApiError: If the server refused, did not answer, or answered something else.
    """
    asked = f"{method} /v1/{path.partition('?')[0]}"
    if answer.status == 0:
        raise ApiError(f"{asked}: {answer.body.decode(errors='replace')}", is_outage=True)
    body = _object(answer)
    problem, told = body.get("error"), body.get("status")
    status = told if problem and isinstance(told, int) else answer.status
    data = body.get("data")
    if not problem and 200 <= status < 300 and isinstance(data, kind):
        return data
    said = problem or answer.body[:200].decode(errors="replace") or "no body"
    hint = "; is INNGEST_SIGNING_KEY that of this server and environment?"
    raise ApiError(
        f"{asked}: HTTP {status}: {said}{hint if status in (401, 403) else ''}",
        status=status,
        is_outage=is_away(answer),
    )


def _object(answer: Answer) -> Mapping[str, Any]:
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}


def _to_run(raw: Mapping[str, Any]) -> Run:
    ended = raw.get("ended_at")
    return Run(
        id=raw["run_id"],
        status=raw["status"],
        function_id=raw["function_id"],
        event_id=raw["event_id"],
        started_at=datetime.fromisoformat(raw["run_started_at"]),
        ended_at=datetime.fromisoformat(ended) if ended else None,
        output=raw.get("output"),
    )


def _to_event(raw: Mapping[str, Any]) -> ReceivedEvent:
    return ReceivedEvent(
        internal_id=raw["internal_id"],
        received_at=datetime.fromisoformat(raw["received_at"]),
        event=from_payload(raw, raw.get("data") or {}),
    )


def _part(text: str) -> str:
    """Return an id as one part of a path."""
    if not isinstance(text, str) or not text:
        raise DefinitionError(f"expected the id of a run or of an event, got {text!r:.80}")
    return quote(text, safe="")


def _instant(when: datetime | None) -> str | None:
    if when is None:
        return None
    if when.tzinfo is None:
        raise DefinitionError(
            "a time needs a timezone: got a naive datetime; use datetime.now(UTC)"
        )
    return when.isoformat()
