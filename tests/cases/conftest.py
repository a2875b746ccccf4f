"""Runs each case as an async and as a sync handler, on every host.

A case file defines an app with two functions, "async" and "sync", that behave alike; the fixture
`drive` runs the one the parameters ask for.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType

import pytest
from tests.support import mini_server
from tests.support.mini_server import Run
from tests.support.sdk_calls import Reply
from tests.support.sdk_hosts import HOSTS, Ask, open_host

from stepbase import App
from stepbase.sdk import background, http

Drive = Callable[..., Awaitable[Run]]
"""`await drive(event=…, max_attempts=…, memos=…)` calls the case's function until its run has ended."""

Call = Callable[..., Awaitable[Reply]]
"""`await call(body)` makes one call of the case's function."""


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    """The host that serves the case."""
    return str(request.param)


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the case's two handlers runs."""
    return str(request.param)


@pytest.fixture
def app(request: pytest.FixtureRequest) -> App:
    """The app of the case file."""
    module: ModuleType = request.module
    found: App = module.app
    return found


@pytest.fixture
async def ask(
    host: str, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ask]:
    """Send requests to the case's app, in dev mode."""
    monkeypatch.setenv("INNGEST_DEV", "1")
    yield open_host(host, app, tmp_path)
    await http.aclose()
    http.close()
    background.stop()


@pytest.fixture
def drive(ask: Ask, app: App, kind: str) -> Drive:
    """Run the case's function to its end."""

    async def post(query: str, body: bytes) -> Reply:
        return await ask("POST", query=query, body=body)

    async def finish(event: object = None, **options: object) -> Run:
        return await mini_server.finish(post, f"{app.id}-{kind}", event, **options)  # type: ignore[arg-type]  # passed through

    return finish


@pytest.fixture
def call(ask: Ask, app: App, kind: str) -> Call:
    """Make one call of the case's function."""

    async def once(body: bytes, step_id: str = "step") -> Reply:
        return await ask("POST", query=f"fnId={app.id}-{kind}&stepId={step_id}", body=body)

    return once
