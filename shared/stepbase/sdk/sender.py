"""Sending events: the request, the tries, the answer. Written once as a script."""

import json
import random
from collections.abc import Sequence
from typing import Any

from stepbase import clock
from stepbase.config import InngestConfig
from stepbase.errors import NonRetriableError, SendError
from stepbase.protocol import ids, names
from stepbase.protocol.jsontext import dumps
from stepbase.sdk import typed
from stepbase.sdk.ask import TRIES, Asking, Script, adrive, drive, is_away, origin_headers, tried
from stepbase.sdk.event import Event
from stepbase.sdk.http import Answer, Exchange


class UnsendableError(SendError, NonRetriableError):
    """Events that no server would take: another try cannot help; to users it is a SendError."""

    __module__ = SendError.__module__
    __qualname__ = SendError.__qualname__


UnsendableError.__name__ = SendError.__name__


def send(events: Sequence[Event[Any]], config: InngestConfig) -> list[str]:
    """Send events, blocking; see `script`."""
    return drive(script(events, config))


async def asend(events: Sequence[Event[Any]], config: InngestConfig) -> list[str]:
    """Send events on the running event loop; see `script`."""
    return await adrive(script(events, config))


def script(events: Sequence[Event[Any]], config: InngestConfig) -> Script[list[str]]:
    """Post events as one request, at most five times; returns the server's ids of them.

    Every try carries the same seed, so the server gives the same ids to events it has already taken.

    Raises:
        SendError: If the server refused one, or never answered.
    """
    if not events:
        return []
    if len(events) > names.MAX_EVENTS_PER_REQUEST:
        raise UnsendableError(
            f"{len(events)} events in one send, {names.MAX_EVENTS_PER_REQUEST} are allowed: split them"
        )
    if config.event_key is None and not config.is_dev:
        raise SendError("no event key: set INNGEST_EVENT_KEY, or INNGEST_DEV=1 for the dev server")
    exchange = _exchange(events, config)

    def once() -> Asking:
        return (yield exchange)

    return _ids((yield from tried(once)))


def _exchange(events: Sequence[Event[Any]], config: InngestConfig) -> Exchange:
    body = "[" + ",".join(_event_text(event) for event in events) + "]"
    seed = ids.event_id_seed(clock.now_ms(), random.randbytes(10))
    headers = {
        **origin_headers(config),
        "content-type": "application/json",
        names.EVENT_ID_SEED: seed,
    }
    url = f"{config.event_origin}/e/{config.event_key or names.NO_EVENT_KEY}"
    return Exchange("POST", url, headers, body.encode())


def plain_copy(event: Event[Any]) -> Event[Any]:
    """Return the event with its payload as a plain dict, free to be changed.

    Raises:
        SendError: If the payload is no JSON object.
    """
    return Event(
        event.name,
        json.loads(_data_text(event)),
        id=event.id,
        ts=event.ts,
        user=dict(event.user),
        v=event.v,
    )


def _data_text(event: Event[Any]) -> str:
    """Write a payload; it obeys the same rules as a step's result."""
    try:
        data = typed.encode(event.data, type(event.data), f'event "{event.name}"')
    except Exception as error:
        raise UnsendableError(str(error).replace("returned a value", "has a payload")) from error
    if not data.startswith("{"):
        raise UnsendableError(
            f'event "{event.name}": its data must be a JSON object, got {data:.60}'
        )
    return data


def _event_text(event: Event[Any]) -> str:
    data = _data_text(event)
    fields: dict[str, Any] = {"name": event.name, "ts": int(event.ts.timestamp() * 1000)}
    if event.id:
        fields["id"] = event.id
    if event.user:
        fields["user"] = dict(event.user)
    if event.v is not None:
        fields["v"] = event.v
    text = f'{dumps(fields)[:-1]},"data":{data}}}'
    if len(text.encode()) > names.MAX_EVENT_BYTES:
        raise UnsendableError(
            f'event "{event.name}" has {len(text.encode())} bytes, {names.MAX_EVENT_BYTES} are allowed '
            "(256 KiB on some Inngest plans): store the data and send a reference"
        )
    return text


def _ids(answer: Answer) -> list[str]:
    if answer.status == 0:
        raise SendError(
            f"events not sent after {TRIES} tries: {answer.body.decode()}", is_outage=True
        )
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    found = body.get("ids") if isinstance(body, dict) else None
    accepted = [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
    problem = body.get("error") if isinstance(body, dict) else None
    if problem or not 200 <= answer.status < 300 or found is None:
        shown = problem or answer.body[:200].decode(errors="replace")
        raise SendError(
            f"the server refused an event (HTTP {answer.status}): {shown}",
            ids=tuple(filter(None, accepted)),
            status=answer.status,
            is_outage=is_away(answer),
        )
    return accepted
