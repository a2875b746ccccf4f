"""Apps: what the last sync changed, and what to do when one fails, each made to really happen."""

import html
from typing import Any

import pytest
from aiohttp import web
from tests.console.conftest import Shown

from stepbase.console import difference


async def app_of(shown: Shown) -> dict[str, Any]:
    """Return what the page of apps knows of the one there is."""
    [app] = (await shown.data("/apps"))["apps"]
    found: dict[str, Any] = app
    return found


async def test_the_last_change_is_shown_option_by_option(shown: Shown) -> None:
    host = shown.host
    gone, same = host.function("app-gone"), host.function("app-same")
    old = host.function("app-f", retries=3, concurrency=[{"limit": 5}], triggers=[{"event": "a/b"}])
    await shown.api.register(host.registration(gone, same, old))
    assert (await app_of(shown))["last_change"]["is_first"] is True

    new = host.function(
        "app-f", retries=5, concurrency=[{"limit": 9}], triggers=[{"cron": "0 3 * * *"}],
        idempotency="event.data.id",
    )  # fmt: skip
    await shown.api.register(host.registration(same, new, host.function("app-new")))
    await shown.api.register(host.registration(same, new, host.function("app-new")))
    change = (await app_of(shown))["last_change"]
    page = html.unescape(await shown.page("/apps"))

    assert (change["added"], change["removed"]) == (["app-new"], ["app-gone"])
    [changed] = change["changed"]
    assert changed["function"] == "app-f"
    assert {each["option"]: (each["old"], each["new"]) for each in changed["changes"]} == {
        "retries": ("3", "5"),
        "concurrency": ("at most 5 steps at a time", "at most 9 steps at a time"),
        "triggers": ("event a/b", "every day at 03:00 UTC (0 3 * * *)"),
        "idempotency": ("none", "starts once in 24 hours for each event.data.id"),
    }
    assert "retries: <del>3</del>" in page and "Syncs after that changed nothing" in page


async def test_an_app_that_moves_changes_its_url_alone(shown: Shown) -> None:
    body = shown.host.registration(shown.host.function("app-f"))
    await shown.api.register(body)
    moved = {**body, "url": "http://elsewhere.example/api/inngest"}
    await shown.api.register(moved)

    change = (await app_of(shown))["last_change"]

    assert change["app"] == [
        {
            "option": "serve URL",
            "old": shown.host.url,
            "new": "http://elsewhere.example/api/inngest",
        }
    ]
    assert not (change["added"] or change["removed"] or change["changed"])


async def _serve(shown: Shown, status: int, body: object) -> web.AppRunner:
    """Answer at the app's URL, instead of the app."""
    port = shown.host.port
    await shown.host.stop()
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (404, {}, "http_404", "No app is served at that path"),
        (401, {"code": "sig_verification_failed", "message": "no"}, "sig_verification_failed",
         "the same INNGEST_SIGNING_KEY"),
        (400, {"code": "server_kind_mismatch", "message": "dev"}, "server_kind_mismatch", "INNGEST_DEV=1"),
        (500, {"code": "url_invalid", "message": "unknown"}, "url_invalid", "INNGEST_SERVE_ORIGIN"),
        (502, "<html>", "http_502", "its log says why"),
        (418, {}, "http_418", "Its own words"),
    ],
)  # fmt: skip
async def test_a_sync_that_fails_is_kept_with_what_to_do(
    shown: Shown, status: int, body: object, code: str, words: str
) -> None:
    await shown.api.register(shown.host.registration(shown.host.function("app-f")))
    runner = await _serve(shown, status, body)
    await shown.act("/apps/app/resync")
    app, page = await app_of(shown), html.unescape(await shown.page("/apps"))
    await runner.cleanup()

    assert app["error_code"] == code and app["error"].startswith(f"HTTP {status}")
    assert words in app["remedy"] and words in page and "could not be synced" in page
    assert app["functions"] == 1


async def test_an_app_that_is_away_or_refused_is_kept_until_a_sync_works(shown: Shown) -> None:
    good = shown.host.registration(shown.host.function("app-f"))
    await shown.api.register(good)
    bad = shown.host.registration(shown.host.function("app-f", triggers=[{"cron": "never"}]))
    status, _ = await shown.api.request("POST", "/fn/register", bad)
    assert status == 400 and (await app_of(shown))["error_code"] == "invalid_function"

    await shown.host.stop()
    await shown.act("/apps/app/resync")
    away = await app_of(shown)
    assert away["error_code"] == "away" and "curl" in away["remedy"]
    assert "cannot be synced" in await shown.page("/")

    await shown.api.register(good)
    assert (await app_of(shown))["error"] is None
    assert "cannot be synced" not in await shown.page("/")


@pytest.mark.parametrize("code", [None, "http_500", "somebody's own"])
def test_there_is_something_to_do_about_every_error(code: str | None) -> None:
    assert difference.remedy(code, "http://x").endswith((".", "?"))


def test_what_cannot_be_read_is_no_difference() -> None:
    assert difference.of_app({"previous": "{}", "current": None}).is_first
    odd = difference.of_app({"previous": '{"functions": []}', "current": '{"f": 1}'})
    assert odd.added == ["f"] and odd.summary == "1 added"
