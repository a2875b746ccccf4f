"""The console in a real browser: live, by keyboard, for assistive technology, in light and dark."""

import json

import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import Open, Site
from tests.support.npm import ROOT, installed

_AXE = installed(ROOT / "tests" / "browser" / "packages") / "node_modules/axe-core/axe.min.js"

_PLAIN = ("/", "/runs", "/events", "/event-types", "/event-types/shop/parcel.sent", "/functions",
          "/functions/shop-checkout", "/apps", "/waiting", "/outbox", "/send", "/send?name=shop/order.placed",
          "/send?name=shop/parcel.sent", "/send?name=shop/parcel.sent&as=json")  # fmt: skip


def _paths(site: Site) -> list[str]:
    runs = site.data("/runs")["runs"]
    event = site.data("/events?name=shop/order.placed")["events"][0]["id"]
    by_status = {run["status"]: run["run_id"] for run in runs}
    return [*_PLAIN, f"/events/{event}", *(f"/runs/{run_id}" for run_id in by_status.values())]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(site: Site, open_page: Open, scheme: str) -> None:
    found = []
    page = open_page("/", color_scheme=scheme)
    for path in _paths(site):
        page.goto(path)
        found += [f"{path}: {each}" for each in _hindrances(page)]

    assert found == []


def _hindrances(page: Page) -> list[str]:
    """Return what axe-core finds that is serious."""
    # Evaluated, not added as a script: the page's own rules forbid scripts from elsewhere.
    page.evaluate(_AXE.read_text("utf-8"))
    result = page.evaluate("async () => JSON.stringify(await axe.run())")
    return [
        f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:120]}"
        for each in json.loads(result)["violations"]
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("width", [390, 1400])
def test_no_page_is_wider_than_its_window(site: Site, open_page: Open, width: int) -> None:
    page = open_page("/", viewport={"width": width, "height": 800})
    for path in _paths(site):
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, path


def test_a_change_shows_within_a_second(site: Site, open_page: Open) -> None:
    page = open_page("/runs")
    page.wait_for_timeout(700)  # connected, and looked once
    run_id = site.run_of(site.send("shop/order.placed", id=100, shop="live"), "Completed")

    expect(page.get_by_role("link", name=run_id)).to_be_visible(timeout=1_000)


def test_a_live_run_ends_before_ones_eyes(site: Site, open_page: Open) -> None:
    run_id = site.run_of(site.send("shop/order.placed", id=101, fate="waits"), "Running")
    page = open_page(f"/runs/{run_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")

    site.send("shop/paid", id=101)

    expect(page.get_by_role("heading", level=1)).to_contain_text("Completed", timeout=5_000)


def test_from_home_to_the_cause_of_a_failure_by_keyboard_alone(site: Site, open_page: Open) -> None:
    page = open_page("/")

    _press_until(page, lambda page: _focused(page) == "Look at it")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*")

    main = page.get_by_role("main")
    expect(main).to_contain_text("Failed")
    expect(main.get_by_text("Stack").first).to_be_visible()
    _press_until(page, lambda page: _focused(page).startswith("Run again"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("made again as")


def _focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.innerText")).strip()


def _press_until(page: Page, is_there: object) -> None:
    assert callable(is_there)
    for _ in range(60):
        page.keyboard.press("Tab")
        if is_there(page):
            return
    raise AssertionError("sixty steps by keyboard did not lead there")


def test_the_first_stop_skips_the_navigation(site: Site, open_page: Open) -> None:
    page = open_page("/runs")
    page.keyboard.press("Tab")
    assert _focused(page) == "Skip to content"


def test_a_step_is_opened_and_its_result_fetched(site: Site, open_page: Open) -> None:
    run_id = site.run_of(site.send("shop/order.placed", id=102), "Completed")
    page = open_page(f"/runs/{run_id}")

    page.get_by_text("reserve-b", exact=True).click()
    page.get_by_role("link", name="Result").locator("visible=true").click()

    expect(page.get_by_text('"reserved b"')).to_be_visible()
    assert page.url.endswith(run_id)


def test_actions_by_mouse(site: Site, open_page: Open) -> None:
    run_id = site.run_of(site.send("shop/order.placed", id=103, fate="sleeps"), "Running")
    page = open_page(f"/runs/{run_id}")
    page.get_by_role("button", name="Cancel this run").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancelled")

    page.goto("/functions/shop-nightly")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()

    page.goto("/apps")
    page.get_by_role("button", name="Sync again").click()
    expect(page.get_by_role("status")).to_contain_text("synced shop")

    page.goto("/send?name=shop/order.placed&as=json")
    page.get_by_label("Data").fill('{"id": 104, "shop": "s1"}')
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("link", name="shop-checkout").first).to_be_visible(timeout=5_000)
    expect(page.get_by_text("its condition was not met: event.data.cents > 10000")).to_be_visible()


@pytest.mark.parametrize("has_scripts", [True, False])
def test_an_event_is_sent_by_its_form(site: Site, open_page: Open, has_scripts: bool) -> None:
    page = open_page("/event-types", java_script_enabled=has_scripts)
    page.get_by_role("link", name="Send shop/parcel.sent").click()
    page.get_by_label("order").fill("7")
    page.get_by_label("weight").fill("31")
    page.get_by_label("insured").select_option("true")
    page.get_by_label("service").select_option("express")
    page.get_by_label("pick_up").fill("2026-12-24T09:30")
    to = page.get_by_role("group", name="to")
    to.get_by_label("street").fill("1 Nimman")
    to.get_by_label("city").fill("Chiang Mai")
    page.get_by_label("items").fill('["book"]')
    page.get_by_role("button", name="Send").click()

    expect(page.get_by_role("alert")).to_contain_text("data.weight must be at most 30")
    weight = page.get_by_label("weight")
    expect(weight).to_have_value("31")
    expect(weight).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("service")).to_have_value('"express"')
    if has_scripts:
        assert _hindrances(page) == []
    weight.fill("2.5")
    page.get_by_role("button", name="As JSON").click()
    text = page.get_by_label("Data").input_value()
    assert json.loads(text) == {
        "order": 7, "weight": 2.5, "insured": True, "service": "express",
        "pick_up": "2026-12-24T09:30:00Z",
        "to": {"street": "1 Nimman", "city": "Chiang Mai", "country": "TH"}, "items": ["book"],
    }  # fmt: skip
    page.get_by_role("button", name="As a form").click()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("shop/parcel.sent")
    event_id = page.url.rpartition("/")[2].partition("?")[0]
    run_id = site.run_of(event_id, "Completed")
    assert site.data(f"/runs/{run_id}")["run"]["output"] == "2.5"


def test_pages_are_readable_without_scripts(site: Site, open_page: Open) -> None:
    run_id = site.run_of(site.send("shop/order.placed", id=105), "Completed")
    page = open_page("/runs", java_script_enabled=False)

    page.get_by_role("link", name=run_id).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("shop-checkout")
    page.get_by_text("reserve-a", exact=True).click()
    page.get_by_role("link", name="Result").locator("visible=true").click()

    expect(page.get_by_text('"reserved a"')).to_be_visible()
