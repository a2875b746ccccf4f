"""Names of apps, and what is made of an event's name. Pure."""

import keyword
import re
from dataclasses import dataclass
from typing import Final

from stepbase.protocol.names import INTERNAL_PREFIX
from stepbase.scaffold.errors import ScaffoldError
from stepbase.sdk.trigger import check_event_name

_APP: Final = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_MOST: Final = 63
_EVENT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./:-]*[A-Za-z0-9])?")
_TAKEN: Final = {
    "App",
    "Event",
    "EventData",
    "Cron",
    "Step",
    "SyncStep",
    "app",
    "main",
    "serve",
} | {
    "event",
    "step",
    "greeting",
    "report",
    "scheduled",
}


@dataclass(frozen=True, slots=True)
class Starter:
    """What starts a function, and what the function is then called.

    Attributes:
        name: The event's name, such as ``shop/order.paid``.
        function: The function's id, ``order-paid``.
        handler: The handler's name, ``order_paid``.
        model: The event class, ``OrderPaid``.
    """

    name: str
    function: str
    handler: str
    model: str


def check_app(name: str) -> str:
    """Return the name if an app, its folder and its address can have it.

    It is the app's id for the server, the folder's name, and part of a host name where it is deployed:
    Supabase Compute takes a DNS label (`supabase compute new` says so), an Edge Function begins with a
    letter.

    Raises:
        ScaffoldError: If it cannot; the message names one that can.
    """
    if _APP.fullmatch(name) and len(name) <= _MOST:
        return name
    better = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9]", "-", name.lower())).strip("-")
    better = better.lstrip("0123456789-")[:_MOST].rstrip("-")
    hint = f'; "{better}" would do' if better else ""
    raise ScaffoldError(
        f'"{name}" cannot be the name of an app: it becomes part of a host name, so it is 1 to {_MOST} '
        f"lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen{hint}"
    )


def starter(event: str) -> Starter:
    """Return what to call the function that an event starts.

    Raises:
        ScaffoldError: If events cannot be called that, or if it is a pattern for several.
        DefinitionError: The same, as `App` would say it.
    """
    check_event_name(event, "--event")
    if not _EVENT.fullmatch(event) or event.startswith(INTERNAL_PREFIX):
        raise ScaffoldError(
            '--event: one event\'s name such as "shop/order.paid": letters, digits and . / _ - :, '
            f'no "*", and not beginning with "{INTERNAL_PREFIX}"; got {event!r}'
        )
    last = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", event.rpartition("/")[2])
    words = re.findall(r"[a-z0-9]+", last.lower())
    handler, model = "_".join(words), "".join(word.capitalize() for word in words)
    is_taken = not handler.isidentifier() or keyword.iskeyword(handler) or model in _TAKEN
    if is_taken or handler in _TAKEN:
        words, handler, model = ["on", *words], f"on_{handler}", f"On{model}"
    return Starter(event, "-".join(words), handler, model)


def module(app: str) -> str:
    """Return the app's name as part of a module's name."""
    return app.replace("-", "_")
