"""The console in a real browser: live, by keyboard, for assistive technology, in light and dark."""

import json

import pytest
from playwright.sync_api import Locator, Page, expect
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
    expect(page.get_by_role("cell", name="shop-checkout").first).to_be_visible(timeout=5_000)
    expect(page.get_by_text("Its condition was not met: event.data.cents > 10000")).to_be_visible()


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


@pytest.mark.parametrize("scripts", [True, False])
def test_a_run_is_made_again_from_a_step_with_other_arguments(
    site: Site, open_page: Open, scripts: bool
) -> None:
    run_id = site.run_of(site.send("shop/order.placed", id=106 + scripts, fate="refused"), "Failed")
    page = open_page(f"/runs/{run_id}", java_script_enabled=scripts)

    page.get_by_text("validate", exact=True).click()
    page.get_by_role("link", name="Run again from this step, validate").click()
    page.get_by_label("Argument 1").fill("stock of Bangkok")
    page.get_by_role("button", name="Run again from validate").click()
    expect(page.get_by_text("Argument 1 is not JSON").last).to_be_visible()
    expect(page.get_by_label("Argument 1")).to_have_value("stock of Bangkok")
    page.get_by_role("button", name="One more argument").click()
    expect(page.get_by_label("Argument 2")).to_be_visible()
    page.get_by_label("Argument 1").fill('"stock of Bangkok"')
    page.get_by_role("button", name="Run again from validate").click()

    expect(page.get_by_role("status")).to_contain_text("made again as")
    made = page.url.rpartition("/")[2]
    site.until(lambda: site.data(f"/runs/{made}")["run"]["status"] == "Failed")
    page.goto(f"/runs/{made}")
    page.get_by_text("validate", exact=True).click()
    page.get_by_role("link", name="Result of validate").click()
    expect(page.get_by_text('"reserved stock of Bangkok"')).to_be_visible()


@pytest.mark.parametrize("width", [1240, 1600])
def test_the_table_of_runs_needs_no_scrolling(site: Site, open_page: Open, width: int) -> None:
    page = open_page("/runs", viewport={"width": width, "height": 800})
    for path in ("/", "/runs", "/waiting", "/outbox"):
        page.goto(path)
        wider = page.eval_on_selector_all(
            ".scroll", "all => all.map(each => each.scrollWidth - each.clientWidth)"
        )
        assert not any(each > 0 for each in wider), path


def test_a_whole_id_is_read_aloud_and_its_end_is_shown(site: Site, open_page: Open) -> None:
    run_id = site.data("/runs")["runs"][0]["run_id"]
    page = open_page("/runs")

    link = page.get_by_role("link", name=run_id)

    assert link.inner_text() == run_id[-8:] and link.get_attribute("title") == run_id


def test_a_row_opens_its_run(site: Site, open_page: Open) -> None:
    run_id = site.data("/runs")["runs"][0]["run_id"]
    page = open_page("/runs")

    page.get_by_role("row").filter(has=page.get_by_role("link", name=run_id)).get_by_role(
        "cell", name="shop-"
    ).click()

    page.wait_for_url(f"**/runs/{run_id}")


def test_charts_have_axes_and_can_be_read_as_tables(site: Site, open_page: Open) -> None:
    page = open_page("/")
    figure = page.get_by_role("figure").filter(has_text="Runs ended a minute")

    assert page.get_by_role("img", name="runs ended in the last hour").count() == 1
    levels = figure.locator(".y span").all_inner_texts()
    assert levels[-1] == "0" and int(levels[0].replace(",", "")) >= 4 and len(levels) == 3
    assert len(figure.locator(".x span").all_inner_texts()) == 5
    figure.get_by_text("As a table").click()
    rows = figure.get_by_role("row")
    ended = sum(int(text.split("\t")[1].replace(",", "")) for text in rows.all_inner_texts()[1:])
    told = page.get_by_role("img", name="runs ended in the last hour").get_attribute("aria-label")
    assert told is not None and told.startswith(f"{ended:,} runs ended")


