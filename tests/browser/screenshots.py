"""The pictures of the console in the docs; not among the tests: scripts/screenshots runs it."""

import pytest
from tests.browser.conftest import Open, Site
from tests.support.npm import ROOT

IMAGES = ROOT / "docs" / "images"
WINDOW = {"width": 1240, "height": 900}


def _failed(site: Site) -> str:
    runs = site.data("/runs?status=Failed")["runs"]
    return str(next(run["run_id"] for run in runs if run["function"] == "shop-checkout"))


@pytest.mark.parametrize(
    ("name", "scheme"), [("home", "dark"), ("runs", "light"), ("run", "light")]
)
def test_pictures(site: Site, open_page: Open, name: str, scheme: str) -> None:
    paths = {"home": "/", "runs": "/runs", "run": f"/runs/{_failed(site)}"}
    page = open_page(paths[name], color_scheme=scheme, viewport=WINDOW, reduced_motion="reduce")
    page.wait_for_timeout(500)
    page.screenshot(path=IMAGES / f"console-{name}-{scheme}.png")
