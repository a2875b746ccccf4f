"""The serve endpoint: answers a server's requests, whatever host they came through.

`Endpoint.handle` and `Endpoint.ahandle` drive one script that verifies, parses, decides and answers; it
asks its driver only for what differs between sync and async: running a handler, and sending a request.
An answer a server may retry carries no `x-inngest-no-retry`: deploys overlap, keys are rotated, and no
run may fail for it.
"""

import dataclasses
import json
import logging
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from stepbase import clock, config
from stepbase.config import InngestConfig
from stepbase.errors import ProtocolError
from stepbase.protocol import names, signing
from stepbase.protocol.call import Call, decode_call
from stepbase.sdk import registration, replies
from stepbase.sdk.app import App
from stepbase.sdk.execution import Outcome, prepare
from stepbase.sdk.fault import function_fault
from stepbase.sdk.function import Function
from stepbase.sdk.http import Exchange, asend, send
from stepbase.sdk.message import Request, Response, Stream
from stepbase.sdk.site import Site

if TYPE_CHECKING:
    from stepbase.sdk.checkpoints import Checkpoints

logger = logging.getLogger("stepbase.sdk.endpoint")


class Runnable(Protocol):
    """A call that is ready to run: an `Execution`, or one with middleware around it."""

    @property
    def function(self) -> Function:
        """The function that is called."""

    def run(self) -> Any:
        """Run it in this thread."""

    async def arun(self) -> Any:
        """Run it in the running task."""


Script = Generator[Runnable | Exchange, Any, Response]
Asked = Runnable | Exchange | Response
"""What a script asks its driver for, or its end."""

C = TypeVar("C")


class Endpoint:
    """Answers the requests for one app.

    Args:
        framework: Name of the host, for the server's display.
        serve_origin: Public origin, e.g. ``"https://x.supabase.co"``; `INNGEST_SERVE_ORIGIN` overrides it.
        serve_path: Public path, e.g. ``"/compute/v1/currency"``; `INNGEST_SERVE_PATH` overrides it.
        streaming: Whether calls are answered by a stream (`sdk/streaming.py`); `INNGEST_STREAMING` decides
            if not given.
        settings: Keys, origins and mode; from the environment if not given.
    """

    def __init__(
        self,
        app: App,
        *,
        framework: str,
        serve_origin: str | None = None,
        serve_path: str | None = None,
        streaming: bool | None = None,
        settings: InngestConfig | None = None,
    ) -> None:
        self.app = app
        self._framework = framework
        self._origin = serve_origin
        self._path = serve_path
        self._streaming = streaming
        self._settings = settings
        self._site: Site | None = None
        self._headers: dict[str, str] = {}

    @property
    def site(self) -> Site:
        """The app and its surroundings; the environment is read at the first request."""
        if self._site is None:
            settings = self._settings or config.inngest()
            self._headers = replies.standing_headers(settings, self._framework)
            self._site = Site(
                app=self.app,
                framework=self._framework,
                settings=settings,
                origin=settings.serve_origin or self._origin,
                path=settings.serve_path or self._path,
            )
        return self._site

    def handle(self, request: Request) -> Response | Stream[Iterator[bytes]]:
        """Answer a request, blocking; async handlers run on the process's background event loop."""
        script = self._answer(request)
        asked = _next(script)
        while isinstance(asked, Exchange):
            asked = _next(script, send(asked))
        if not isinstance(asked, Response) and self._is_streaming:
            from stepbase.sdk import streaming

            return self._stream(streaming.keep_alive(lambda: _finish(script, asked)))
        return _finish(script, asked)

    async def ahandle(self, request: Request) -> Response | Stream[AsyncGenerator[bytes, None]]:
        """Answer a request on the running event loop; sync handlers run in a thread."""
        script = self._answer(request)
        asked = _next(script)
        while isinstance(asked, Exchange):
            asked = _next(script, await asend(asked))
        if not isinstance(asked, Response) and self._is_streaming:
            from stepbase.sdk import streaming

            return self._stream(streaming.akeep_alive(_afinish(script, asked)))
        return await _afinish(script, asked)

    @property
    def _is_streaming(self) -> bool:
        return self.site.settings.streaming if self._streaming is None else self._streaming

    def _stream(self, chunks: C) -> Stream[C]:
        """Return a stream; what is signed is the response in it."""
        headers = {**self._headers, "x-accel-buffering": "no"}
        return Stream(201, b"", headers, chunks=chunks)

    def _answer(self, request: Request) -> Script:
        site = self.site
        key: str | None = None
        try:
            _check_size(request.body)
            key, problem = _checked(request, site.settings)
            response = yield from self._dispatch(site, request, key, problem)
        except ProtocolError as error:
            response = replies.refusal(error)
        except Exception as error:
            logger.exception("a request could not be answered")
            response = replies.raised(function_fault(error))
        response.headers = {**self._headers, **response.headers}
        if key is not None:
            response.headers[names.SIGNATURE] = signing.sign(response.body, key, clock.now_s())
        return response

    def _dispatch(
        self, site: Site, request: Request, key: str | None, problem: ProtocolError | None
    ) -> Script:
        if request.method == "POST":
            if problem is not None:
                logger.warning("refused a call: %s", problem)
                raise problem
            return (yield from self._post(site, request))
        if request.method == "PUT":
            return (yield from registration.sync(site, request, key, problem))
        if request.method in ("GET", "HEAD"):
            return registration.introspection(site, request, is_authenticated=key is not None)
        raise ProtocolError(
            f"{request.method} is not answered here: GET describes, PUT syncs, POST calls",
            status=405,
            code="method_not_allowed",
        )

    def _post(self, site: Site, request: Request) -> Script:
        query = dict(parse_qsl(request.query))
        if query.get("probe") == "trust":
            return Response(200, b"null")
        slug = query.get("fnId", "")
        function = self.app.find(slug)
        if function is None:
            raise ProtocolError(
                f"function {slug} not found: app {self.app.id!r} has "
                f"{', '.join(self.app.functions) or 'none'}; if it was renamed or removed, sync the app",
                status=500,
                code="function_not_found",
            )
        call = decode_call(_json(request.body))
        call = _as_addressed(call, request, query.get("stepId"))
        if call.use_api:
            call = yield from registration.fetch_state(site, call)
        checkpoints = _checkpoints(function, call, site.settings)
        if function.middleware:
            response: Response = yield _hooked(self.app, function, call, request, checkpoints)
            return response
        try:
            execution = prepare(self.app, function, call, checkpoints)
        except Exception as error:
            return replies.raised(function_fault(error))
        outcome: Outcome = yield execution
        return replies.reply(execution.complete(outcome))


