"""The ASGI app of an engine: routes, authentication, and errors as the wire has them."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stepbase.engine.api import (
    auth,
    checkpoints,
    events,
    functions,
    operations,
    register,
    runs,
    traces,
)
from stepbase.engine.api.answers import Json, error, kind_header
from stepbase.engine.app import Engine
from stepbase.errors import StoreError

Endpoint = Callable[[Request], Awaitable[Response]]


def build(engine: Engine) -> Starlette:
    """Return the API of a running engine."""
    app = Starlette(
        routes=[
            Route("/e/{key}", events.post_events, methods=["POST"]),
            *_routes(
                ("GET", "/health", runs.get_health),
                ("POST", "/fn/register", register.post_register),
                ("PUT", "/fn/sync", register.put_sync),
                ("DELETE", "/fn/remove", register.delete_app),
                ("GET", "/v1/events", runs.get_events),
                ("GET", "/v1/events/{event_id}", runs.get_event),
                ("GET", "/v1/events/{event_id}/runs", runs.get_event_runs),
                ("GET", "/v1/events/{event_id}/not-started", runs.get_not_started),
                ("GET", "/v1/apps/{app:path}/functions", functions.get_functions),
                ("POST", "/invoke/{slug:path}", functions.post_invoke),
                ("GET", "/v1/runs/{run_id}", runs.get_run),
                ("GET", "/v1/runs/{run_id}/jobs", runs.get_jobs),
                ("DELETE", "/v1/runs/{run_id}", runs.delete_run),
                ("POST", "/v1/cancellations", operations.post_cancellations),
                ("POST", "/v1/runs/{run_id}/rerun", operations.post_rerun),
                ("POST", "/v1/functions/{slug:path}/pause", functions.post_pause),
                ("POST", "/v1/functions/{slug:path}/resume", functions.post_resume),
                ("POST", "/v1/checkpoint/{run_id}/async", checkpoints.post_checkpoint),
                ("POST", "/v1/signals", checkpoints.post_signal),
                ("POST", "/v1/traces/userland", traces.post_traces),
                ("GET", "/v0/runs/{run_id}/batch", runs.get_batch),
                ("GET", "/v0/runs/{run_id}/actions", runs.get_actions),
                ("DELETE", "/v0/runs/{run_id}", runs.delete_run),
                ("POST", "/v0/gql", _gql),
                ("GET", "/metrics", operations.get_metrics),
                ("GET", "/dev", _dev),
            ),
        ],
        exception_handlers={StoreError: _store_error},
    )
    app.state.settings = engine.settings
    app.state.store = engine.store
    app.state.registry = engine.registry
    app.state.intake = engine.intake
    app.state.worker = engine.worker
    app.state.metrics = engine.metrics
    app.state.caller = engine.caller
    app.state.new_id = engine.new_id
    app.state.checkpoints = engine.checkpoints
    app.state.graphql_turn = asyncio.Lock()
    return app


def _routes(*entries: tuple[str, str, Endpoint]) -> list[Route]:
    return [
        Route(path, _guarded(path, endpoint), methods=[verb]) for verb, path, endpoint in entries
    ]


def _guarded(path: str, endpoint: Endpoint) -> Endpoint:
    if path in auth.OPEN_PATHS:
        return endpoint

    async def guarded(request: Request) -> Response:
        settings = request.app.state.settings
        if not auth.may_ask(request, settings):
            return error(401, "Authentication failed")
        response = await endpoint(request)
        response.headers.update(kind_header(settings.server_kind))
        return response

    return guarded


async def _gql(request: Request) -> Response:
    """Load GraphQL at the first request: it takes 100 ms, which no start of an engine should pay."""
    module = await asyncio.to_thread(importlib.import_module, "stepbase.engine.api.graphql")
    response: Response = await module.post_gql(request)
    return response


async def _store_error(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, StoreError)  # registered for nothing else
    # Class 22: a value that no column takes, such as a NUL in a path.
    refused = 400 if (problem.sqlstate or "").startswith("22") else 500
    return error(503 if problem.is_transient else refused, str(problem))


async def _dev(request: Request) -> Response:
    """Say to SDKs that look for a dev server that there is one; unknown in cloud mode."""
    if not request.app.state.settings.is_dev:
        return error(404, "not in dev mode")
    functions = [
        {"name": f.config.name, "id": str(f.function_id), "slug": f.config.slug}
        for f in request.app.state.registry.functions.by_id.values()
        if not f.is_archived
    ]
    return Json({"version": "stepbase", "authed": False, "functions": functions, "features": {}})
