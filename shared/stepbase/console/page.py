"""What a handler answers: a template with what it shows, and the same as JSON."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request

from stepbase.console.reads import Reads
from stepbase.engine.api.answers import body_of
from stepbase.engine.app import Engine

_MOST_FORM_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """A page to be shown.

    Attributes:
        template: Its file; the block `live` is what is sent again when it changes.
        title: What the window is called.
        shown: What the template is given.
        data: What `?format=json` answers.
        status: HTTP status.
    """

    template: str
    title: str
    shown: Mapping[str, object] = field(default_factory=dict)
    data: object = None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Desk:
    """What handlers work with."""

    engine: Engine
    reads: Reads


Handler = Callable[[Desk, Request], Awaitable[Page]]


async def form_of(request: Request) -> dict[str, str]:
    """Return what a form of ours sent, the last value of each field; {} if it is too large."""
    body = await body_of(request, _MOST_FORM_BYTES)
    return dict(parse_qsl((body or b"").decode("utf-8", "replace"), keep_blank_values=True))


def not_found(what: str, hint: str) -> Page:
    """Say that something is not there, and where to look."""
    return Page("problem.html", "Not found", {"what": what, "hint": hint}, {"error": what}, 404)
