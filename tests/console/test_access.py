"""Who may look and act: keys, cookies, tokens, names of hosts; and what hostile values do on a page."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.console.conftest import Shown, StartConsole

from stepbase.console.actions import ACTIONS
from stepbase.console.site import PAGES

KEY = "signkey-test-" + "ab" * 32
KEYS: dict[str, Any] = {"signing_keys": (KEY,), "event_keys": ("send",)}
_PATHS = [path.replace("{run_id}", "x").replace("{event_id}", "x").replace("{slug:path}", "x")
          for path in PAGES]  # fmt: skip


async def test_without_a_key_nothing_is_shown(start_console: StartConsole) -> None:
    async with start_console(**KEYS) as shown:
        for path in _PATHS:
            page = await shown.web.get(path)
            data = await shown.web.get(path, params={"format": "json"})
            live = await shown.web.get(path, params={"live": "1"})

            assert page.status_code == 303 and page.headers["location"].startswith("/sign-in?to=")
            assert (data.status_code, live.status_code) == (401, 401)


async def test_a_key_opens_and_a_wrong_one_does_not(start_console: StartConsole) -> None:
    async with start_console(**KEYS) as shown:
        wrong = await shown.web.post("/sign-in?to=/runs", data={"key": KEY[:-2] + "00"})
        assert wrong.status_code == 401 and "not a signing key" in wrong.text
        assert (await shown.web.get("/runs")).status_code == 303

        right = await shown.web.post("/sign-in?to=/runs", data={"key": KEY})
        cookie = right.headers["set-cookie"].lower()
        assert right.headers["location"] == "/runs"
        assert "httponly" in cookie and "samesite=strict" in cookie and KEY not in cookie
        assert "Runs" in await shown.page("/runs")

        shown.web.cookies.set("stepbase_console", "9999999999.00." + "0" * 64)
        assert (await shown.web.get("/runs")).status_code == 303


async def test_a_program_sends_the_key_as_a_bearer_token(start_console: StartConsole) -> None:
    async with start_console(**KEYS) as shown:
        from stepbase.protocol import signing

        bearer = {"authorization": f"Bearer {signing.hash_key(KEY)}"}
        answer = await shown.web.get("/runs?format=json", headers=bearer)

    assert answer.status_code == 200


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "/\\evil.example"])
async def test_signing_in_leads_nowhere_else(start_console: StartConsole, target: str) -> None:
    async with start_console(**KEYS) as shown:
        answer = await shown.web.post("/sign-in", params={"to": target}, data={"key": KEY})

    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("headers", [
    {}, {"x-stepbase-csrf": "0" * 64}, {"sec-fetch-site": "cross-site"},
], ids=["no token", "wrong token", "other site"])  # fmt: skip
async def test_no_other_page_can_act(shown: Shown, headers: dict[str, str]) -> None:
    if "sec-fetch-site" in headers:
        page = await shown.page("/send?name=a/b")
        headers = headers | {
            "x-stepbase-csrf": page.partition('name="csrf" value="')[2].partition('"')[0]
        }
    for path in ACTIONS:
        path = path.replace("{run_id}", "x").replace("{slug:path}", "x").replace("{app:path}", "x")
        answer = await shown.web.post(path, data={"name": "a/b"}, headers=headers)
        assert answer.status_code == 403, path
    assert (await shown.data("/events"))["events"] == []


async def test_an_engine_without_keys_answers_only_to_names_of_this_machine(shown: Shown) -> None:
    answer = await shown.web.get("/runs", headers={"host": "rebound.example:8288"})
    assert answer.status_code == 403 and "rebound.example" in answer.text
    answer = await shown.web.get("/runs", headers={"host": "localhost:8288"})
    assert answer.status_code == 200


async def test_scripts_in_values_are_text(
    shown: Shown, make_run: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    script = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    error = {"name": script, "message": script, "stack": script}
    [event_id] = await shown.api.send({"name": f"app/{script}", "data": {"v": script}})
    run = await make_run(error=error, event={"v": script})

    pages = ["/", "/runs", "/events", f"/events/{event_id}", f"/runs/{run['run_id']}",
             "/functions/app-f", "/event-types", f"/runs?text={script}", f"/send?name={script}"]  # fmt: skip
    for path in pages:
        text = await shown.page(path)
        assert "<script>alert" not in text and "<img src=x" not in text, path


async def test_pages_let_nothing_from_elsewhere_in(shown: Shown) -> None:
    answer = await shown.web.get("/")
    policy = answer.headers["content-security-policy"]

    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "http://" not in answer.text and "https://" not in answer.text
    assert " style=" not in answer.text and "onclick" not in answer.text


@pytest.mark.parametrize(
    "name", ["..%2fpages%2fhome.py", "../site.py", "%2e%2e/site.py", ".hidden", "none.js"]
)
async def test_only_our_files_are_served(shown: Shown, name: str) -> None:
    assert (await shown.web.get(f"/static/{name}")).status_code == 404


async def test_a_form_that_is_too_large_is_refused(shown: Shown) -> None:
    answer = await shown.act("/send", name="a/b", data='{"x":"' + "y" * 5_000_000 + '"}')

    assert answer.status_code == 403  # nothing of it was read, also not its token
