"""What an app tells our engine of its events: the JSON schemas of their classes. Loads no pydantic itself."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from stepbase.protocol.jsontext import dumps
from stepbase.protocol.schemas import MAX_ALL_BYTES, entry
from stepbase.sdk.function import Function

_log = logging.getLogger("stepbase.sdk.registration")


def schemas_of(functions: Iterable[Function[Any]]) -> dict[str, dict[str, dict[str, object]]]:
    """Return the schemas of the events that start or cancel functions, by slug and event name.

    Every function is there, so that one that no longer has any is known to have none.
    """
    room = MAX_ALL_BYTES
    told: dict[str, dict[str, dict[str, object]]] = {}
    for function in _with_failure_handlers(functions):
        events = told.setdefault(function.slug, {})
        for name, model in _models(function):
            if name not in events:
                events[name] = _told(model, room)
                room -= len(dumps(events[name]).encode())
    return told


def _with_failure_handlers(functions: Iterable[Function[Any]]) -> Iterator[Function[Any]]:
    for function in functions:
        yield function
        if function.on_failure is not None:
            yield function.on_failure


def _models(function: Function[Any]) -> Iterator[tuple[str, Any]]:
    for name, model in function.models.items():
        if hasattr(model, "model_json_schema"):
            yield name, model
    for cancel in function.options.cancel_on:
        if hasattr(cancel.event, "model_json_schema"):
            yield cancel.name, cancel.event


def _told(model: Any, room: int) -> dict[str, object]:
    try:
        # As JSON comes in: by alias, with what is read and not what is written.
        return entry(
            model.__name__, model.model_json_schema(by_alias=True, mode="validation"), room
        )
    except Exception as error:  # whatever a user's own type says about itself
        _log.debug("a class has no schema", extra={"model": model.__name__}, exc_info=True)
        return {"model": model.__name__, "note": f"it has no JSON schema: {error!s:.200}"}
