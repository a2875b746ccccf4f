"""The gateway as an ASGI application: routes requests and words the answers."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import asyncpg

from stepbase import failpoint
from stepbase.local.gateway import errors, rpc, table
from stepbase.local.gateway.auth import Authenticator, Identity
from stepbase.local.gateway.catalogue import Catalogue, Function, Table, closest
from stepbase.local.gateway.database import Answer, Database
from stepbase.local.gateway.errors import ApiError
from stepbase.local.gateway.params import Query, parse_query
from stepbase.local.gateway.request import Request, parse
from stepbase.local.gateway.sql import identifier
from stepbase.local.gateway.table import Statement, Wanted

_log = logging.getLogger("stepbase.local.gateway")

_PREFIX = "/rest/v1"
_JSON = ("Content-Type", "application/json; charset=utf-8")
_SINGLE = ("Content-Type", "application/vnd.pgrst.object+json; charset=utf-8")
# Any page may ask: without a key it gets nothing, and with one it could ask from anywhere.
_CORS = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Content-Range, Content-Profile, Location"),
]
_PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
    ("Access-Control-Allow-Headers", "*, Authorization"),
    ("Access-Control-Max-Age", "86400"),
]
# The catalogue may be older than what the request is about.
_MISSES = frozenset({"PGRST202", "PGRST204", "PGRST205"})

_NOT_IN_HEADER = re.compile(r"[\x00-\x1f\x7f]")

Headers = list[tuple[str, str]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; a HEAD gets its headers alone."""

    status: int
    headers: Headers
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Plan:
    """One statement to run, and how to word its result."""

    statement: Statement
    read_only: bool
    respond: Callable[[Answer], Response]
    function: Function | None = None
    rows: int | None = None


