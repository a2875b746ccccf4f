"""How events, functions and outputs look in GraphQL."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import asyncpg

from stepbase.engine.api.answers import iso
from stepbase.engine.starts import Function
from stepbase.protocol import names
from stepbase.protocol.ids import app_uuid
from stepbase.protocol.jsontext import dumps

Answer = dict[str, object]


def asked(make: Callable[[], object]) -> Callable[[object], object]:
    """Return a field's value that is made when it is first asked for, and once."""
    made = functools.cache(make)
    return lambda _: made()


def parsed(payload: str) -> Answer:
    """Return an event as its sender meant it: without an empty user."""
    event: Answer = json.loads(payload)
    if not event.get("user"):
        event.pop("user", None)
    return event


def text_of(payload: str) -> str:
    """Write an event as its sender meant it."""
    return dumps(parsed(payload))


def happened(event: Mapping[str, object]) -> str:
    """Return the event's own time."""
    ts = event["ts"]
    assert isinstance(ts, int | float)  # every stored event has one
    return iso(datetime.fromtimestamp(ts / 1000, UTC))


def sender_id(row: "asyncpg.Record", event: Mapping[str, object]) -> object:
    """Return the id that the sender gave, or None."""
    return event["id"] if event["id"] != row["id"] else None


def is_internal(event: Mapping[str, object]) -> bool:
    """Say whether it is one of the server's own events."""
    return str(event["name"]).startswith("inngest/")


def schedule_of(event: Mapping[str, object]) -> str | None:
    """Return the schedule that the event is an instant of, or None."""
    data = event.get("data")
    if event.get("name") != names.EVENT_SCHEDULED or not isinstance(data, dict):
        return None
    return str(data.get("cron"))


def status_of(runs: Sequence[str]) -> str:
    """Return what became of an event by the statuses of its runs."""
    failed = sum(status in ("Failed", "Cancelled") for status in runs)
    if not runs:
        return "NO_FUNCTIONS"
    if any(status in ("Scheduled", "Running") for status in runs):
        return "RUNNING"
    if failed == len(runs):
        return "FAILED"
    return "PARTIALLY_FAILED" if failed else "COMPLETED"


def outcome(error: str | None, data: str | None) -> Answer:
    """Write an output; both are JSON text."""
    if error is None:
        return {"input": None, "data": data, "error": None}
    raw = json.loads(error)
    raw = raw if isinstance(raw, dict) else {"message": error}
    cause = raw.get("cause")
    return {
        "input": None,
        "data": None,
        "error": {
            "message": str(raw.get("message", "")),
            **{field: str(raw[field]) for field in ("name", "stack") if raw.get(field) is not None},
            "cause": None if cause is None else dumps(cause),
        },
    }


def function_of(function: Function) -> Answer:
    """Write a function."""
    config = function.config
    app_id = str(app_uuid(function.app_name))
    return {
        "id": str(function.function_id),
        "name": config.name,
        "slug": config.slug,
        "url": config.url,
        "config": asked(lambda: dumps(config.raw)),
        "concurrency": min((each.limit for each in config.limits.concurrency), default=0),
        "triggers": [
            {
                "type": "EVENT" if trigger.cron is None else "CRON",
                "value": trigger.event if trigger.cron is None else trigger.cron,
                "condition": trigger.expression,
            }
            for trigger in config.triggers
        ],
        "appID": app_id,
        "app": {
            "id": app_id,
            "externalID": function.app_name,
            "name": function.app_name,
            "url": config.url.partition("?")[0],
        },
    }
