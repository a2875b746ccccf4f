"""What answers a user's events. The order of its checks is that of their cost, and of what they tell:
origin, method, size and type of the body; then the token; and only then what is in the body.
"""

import json
import logging
import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import urlsplit

from stepbase import config
from stepbase.errors import DefinitionError, NonRetriableError
from stepbase.hosts import health
from stepbase.protocol.duration import to_timedelta
from stepbase.sdk.accepting import EventList, Refusal
from stepbase.sdk.message import Request, Response
from stepbase.sdk.options import RateLimit
from stepbase.supabase import accept as accepting
from stepbase.supabase.accept import Accepted
from stepbase.supabase.auth import AuthError, User, Verifier, bearer
from stepbase.supabase.rpc import RpcError

_log = logging.getLogger("stepbase.hosts.events")

_JSON: Final = {"content-type": "application/json", "cache-control": "no-store"}
_PREFLIGHT_SECONDS: Final = 7200
_PASSING: Final = frozenset({"25006", "40001", "40P01", "55P03", "57014"})
"""Errors of the database that another try may not meet: in the way of another, too late, read-only."""
# Those of supabase-js, and of whoever traces their requests.
_CLIENT_HEADERS: Final = (
    "authorization, content-type, apikey, x-client-info, x-region, traceparent, tracestate, baggage"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What an endpoint lets through; see `accept_events`."""

    rate_limit: RateLimit | None
    max_bytes: int
    claims: tuple[str, ...]
    roles: tuple[str, ...]
    allow_anonymous: bool
    origins: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class _Work:
    """Something to wait for, in plain code or on an event loop."""

    sync: Callable[[], Any]
    soon: Callable[[], Awaitable[Any]]


class _NotSetUpError(Exception):
    """A variable is missing or wrong; the message names it, and is for the log."""


_Script = Generator[_Work, Any, Response]


class EventsEndpoint:
    """Answers requests; written once, for sync and async hosts."""

    def __init__(self, allowed: EventList, rules: Rules) -> None:
        self._allowed = allowed
        self._rules = rules
        self._checker: Verifier | None = None

    @property
    def max_bytes(self) -> int:
        """How large a body may be; a host need not read on."""
        return self._rules.max_bytes

    def handle(self, request: Request) -> Response:
        """Answer a request whose body was read up to one byte more than it may have."""
        script = self._script(request)
        try:
            work = next(script)
            while True:
                try:
                    result = work.sync()
                except Exception as error:
                    work = script.throw(error)
                else:
                    work = script.send(result)
        except StopIteration as done:
            return cast(Response, done.value)

    async def ahandle(self, request: Request) -> Response:
        """Answer a request on the running event loop; see `handle`."""
        script = self._script(request)
        try:
            work = next(script)
            while True:
                try:
                    result = await work.soon()
                except Exception as error:
                    work = script.throw(error)
                else:
                    work = script.send(result)
        except StopIteration as done:
            return cast(Response, done.value)

    def _script(self, request: Request) -> _Script:
        if health.is_asked(request.method, urlsplit(request.url).path):
            return self._health()
        allowed: dict[str, str] = {}
        try:
            allowed = self._for_origin(request)
            response = yield from self._answer(request)
        except Refusal as error:
            response = _refused(error)
        except AuthError as error:
            response = _unknown(error)
        except NonRetriableError as error:  # the database's own words about an event
            response = _refused(Refusal(str(error), code="invalid_event", status=400))
        except RpcError as error:
            response = _not_taken(error)
        except _NotSetUpError as error:
            _log.error("this endpoint is not set up", extra={"reason": str(error)})
            response = _json(500, "this endpoint is not set up; its log says why", "not_set_up")
        response.headers.update(allowed)
        return response

    def _answer(self, request: Request) -> _Script:
        if request.method == "OPTIONS":
            return Response(204, b"", self._preflight())
        self._check_form(request)
        token = bearer(request.headers.get("authorization"))
        verifier = self._verifier()
        user: User = yield _Work(lambda: verifier.verify(token), lambda: verifier.averify(token))
        parameters = self._parameters(user, self._allowed.read(request.body, user.id))
        accepted: Accepted = yield _Work(
            lambda: accepting.accept(parameters), lambda: accepting.aaccept(parameters)
        )
        if accepted.retry_after_ms is not None:
            raise self._over_limit(accepted.retry_after_ms)
        return Response(202, json.dumps({"ids": accepted.ids}).encode(), dict(_JSON))

    def _check_form(self, request: Request) -> None:
        if request.method != "POST":
            raise Refusal(
                "events are sent by POST",
                code="method_not_allowed",
                status=405,
                headers={"allow": "POST, OPTIONS"},
            )
        if len(request.body) > self._rules.max_bytes:
            raise Refusal(
                f"the body has more than {self._rules.max_bytes} bytes: send fewer events at a time, or "
                "store what is large and send where it is",
                code="body_too_large",
                status=413,
            )
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(
                "the body must be JSON: send the header Content-Type: application/json",
                code="not_json",
                status=415,
            )

    def _verifier(self) -> Verifier:
        if self._checker is None:
            rules = self._rules
            try:
                config.supabase()  # a missing key shows before the first user does
                self._checker = Verifier(roles=rules.roles, allow_anonymous=rules.allow_anonymous)
            except (LookupError, DefinitionError) as error:
                raise _NotSetUpError(str(error)) from error
        return self._checker

    def _parameters(self, user: User, events: list[dict[str, Any]]) -> dict[str, Any]:
        said = {name: user.claims[name] for name in self._rules.claims if name in user.claims}
        if user.is_anonymous:
            said["is_anonymous"] = True  # policies ask for it
        parameters: dict[str, Any] = {
            "p_user_id": user.id,
            "p_user": {**said, "id": user.id, "role": user.role},
            "p_events": events,
        }
        limit = self._rules.rate_limit
        if limit is not None:
            period = to_timedelta(limit.period) / timedelta(milliseconds=1)
            parameters |= {"p_limit": limit.limit, "p_period_ms": round(period)}
        return parameters

    def _over_limit(self, wait_ms: int) -> Refusal:
        limit = self._rules.rate_limit
        assert limit is not None, "only who has a limit can be over it"
        seconds = math.ceil(wait_ms / 1000)
        return Refusal(
            f"more than {limit.limit} events in {to_timedelta(limit.period)} by this user: try again in "
            f"{seconds} s",
            code="rate_limited",
            status=429,
            headers={"retry-after": str(seconds)},
        )

    def _health(self) -> Response:
        """Say whether it can work, and not only that it runs: a deploy waits for that."""
        try:
            self._verifier()
            self._origins()
        except _NotSetUpError as error:
            return _json(503, str(error), "not_set_up")
        return Response(200, health.body(), dict(_JSON))

    def _origins(self) -> tuple[str, ...]:
        if self._rules.origins is not None:
            return tuple(self._rules.origins)
        try:
            return config.allowed_origins()
        except LookupError as error:
            raise _NotSetUpError(str(error)) from error

    def _for_origin(self, request: Request) -> dict[str, str]:
        """Return the headers by which a browser lets the page read the answer."""
        origin, origins = request.headers.get("origin"), self._origins()
        if origin is None or not origins:
            return {}
        if "*" in origins:
            return {"access-control-allow-origin": "*", **_EXPOSED}
        if origin.rstrip("/") not in origins:
            raise Refusal(
                "pages of this origin may not send events: add it to STEPBASE_ALLOWED_ORIGINS",
                code="origin_not_allowed",
                status=403,
                headers={"vary": "origin"},
            )
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
            "vary": "origin",
            **_EXPOSED,
        }

    def _preflight(self) -> dict[str, str]:
        return {
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": _CLIENT_HEADERS,
            "access-control-max-age": str(_PREFLIGHT_SECONDS),
        }


_EXPOSED: Final = {"access-control-expose-headers": "retry-after, www-authenticate"}


def _json(
    status: int, error: str, code: str, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    body = json.dumps({"error": error, "code": code, **more}).encode()
    return Response(status, body, {**_JSON, **(headers or {})})


def _refused(error: Refusal) -> Response:
    fields = [{"field": each.field, "error": each.error} for each in error.problems]
    more = {"fields": fields} if fields else {}
    return _json(error.status, str(error), error.code, error.headers, **more)


def _unknown(error: AuthError) -> Response:
    if error.status == 503:
        _log.warning("tokens cannot be checked", extra={"reason": str(error.__cause__)[:300]})
    headers = {"www-authenticate": error.challenge} if error.challenge else {"retry-after": "5"}
    return _json(error.status, str(error), error.code, headers)


def _not_taken(error: RpcError) -> Response:
    if error.is_outage or error.code in _PASSING:
        _log.warning("events not taken: the database is away", extra={"code": error.code})
        message = "the events were not taken: send them again, with the same ids"
        return _json(503, message, "unavailable", {"retry-after": "1"})
    _log.error("events not taken", extra={"code": error.code, "reason": str(error)})
    return _json(500, "this endpoint is not set up; its log says why", "not_set_up")
