"""What a client may send: the list of allowed events, and the reading of a request's body. Pure.

A client chooses an event's name, data and id, and nothing else. The name must be on the list, the data must
satisfy the event's model and are sent on as the model has them: what it does not know is left out. The id
becomes the user's own, so nobody can keep another's event from starting its run by sending the id first;
it becomes a digest, because ids stay where a user's data have been forgotten.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast

from stepbase.errors import DefinitionError, SendError
from stepbase.protocol import names
from stepbase.sdk.event import Event, event_name_of
from stepbase.sdk.sender import plain_copy
from stepbase.sdk.trigger import check_event_name

_FIELDS: Final = frozenset({"name", "data", "id"})
_SET_HERE: Final = {
    "user": "it is taken from the token",
    "ts": "it is the time of arrival",
    "v": "it is the server's to set",
}
_MOST_ID: Final = 512
_MOST_FIELDS: Final = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a field of a request: ``"[2].data.stars"``."""

    field: str
    error: str


class Refusal(Exception):
    """A request that is answered with an error; the message is for whoever wrote the client.

    Attributes:
        status: The HTTP status.
        code: A short word; docs/signed-in-users.md lists them.
        problems: What is wrong, by field, where that is known.
        headers: What the answer has beside.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        problems: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.problems = problems
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class EventList:
    """The events that clients may send: their models by name, None for data of any form."""

    models: Mapping[str, type[Any] | None] = field(repr=False)
    most: int

    @classmethod
    def of(cls, types: Sequence[object], most: int) -> "EventList":
        """Build it from event classes and names.

        Args:
            most: How many events one request may have.

        Raises:
            DefinitionError: If something is no event, or is listed twice.
        """
        if not types:
            raise DefinitionError(
                "accept_events() needs the events that clients may send: accept_events(PageViewed, …)"
            )
        models: dict[str, type[Any] | None] = {}
        for each in types:
            name = each if isinstance(each, str) else event_name_of(each)
            if name is None:
                raise DefinitionError(
                    f'accept_events({each!r:.60}): expected a class with class …(EventData, name="…"), or '
                    "an event's name"
                )
            _check_name(name)
            if name in models:
                raise DefinitionError(f'accept_events: "{name}" is listed twice')
            models[name] = None if isinstance(each, str) else cast(type[Any], each)
        return cls(models, most)

    def read(self, body: bytes, user_id: str) -> list[dict[str, Any]]:
        """Return the events of a request as `public.stepbase_accept` takes them: all of them, or none.

        Raises:
            Refusal: If one is not allowed; the message names the field.
        """
        given = _json(body)
        is_list = isinstance(given, list)
        items = given if isinstance(given, list) else [given]
        if not items:
            raise Refusal("the list has no events", code="invalid_event", status=400)
        if len(items) > self.most:
            raise Refusal(
                f"{len(items)} events in one request, {self.most} are allowed: split them",
                code="too_many_events",
                status=413,
            )
        return [
            self._event(item, f"[{i}]." if is_list else "", user_id) for i, item in enumerate(items)
        ]

    def _event(self, item: Any, where: str, user_id: str) -> dict[str, Any]:
        if not isinstance(item, dict):
            _invalid(where.rstrip(".") or "body", 'an event is an object with "name" and "data"')
        for name in item.keys() - _FIELDS:
            _invalid(where + name[:80], _SET_HERE.get(name, "an event has no such field"))
        name, own_id = item.get("name"), item.get("id")
        if not isinstance(name, str):
            _invalid(f"{where}name", "it must be the name of an event, as text")
        if name not in self.models:
            raise Refusal(
                f"{where}name: clients may not send this event; allowed: {', '.join(self.models)}",
                code="event_not_allowed",
                status=403,
                problems=[Problem(f"{where}name", "clients may not send this event")],
            )
        if own_id is not None and (not isinstance(own_id, str) or not 0 < len(own_id) <= _MOST_ID):
            _invalid(f"{where}id", f"it must be text of 1 to {_MOST_ID} characters")
        event = {"name": name, "data": self._data(name, item.get("data", {}), f"{where}data")}
        if own_id is not None:
            event["id"] = own_event_id(user_id, name, own_id)
        return event

    def _data(self, name: str, given: Any, where: str) -> Any:
        if not isinstance(given, dict):
            _invalid(where, "it must be an object")
        model = self.models[name]
        data = given if model is None else _validated(model, given, where)
        try:
            return plain_copy(Event(name, data)).data
        except SendError as error:
            message = str(error).partition(": ")[2] or str(error)
            raise _wrong_data([Problem(where, message)]) from error


def own_event_id(user_id: str, name: str, own_id: str) -> str:
    """Return the id of a user's event: ``"user-"`` and 128 bits of SHA-256, in hex.

    It is the digest of the JSON array of the three, so no two of them run into each other.
    """
    text = json.dumps([user_id, name, own_id])
    return f"user-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _check_name(name: str) -> None:
    check_event_name(name, "accept_events")
    if name.startswith(names.INTERNAL_PREFIX) or "*" in name:
        raise DefinitionError(
            f'accept_events: "{name}" cannot be sent: names beginning with "{names.INTERNAL_PREFIX}" are '
            "the server's, and * is for triggers"
        )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_not_json)
    except (ValueError, RecursionError):
        raise Refusal(
            'the body is not JSON: send {"name": "…", "data": {…}}, or a list of such',
            code="invalid_json",
            status=400,
        ) from None


def _not_json(word: str) -> NoReturn:
    raise ValueError(word)


def _validated(model: type[Any], given: dict[str, Any], where: str) -> Any:
    from pydantic import ValidationError

    try:
        # As JSON, for models that are strict: a UUID is text there.
        return model.model_validate_json(json.dumps(given))
    except ValidationError as error:
        # Never with what was given: messages end up in logs of others.
        found = error.errors(include_url=False, include_context=False, include_input=False)
        problems = [Problem(where + _path(each["loc"]), each["msg"]) for each in found]
        raise _wrong_data(problems) from None


def _path(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _wrong_data(problems: Sequence[Problem]) -> Refusal:
    first, more = problems[0], len(problems) - 1
    message = f"{first.field}: {first.error}" + (f" (and {more} more)" if more else "")
    return Refusal(message, code="invalid_data", status=422, problems=problems[:_MOST_FIELDS])


def _invalid(field_name: str, error: str) -> NoReturn:
    raise Refusal(
        f"{field_name}: {error}",
        code="invalid_event",
        status=400,
        problems=[Problem(field_name, error)],
    )
