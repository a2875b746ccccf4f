"""`accept_events`: an endpoint for functions-framework that takes events from signed-in users."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast

from stepbase import config
from stepbase.errors import DefinitionError
from stepbase.hosts.asgi import ASGIApp, Receive, Scope, Send, lifespan, to_request
from stepbase.hosts.body import arrived, beginning
from stepbase.hosts.events_endpoint import EventsEndpoint, Rules
from stepbase.sdk.accepting import EventList
from stepbase.sdk.message import Request
from stepbase.sdk.options import RateLimit

if TYPE_CHECKING:
    from flask import Response as FlaskResponse

    from stepbase.sdk.event_data import EventData


class EventsFunction(Protocol):
    """The functions-framework target that `accept_events` returns; `asgi` serves the same elsewhere."""

    asgi: ASGIApp
    __name__: str

    def __call__(self, request: Any) -> Any: ...


def accept_events(
    *events: "type[EventData] | str",
    rate_limit: RateLimit | None = RateLimit(60, timedelta(minutes=1)),  # noqa: B008  # frozen
    max_events: int = 20,
    max_bytes: int = 64 * 1024,
    claims: Sequence[str] = (),
    roles: Sequence[str] = ("authenticated",),
    allow_anonymous: bool = False,
    origins: Sequence[str] | None = None,
) -> EventsFunction:
    """Return a functions-framework target that takes events from signed-in users; export it as ``main``.

    ::

        class RecipeRated(EventData, name="recipe/rated"):
            recipe_id: UUID
            stars: int = Field(ge=1, le=5)

        main = accept_events(RecipeRated)

    Clients post ``{"name": …, "data": …, "id": …}``, or a list of such, with the access token of the user's
    session, and get the events' ids when these are in the outbox. Each event has `user` set:
    ``{"id": …, "role": …}``. `GET …/health` answers as well.

    Args:
        events: What clients may send: event classes, or names for data of any form. Do not list what a row
            trigger or another function emits: whoever receives it could not tell the two apart.
        rate_limit: How many events a user may send in a period; all at once, if they like, and then each
            after its share of the period. None sets no limit.
        max_events: How many events one request may have.
        max_bytes: How large a request may be.
        claims: Further claims of the token that `user` has, such as ``"email"`` or ``"session_id"``.
        roles: The roles (the token's `role`) whose users may send.
        allow_anonymous: Whether users who signed in anonymously may; `user` then says ``is_anonymous``.
        origins: Web origins whose pages may send, as ``"https://app.example.com"``, or ``"*"``; by default
            those of `STEPBASE_ALLOWED_ORIGINS`.

    Raises:
        DefinitionError: If something is declared in a way that cannot work.
    """
    if rate_limit is not None and rate_limit.key is not None:
        raise DefinitionError("accept_events(rate_limit=…) is per user and takes no key")
    if max_events < 1 or max_bytes < 1:
        raise DefinitionError("accept_events(max_events=…, max_bytes=…): both must be at least 1")
    if rate_limit is not None and max_events > rate_limit.limit:
        max_events = rate_limit.limit
    for origin in origins or ():
        if not config.is_web_origin(origin):
            raise DefinitionError(
                f'accept_events(origins=…): {origin!r} is no origin, such as "https://app.example.com"'
            )
    allowed = EventList.of(events, max_events)
    rules = Rules(rate_limit, max_bytes, tuple(claims), tuple(roles), allow_anonymous, origins)
    return _target(EventsEndpoint(allowed, rules))


def _target(endpoint: EventsEndpoint) -> EventsFunction:
    asgi = _asgi(endpoint)

    def main(request: Any) -> Any:
        """Answer one request of the framework."""
        if hasattr(request, "environ"):
            return _flask(endpoint, request)
        return asgi

    main.__qualname__ = "main"
    target = cast(Any, main)
    target.asgi = asgi
    return cast(EventsFunction, target)


def _asgi(endpoint: EventsEndpoint) -> ASGIApp:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"this endpoint answers HTTP, not {scope['type']}")
        body = await arrived(receive, endpoint.max_bytes + 1)
        response = await endpoint.ahandle(to_request(scope, body))
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        if response.status != 204:
            headers.append((b"content-length", str(len(response.body)).encode()))
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        await send(start)
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})

    return application


def _flask(endpoint: EventsEndpoint, request: Any) -> "FlaskResponse":
    from flask import Response as FlaskResponse

    response = endpoint.handle(
        Request(
            method=request.method,
            url=request.base_url,
            query=request.query_string.decode("latin-1"),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=beginning(request.stream, endpoint.max_bytes + 1),
            raw=request,
        )
    )
    return FlaskResponse(response.body, response.status, response.headers)