class Gateway:
    """The ASGI application.

    `schemas` are exposed, the first by default; `most` is the largest number of rows an answer
    holds, None for no limit.
    """

    def __init__(
        self,
        database: Database,
        authenticator: Authenticator,
        *,
        schemas: Sequence[str] = ("public",),
        search_path: Sequence[str] = ("public", "extensions"),
        most: int | None = 1000,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._schemas = schemas
        self._search_path = search_path
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's lifespan or one request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            body = await _read_body(receive)
            response = await self._respond(scope, body)
            await _send(send, response, with_body=scope["method"] != "HEAD")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._database.open()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._database.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _respond(self, scope: Scope, body: bytes) -> Response:
        if scope["method"] == "OPTIONS":
            return Response(200, list(_PREFLIGHT))
        if scope["path"] == "/health":
            return Response(200, [_JSON], b'{"status":"ok"}')
        try:
            return await self._serve(scope, body)
        except ApiError as error:
            return _error_response(error)
        except Exception:
            _log.exception("request failed", extra={"path": scope["path"]})
            return _error_response(ApiError(500, "500", "The gateway failed; see its log."))

    async def _serve(self, scope: Scope, body: bytes) -> Response:
        path: str = scope["path"]
        if not path.startswith(_PREFIX + "/"):
            raise ApiError(404, "404", f"The local gateway serves {_PREFIX} only, not {path}")
        request = parse(
            scope["method"],
            path.removeprefix(_PREFIX),
            scope["query_string"],
            scope["headers"],
            body,
        )
        identity = await self._identify(request)
        schema = request.schema(self._schemas)
        catalogue = await self._database.catalogue()
        try:
            plan = self._plan(request, catalogue, schema)
        except ApiError as error:
            if error.code not in _MISSES:
                raise
            catalogue = await self._database.catalogue(newer_than=catalogue)
            plan = self._plan(request, catalogue, schema)
        answer = await self._run(request, identity, catalogue, schema, plan)
        if plan.function is not None and not plan.read_only:
            failpoint.hit("rpc.after_commit")
        return _with_settings(plan.respond(answer), answer)

    async def _identify(self, request: Request) -> Identity:
        key = next((value for name, value in request.pairs if name == "apikey"), None)
        if self._authenticator.blocks:
            return await asyncio.to_thread(self._authenticator.identify, request.headers, key)
        return self._authenticator.identify(request.headers, key)

    async def _run(
        self,
        request: Request,
        identity: Identity,
        catalogue: Catalogue,
        schema: str,
        plan: _Plan,
    ) -> Answer:
        path = dict.fromkeys((schema, *self._search_path))
        settings = {
            "role": identity.role,
            "request.jwt.claims": identity.claims,
            "search_path": ", ".join(map(identifier, path)),
            **request.settings(),
            **catalogue.settings(identity.role, plan.function),
        }
        try:
            answer = await self._database.run(
                settings,
                plan.statement,
                read_only=plan.read_only,
                rows=plan.rows,
                rollback=request.preference("tx") == "rollback",
            )
        except asyncpg.PostgresError as error:
            raise errors.from_sqlstate(
                error.sqlstate or "XX000",
                error.message or str(error),
                error.detail,
                error.hint,
                anonymous=identity.role == "anon",
            ) from error
        if plan.rows is not None and answer.rows != plan.rows:
            raise ApiError(
                406,
                "PGRST116",
                "Cannot coerce the result to a single JSON object",
                f"The result contains {answer.rows} rows",
            )
        return answer

    def _plan(self, request: Request, catalogue: Catalogue, schema: str) -> _Plan:
        parts = request.path.removeprefix("/").split("/")
        if parts == [""]:
            raise ApiError(404, "PGRST126", "Root endpoint metadata is disabled")
        if len(parts) == 2 and parts[0] == "rpc":
            return self._plan_rpc(request, catalogue, schema, parts[1])
        if len(parts) != 1:
            raise ApiError(404, "PGRST125", "Invalid path specified in request URL")
        found = catalogue.tables.get((schema, parts[0]))
        if found is None:
            near = closest(parts[0], [name for s, name in catalogue.tables if s == schema])
            raise ApiError(
                404,
                "PGRST205",
                f"Could not find the table '{schema}.{parts[0]}' in the schema cache",
                None,
                f"Perhaps you meant the table '{schema}.{near}'" if near else None,
            )
        return self._plan_table(request, found)

    def _plan_rpc(self, request: Request, catalogue: Catalogue, schema: str, name: str) -> _Plan:
        if request.method not in ("GET", "HEAD", "POST"):
            raise ApiError(405, "PGRST101", f"Cannot use the {request.method} method on RPC")
        request.check_content_type()
        wanted = request.wanted()
        query = self._query(request, with_arguments=request.reads)
        if request.reads:
            overloads = catalogue.functions.get((schema, name), ())
            text, names = rpc.arguments_from_query(overloads, query.arguments)
            function = rpc.find(catalogue, schema, name, names)
        else:
            text, given = rpc.arguments_from_body(request.body)
            function = rpc.find(catalogue, schema, name, given)
            names = given or frozenset()
        statement = rpc.call(function, text, names, query, wanted, self._most)
        is_single = wanted.single and function.returns_set

        def respond(answer: Answer) -> Response:
            if function.returns == "void":
                return Response(204, [])
            headers = [_SINGLE if wanted.single else _JSON]
            status = 200
            if function.returns_set and not wanted.single:
                status = _add_range(headers, query.offset, answer)
            return Response(status, headers, answer.body.encode())

        read_only = request.reads or not function.is_volatile
        return _Plan(statement, read_only, respond, function, 1 if is_single else None)

    def _plan_table(self, request: Request, found: Table) -> _Plan:
        wanted = request.wanted()
        query = self._query(request)
        rows = 1 if wanted.single else None
        if request.reads:
            statement = table.read(found, query, wanted, self._most)
            return _Plan(statement, True, lambda a: _read_response(query, wanted, a), rows=rows)
        request.check_content_type()
        if request.method == "POST":
            statement = table.insert(
                found,
                query,
                wanted,
                request.body,
                resolution=request.preference("resolution"),
                missing_default=request.preference("missing") == "default",
            )
        elif request.method == "PATCH":
            statement = table.update(found, query, wanted, request.body)
        elif request.method == "DELETE":
            statement = table.delete(found, query, wanted)
        else:
            raise ApiError(405, "PGRST117", f"Unsupported HTTP method: {request.method}")
        return _Plan(
            statement,
            False,
            lambda answer: _write_response(request, found, wanted, answer),
            rows=rows,
        )

    def _query(self, request: Request, *, with_arguments: bool = False) -> Query:
        query = parse_query(request.pairs, with_arguments=with_arguments)
        asked = request.range()
        if asked is not None and query.limit is None and not query.offset:
            query = replace(query, offset=asked[0], limit=asked[1])
        return query


def _read_response(query: Query, wanted: Wanted, answer: Answer) -> Response:
    headers = [_SINGLE if wanted.single else _JSON]
    status = _add_range(headers, query.offset, answer)
    return Response(status, headers, answer.body.encode())


def _write_response(request: Request, found: Table, wanted: Wanted, answer: Answer) -> Response:
    applied = [
        f"{name}={value}"
        for name in ("return", "resolution", "missing", "count", "tx")
        if (value := request.preference(name)) is not None
    ]
    headers: Headers = [("Preference-Applied", ", ".join(applied))] if applied else []
    total = str(answer.rows) if wanted.count else "*"
    is_update = request.method == "PATCH" and answer.rows > 0
    headers.append(("Content-Range", f"0-{answer.rows - 1}/{total}" if is_update else f"*/{total}"))
    created = request.method == "POST"
    if wanted.returning == "representation":
        headers.append(_SINGLE if wanted.single else _JSON)
        return Response(201 if created else 200, headers, answer.body.encode())
    if wanted.returning == "headers-only" and created and answer.rows == 1 and found.key:
        headers.append(("Location", _location(found, answer.body)))
    return Response(201 if created else 204, headers)


def _location(found: Table, body: str) -> str:
    rows = json.loads(body)
    row = rows[0] if isinstance(rows, list) else rows
    filters = "&".join(f"{quote(k)}=eq.{quote(str(row[k]))}" for k in found.key)
    return f"/{quote(found.name)}?{filters}"


def _add_range(headers: Headers, offset: int, answer: Answer) -> int:
    """Add Content-Range and return the status that goes with it.

    Raises:
        ApiError: PGRST103 if the range begins after the last row.
    """
    total = answer.total
    if total is not None and offset > total:
        raise ApiError(
            416,
            "PGRST103",
            "Requested range not satisfiable",
            f"An offset of {offset} was requested, but there are only {total} rows.",
            headers=[("Content-Range", f"*/{total}")],
        )
    span = f"{offset}-{offset + answer.rows - 1}" if answer.rows else "*"
    headers.append(("Content-Range", f"{span}/{'*' if total is None else total}"))
    return 206 if total is not None and answer.rows < total else 200


def _with_settings(response: Response, answer: Answer) -> Response:
    """Apply what SQL asked for by `response.status` and `response.headers`."""
    status, headers = response.status, response.headers
    if answer.status:
        if not answer.status.isdecimal():
            raise ApiError(500, "PGRST112", "response.status guc must be a valid status code")
        status = int(answer.status)
    if answer.headers:
        try:
            asked = [pair for item in json.loads(answer.headers) for pair in item.items()]
        except (ValueError, AttributeError, TypeError) as error:
            raise ApiError(
                500,
                "PGRST111",
                "response.headers guc must be a JSON array composed of objects"
                " with a single key and a string value",
            ) from error
        replaced = {name.lower() for name, _ in asked}
        headers = [pair for pair in headers if pair[0].lower() not in replaced]
        headers += [(str(name), str(value)) for name, value in asked]
    return Response(status, headers, response.body)


def _error_response(error: ApiError) -> Response:
    headers = [_JSON, ("Proxy-Status", f"PostgREST; error={error.code}"), *error.headers]
    return Response(error.status, headers, error.body())


async def _read_body(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


async def _send(send: Send, response: Response, *, with_body: bool) -> None:
    headers = [*response.headers, *_CORS]
    if response.status != 204:
        headers.append(("Content-Length", str(len(response.body))))
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [(_header(name.lower()), _header(value)) for name, value in headers],
        }
    )
    await send({"type": "http.response.body", "body": response.body if with_body else b""})


def _header(text: str) -> bytes:
    """Encode a header's name or value; SQL may have put anything into it."""
    return _NOT_IN_HEADER.sub(" ", text).encode("latin-1", "replace")