def test_controls_of_a_filter_are_of_one_height(site: Site, open_page: Open) -> None:
    page = open_page("/runs")

    heights = page.eval_on_selector_all(
        ".filters :is(input, select, button)",
        "all => all.map(each => Math.round(each.getBoundingClientRect().height))",
    )

    assert len(heights) == 6 and len(set(heights)) == 1


def test_a_change_takes_nothing_from_who_reads(site: Site, open_page: Open) -> None:
    """What is in focus, opened and fetched stays so when the page changes."""
    run_id = site.run_of(site.send("shop/order.placed", id=110, fate="waits"), "Running")
    page = open_page(f"/runs/{run_id}")
    page.get_by_text("validate", exact=True).click()
    page.get_by_role("link", name="Result of validate").click()
    expect(page.get_by_text('"reserved stock"')).to_be_visible()
    page.get_by_role("link", name="shop/order.placed").focus()

    site.send("shop/paid", id=110)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Completed", timeout=5_000)

    expect(page.get_by_text('"reserved stock"')).to_be_visible()
    assert _focused(page) == "shop/order.placed"


def test_a_change_opens_and_closes_nothing_else(site: Site, open_page: Open) -> None:
    """Two charts have a table, and each failure its stack: what is open is the same one afterwards."""
    page = open_page("/")
    ended = page.get_by_role("figure").filter(has_text="Runs ended a minute")
    took = page.get_by_role("figure").filter(has_text="From event to end")
    ended.get_by_text("As a table").click()
    site.run_of(site.send("shop/order.placed", id=112), "Completed")
    run_id = site.run_of(site.send("shop/order.placed", id=113, fate="refused"), "Failed")
    expect(page.get_by_role("link", name=run_id)).to_be_visible(timeout=5_000)

    assert _is_open(ended) and not _is_open(took)

    page.goto("/functions/shop-checkout")
    failures = page.get_by_role("region", name="Last failures").locator(".error")
    failures.first.get_by_text("Stack", exact=True).click()
    later = site.run_of(site.send("shop/order.placed", id=114, fate="refused"), "Failed")
    expect(failures.locator("xpath=preceding-sibling::p[1]").first).to_contain_text(
        later, timeout=5_000
    )

    assert [_is_open(failures.nth(i)) for i in range(3)] == [False, True, False]


def _is_open(place: Locator) -> bool:
    return bool(place.locator("details").first.evaluate("each => each.open"))


def test_every_page_has_its_json(site: Site, open_page: Open) -> None:
    page = open_page("/")
    for path in _paths(site):
        if path.startswith("/send"):
            continue
        page.goto(path)
        link = page.get_by_role("link", name="JSON")
        assert link.count() == 1, path
        answer = page.request.get(link.get_attribute("href") or "")
        assert answer.headers["content-type"] == "application/json" and answer.json(), path


def test_a_page_can_be_shared(site: Site, open_page: Open) -> None:
    """Another browser that opens the address of a filtered page sees the same."""
    page = open_page("/runs")
    page.get_by_label("Status").select_option("Failed")
    page.get_by_label("Function").select_option("shop-checkout")
    page.get_by_label("Run id, or text").fill("refused")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**/runs?*")
    ids = page.locator("td a.id").all_inner_texts()

    other = open_page(page.url)

    assert ids
    expect(other.locator("td a.id")).to_have_text(ids)
    expect(other.get_by_label("Status")).to_have_value("Failed")


def test_a_large_payload_is_cut_and_fetched_where_it_is(site: Site, open_page: Open) -> None:
    run_id = site.run_of(site.send("shop/order.placed", id=111, shop="x" * 30_000), "Completed")
    page = open_page(f"/runs/{run_id}")
    assert len(page.get_by_role("main").inner_text()) < 20_000

    page.get_by_role("link", name="Show all of it").click()

    expect(page.get_by_text("x" * 30_000)).to_be_visible()
    assert page.url.endswith(run_id)
