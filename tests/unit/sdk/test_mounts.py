"""Apps inside other web applications, as docs/writing-functions.md says, behind real servers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from tests.repo.pages import blocks
from tests.repo.tree import ROOT
from tests.support.fake_api import fake_api
from tests.support.real_hosts import serving_asgi, serving_wsgi
from tests.support.sdk_calls import call_body

from stepbase import App, Event
from stepbase.sdk import background, http

PAGE = ROOT / "docs" / "writing-functions.md"
SITES: dict[str, tuple[str, Callable[[Any], AbstractContextManager[str]]]] = {
    "FastAPI": ("site", serving_asgi),
    "Starlette": ("site", serving_asgi),
    "Flask": ("site", serving_wsgi),
    "get_wsgi_application": ("application", serving_wsgi),
}


def described(framework: str) -> str:
    """Return the page's block for a framework."""
    found = [each.text for each in blocks(PAGE) if f"{framework}(" in each.text]
    assert len(found) == 1, framework
    return found[0]


@pytest.fixture(params=SITES)
def origin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a site serves an app with an async and a sync function."""
    app = App("shop")

    @app.function("async", on="a/b")
    async def afunction(event: Event[dict[str, Any]]) -> str:
        return event.name

    @app.function("sync", on="a/b")
    def function(event: Event[dict[str, Any]]) -> str:
        return event.name

    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    module: dict[str, Any] = {"app": app}
    name, serving = SITES[request.param]
    exec(described(request.param), module)
    with serving(module[name]) as origin:
        yield origin
    background.stop()
    http.close()


def test_a_mounted_app_is_described_synced_and_called(
    origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{origin}/api/inngest"
    with fake_api(lambda _: (200, {"ok": True})) as api, httpx.Client() as web:
        monkeypatch.setenv("INNGEST_BASE_URL", api.url)
        # The surroundings are read at the first request.
        description = web.get(url)
        synced = web.put(url)
        results = {
            kind: web.post(f"{url}?fnId=shop-{kind}&stepId=step", content=call_body()).json()
            for kind in ("async", "sync")
        }

    assert description.json()["function_count"] == 2
    assert synced.status_code == 200
    assert api.received[0].body["url"] == url
    assert results == {"async": "case/start", "sync": "case/start"}


def test_the_rest_of_the_site_is_left_alone(origin: str) -> None:
    with httpx.Client() as web:
        assert web.get(f"{origin}/elsewhere").status_code == 404
        assert "x-inngest-sdk" not in web.get(f"{origin}/elsewhere").headers
