"""The console's routes on an engine's own HTTP server, and how pages leave it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from stepbase import clock
from stepbase.console import render
from stepbase.console.access import TOKEN_FIELD, TOKEN_HEADER, Access
from stepbase.console.actions import ACTIONS, Action, Done, audit, redacted
from stepbase.console.page import Desk, Handler, Page, form_of
from stepbase.console.pages import (
    again,
    backlog,
    event,
    events,
    functions,
    home,
    runs,
    send,
    types,
)
from stepbase.console.reads import Reads
from stepbase.engine.app import Engine
from stepbase.errors import StoreError

# No script, style or picture but our own files; nobody may frame us; forms come back to us.
_HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'self'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "txt": "text/plain"}
_NAV = (
    ("/", "Home"),
    ("/runs", "Runs"),
    ("/events", "Events"),
    ("/event-types", "Event types"),
    ("/functions", "Functions"),
    ("/apps", "Apps"),
    ("/waiting", "Waiting"),
    ("/outbox", "Outbox"),
)
_TOLD = "stepbase_told"
_LOOK_SECONDS = 0.5
_WATCHED_SECONDS = 600.0
_WATCHERS = 16

PAGES: dict[str, Handler] = {
    "/": home.home,
    "/runs": runs.runs,
    "/runs/{run_id}": runs.run,
    "/runs/{run_id}/part": runs.part,
    "/runs/{run_id}/again": again.again,
    "/events": events.events,
    "/events/{event_id}": event.event,
    "/events/{event_id}/payload": event.payload,
    "/event-types": types.types,
    "/event-types/{name:path}": types.event_type,
    "/send": send.send,
    "/functions": functions.functions,
    "/functions/{slug:path}": functions.function,
    "/apps": functions.apps,
    "/outbox": backlog.outbox,
    "/waiting": backlog.waiting,
}


class Console:
    """The console of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._access = Access.of(engine.settings)
        self._secrets = engine.settings.secrets
        self._desk = Desk(engine, Reads(engine.settings.database_url, self._secrets))
        self._render = render.Renderer()
        self._watchers = 0

    def routes(self) -> list[Route]:
        """Return its routes, for the engine's application."""
        pages = [Route(path, self._shown(handler)) for path, handler in PAGES.items()]
        actions = [
            Route(path, self._acted(action), methods=["POST"]) for path, action in ACTIONS.items()
        ]
        return [
            *actions,
            *pages,
            Route("/static/{name}", self._static),
            Route("/sign-in", self._sign_in, methods=["GET", "POST"]),
        ]

    async def close(self) -> None:
        """Let go of the database."""
        await self._desk.reads.close()

    def _shown(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def shown(request: Request) -> Response:
            if not self._access.may_look(request):
                return self._refused(request)
            if request.query_params.get("live") == "1":
                return self._live(handler, request)
            page = await self._ask(handler, request)
            if request.query_params.get("format") == "json":
                return _json(page.data, page.status)
            return self._html(page, request)

        return shown

    def _acted(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def acted(request: Request) -> Response:
            form = await form_of(request)
            token = request.headers.get(TOKEN_HEADER) or form.get(TOKEN_FIELD, "")
            if not self._access.may_act(request, token):
                hint = "Go back, load the page again, and repeat what you did."
                shown = {"what": "This did not come from a page of ours", "hint": hint}
                return self._html(Page("problem.html", "Refused", shown, status=403), request)
            try:
                done = await action(self._desk, request, form)
            except StoreError as error:
                done = Done("/", f"the database refused or did not answer: {error}")
            done = redacted(done, self._secrets)
            audit(request, done)
            if done.page is not None:
                return self._html(done.page, request)
            answer = RedirectResponse(done.to, 303, _HEADERS)
            told = f"problem:{done.problem}" if done.problem else f"done:{done.said}"
            answer.set_cookie(
                _TOLD, quote(told[:1000]), max_age=30, httponly=True, samesite="strict"
            )
            return answer

        return acted

    async def _ask(self, handler: Handler, request: Request) -> Page:
        try:
            return await handler(self._desk, request)
        except StoreError as error:
            shown = {"what": "The database could not be read", "hint": str(error)}
            return Page("problem.html", "No answer", shown, {"error": str(error)}, 503)

    def _html(self, page: Page, request: Request) -> Response:
        text = self._render.page(page, self._surroundings(request))
        answer = Response(text, page.status, _HEADERS, "text/html")
        if _TOLD in request.cookies:
            answer.delete_cookie(_TOLD, httponly=True, samesite="strict")
        return answer

    def _surroundings(self, request: Request) -> dict[str, object]:
        return {
            "path": request.url.path,
            "query": request.url.query,
            "nav": _NAV,
            "csrf": self._access.token(request),
            "csrf_field": TOKEN_FIELD,
            "csrf_header": TOKEN_HEADER,
            "told": _told(request),
            "is_dev": self._desk.engine.settings.is_dev,
            "now": clock.utcnow(),
        }

    def _refused(self, request: Request) -> Response:
        if request.query_params.get("format") == "json" or request.query_params.get("live"):
            return _json({"error": "sign in, or send the signing key as a bearer token"}, 401)
        if self._desk.engine.settings.is_dev:
            hint = "Ask for it as http://localhost or http://127.0.0.1: this engine has no keys."
            shown = {"what": f"Not shown to {request.url.hostname}", "hint": hint}
            return self._html(Page("problem.html", "Refused", shown, status=403), request)
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?to={quote(target, safe='')}", 303)

    async def _sign_in(self, request: Request) -> Response:
        target = _own_path(request.query_params.get("to", "/"))
        if self._access.may_look(request):
            return RedirectResponse(target, 303)
        page = Page("sign-in.html", "Sign in", {"to": target, "is_wrong": False})
        if request.method == "GET":
            return self._html(page, request)
        form = await form_of(request)
        answer: Response = RedirectResponse(target, 303, _HEADERS)
        if self._access.sign_in(request, form.get("key", ""), answer):
            return answer
        wrong = Page("sign-in.html", "Sign in", {"to": target, "is_wrong": True}, status=401)
        return self._html(wrong, request)

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = render.static(name)
        kind = _KINDS.get(name.rpartition(".")[2])
        if content is None or kind is None:
            return Response("not found", 404, _HEADERS, "text/plain")
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {**_HEADERS, "cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, 200, headers, kind)

    def _live(self, handler: Handler, request: Request) -> Response:
        """Send the page's block `live` whenever it has become another, until nobody listens."""
        if self._watchers >= _WATCHERS:
            return _json({"error": f"{_WATCHERS} pages are being watched already"}, 503)

        async def changes() -> AsyncIterator[str]:
            self._watchers += 1
            try:
                async for text in self._changes(handler, request):
                    yield text
            finally:
                self._watchers -= 1

        return StreamingResponse(changes(), 200, _HEADERS, "text/event-stream")

    async def _changes(self, handler: Handler, request: Request) -> AsyncIterator[str]:
        ends = clock.monotonic() + _WATCHED_SECONDS
        last = request.query_params.get("seen", "")
        while clock.monotonic() < ends and not await request.is_disconnected():
            page = await self._ask(handler, request)
            if page.status == 200:
                text = self._render.live(page, self._surroundings(request))
                seen = hashlib.sha256(text.encode()).hexdigest()
                if seen != last:
                    last = seen
                    yield _event(text)
            await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def console(app: Starlette, engine: Engine) -> AsyncIterator[None]:
    """Put a console on an engine's application, for as long as the engine runs."""
    made = Console(engine)
    app.router.routes.extend(made.routes())
    try:
        yield
    finally:
        await made.close()


def _told(request: Request) -> dict[str, str] | None:
    """Return what came of the action before this page."""
    kind, _, text = unquote(request.cookies.get(_TOLD, "")).partition(":")
    return {"kind": kind, "text": text} if kind in ("problem", "done") else None


def _event(html: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"{lines}\n"


def _json(data: object, status: int = 200) -> Response:
    text = json.dumps(data, default=_plain, ensure_ascii=False)
    return Response(text, status, _HEADERS, "application/json")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _own_path(target: str) -> str:
    """Return where to go on: a path of ours, never another site."""
    is_own = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_own else "/"