def _verify(request: Request, settings: InngestConfig) -> str | None:
    """Return the key that signed the request, or None in dev mode."""
    if settings.is_dev:
        return None
    keys = [each for each in (settings.signing_key, settings.signing_key_fallback) if each]
    if not keys:
        raise ProtocolError(
            "this app runs in cloud mode without a signing key: set INNGEST_SIGNING_KEY, "
            "or INNGEST_DEV=1 to talk to a dev server",
            status=500,
            code="signing_key_missing",
        )
    return signing.verify(request.headers.get(names.SIGNATURE), request.body, keys, clock.now_s())


def _checked(request: Request, settings: InngestConfig) -> tuple[str | None, ProtocolError | None]:
    """Return the key that signed a request, or what is wrong with its signature."""
    try:
        return _verify(request, settings), None
    except ProtocolError as error:
        return None, error


def _check_size(body: bytes) -> None:
    if len(body) > names.MAX_REQUEST_BYTES:
        raise ProtocolError(
            f"the request has more than {names.MAX_REQUEST_BYTES} bytes; a server sends its state apart "
            "from a call that would be so large",
            status=413,
            code="body_too_large",
        )


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            f"the body of the call is not JSON: {error}", code="body_invalid"
        ) from error


def _as_addressed(call: Call, request: Request, step_id: str | None) -> Call:
    """Trust the URL's step id and the headers' fence over the body's, as the official SDKs do."""
    headers = request.headers
    fence = headers.get(names.GENERATION_ID, "")
    return dataclasses.replace(
        call,
        step_id=step_id or call.step_id,
        generation_id=int(fence) if fence.isdecimal() else call.generation_id,
        request_id=headers.get(names.REQUEST_ID) or call.request_id,
        is_together=headers.get(names.TOGETHER) == "true",
    )


def _checkpoints(function: Function, call: Call, settings: InngestConfig) -> "Checkpoints | None":
    option = function.options.checkpointing
    if option is False or call.is_targeted or call.is_planning:
        return None
    from stepbase.sdk.checkpoints import open_for

    return open_for(call, option, settings)


def _hooked(
    app: App,
    function: Function,
    call: Call,
    request: Request,
    checkpoints: "Checkpoints | None",
) -> Runnable:
    from stepbase.sdk.hooked import HookedCall  # loaded with the first call that has middleware

    return HookedCall(app, function, call, request, checkpoints)


def _next(script: Script, result: Any = None) -> Asked:
    """Return what the script asks for next, or its response."""
    try:
        return script.send(result)
    except StopIteration as done:
        response: Response = done.value
        return response


def _finish(script: Script, asked: Asked) -> Response:
    while not isinstance(asked, Response):
        result = send(asked) if isinstance(asked, Exchange) else _run(asked)
        asked = _next(script, result)
    return asked


async def _afinish(script: Script, asked: Asked) -> Response:
    while not isinstance(asked, Response):
        result = await (asend(asked) if isinstance(asked, Exchange) else _arun(asked))
        asked = _next(script, result)
    return asked


def _run(execution: Runnable) -> Any:
    if not execution.function.is_async:
        return execution.run()
    from stepbase.sdk.background import run

    return run(execution.arun())


async def _arun(execution: Runnable) -> Any:
    if execution.function.is_async:
        return await execution.arun()
    import asyncio

    return await asyncio.to_thread(execution.run)
