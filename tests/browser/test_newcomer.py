"""docs/troubleshooting.md by clicks: five failures made for real, each followed from the console to its fix.

Each test begins at an address that somebody was sent, or at Home, and uses only what the pages show.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.conftest import Site, apart, free_port, stack
from tests.conftest import migration_files
from tests.support.server import Server

from stepbase.local import migrate

_FUNCTIONS = Path(__file__).parent / "newcomer"
_ADD_CREDIT = """
create function public.add_credit(p_order_id int) returns void language plpgsql as $$
  begin
    if p_order_id = 7 then raise exception 'the wallet is closed'; end if;
  end
$$;
grant execute on function public.add_credit(int) to service_role;
notify pgrst, 'reload schema'
"""
KEY, NEW_KEY = "signkey-test-" + "ab" * 16, "signkey-test-" + "cd" * 16
_SECONDS = 30.0


@pytest.fixture(scope="session")
def shop(cluster: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack with the functions that fail."""
    with stack(cluster, tmp_path_factory.mktemp("shop"), _FUNCTIONS, _ADD_CREDIT) as started:
        yield started


@pytest.fixture
def page(browser: Browser, shop: Site) -> Iterator[Page]:
    context = browser.new_context(base_url=shop.url)
    yield context.new_page()
    context.close()


def test_an_sql_function_raises(shop: Site, page: Page) -> None:
    run_id = shop.run_of(shop.send("shop/paid", order_id=7, cents=5), "Failed")

    page.goto("/")
    attention = page.get_by_role("region", name="Needs attention")
    expect(attention).to_contain_text("the wallet is closed")
    attention.get_by_role("listitem").filter(has_text="the wallet is closed").get_by_role(
        "link", name="Look at it"
    ).click()
    page.wait_for_url(f"**/runs/{run_id}")
    why = page.get_by_role("region", name="Why it failed")
    expect(why).to_contain_text("Failed in step add_credit, attempt 0")
    expect(why).to_contain_text("the wallet is closed")
    expect(why).to_contain_text("What to do: the SQL function itself refuses (P0001)")
    page.get_by_role("link", name="Run again from this step, add_credit").click()
    page.get_by_label("Argument 1").fill('{"p_order_id": 8}')
    page.get_by_role("button", name="Run again from add_credit").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("Completed", timeout=10_000)


def test_a_payload_does_not_fit_its_model(shop: Site, page: Page) -> None:
    event_id = shop.send("shop/paid", order_id="seven")
    shop.run_of(event_id, "Failed")

    page.goto(f"/events/{event_id}")
    page.get_by_role("row").filter(has_text="shop-credit").get_by_role("link").first.click()
    why = page.get_by_role("region", name="Why it failed")
    for text in ("data.order_id", "cents: Field required", "What to do: mend what sends the event"):
        expect(why).to_contain_text(text)
    expect(page.get_by_role("region", name="Input: the event")).to_contain_text('"seven"')
    page.get_by_role("link", name="shop/paid").first.click()
    page.get_by_role("link", name="Send one like it").click()
    page.get_by_label("order_id").fill("8")
    page.get_by_label("cents").fill("5")
    page.get_by_role("button", name="Send", exact=True).click()

    started = page.get_by_role("region", name="Runs it started").first
    expect(started).to_contain_text("Completed", timeout=10_000)


def test_an_event_starts_nothing(shop: Site, page: Page) -> None:
    small = shop.send("shop/paid", order_id=8, cents=5)
    shop.send("shop/payed", order_id=8)
    shop.run_of(small, "Completed")

    page.goto("/")
    page.get_by_role("link", name="Events", exact=True).click()
    page.get_by_role("row").filter(has_text="shop/paid").first.get_by_role("link").first.click()
    expect(page.get_by_role("row").filter(has_text="shop-large")).to_contain_text(
        "event.data.cents > 10000"
    )
    page.get_by_role("link", name="Events", exact=True).click()
    page.get_by_role("row").filter(has_text="shop/payed").get_by_role("link").first.click()
    expect(page.get_by_role("main")).to_contain_text("No function listens to shop/payed")
    page.get_by_role("link", name="Event types", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="shop/payed")).to_contain_text("nothing")
    expect(page.get_by_role("row").filter(has_text="shop/paid")).to_contain_text("shop-credit")


@dataclass(frozen=True)
class Keyed:
    """An engine with keys, and where its app is hosted; the host is started by `hosting`."""

    url: str
    port: int
    folder: Path

    @contextmanager
    def hosting(self, key: str, fallback: str = "") -> Iterator[None]:
        """Serve the app with a signing key of its own."""
        environment = {
            **os.environ, "INNGEST_SIGNING_KEY": key, "INNGEST_EVENT_KEY": "ek",
            "INNGEST_SIGNING_KEY_FALLBACK": fallback, "INNGEST_BASE_URL": self.url,
            "INNGEST_SERVE_ORIGIN": f"http://127.0.0.1:{self.port}", "INNGEST_DEV": "0",
        }  # fmt: skip
        command = ["host", str(_FUNCTIONS), "--port", str(self.port)]
        with _process(command, environment, self.folder / "host.log"):
            _until(lambda: _answers(f"http://127.0.0.1:{self.port}/shop/api/inngest"))
            yield

    def sync(self) -> None:
        """Sync the app that is hosted."""
        answer = httpx.put(f"http://127.0.0.1:{self.port}/shop/api/inngest", trust_env=False)
        assert answer.status_code == 200, answer.text

    def send(self) -> str:
        """Send the event that needs nothing."""
        answer = httpx.post(
            f"{self.url}/e/ek", json={"name": "shop/greeted", "data": {}}, trust_env=False
        )
        event_id: str = answer.json()["ids"][0]
        return event_id


@pytest.fixture(scope="session")
def keyed(cluster: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """An engine with keys of its own."""
    name, folder = apart(cluster.create()), tmp_path_factory.mktemp("keyed")
    apart(migrate.apply_files(cluster.dsn(name), migration_files()))
    port = free_port()
    made = Keyed(f"http://127.0.0.1:{port}", free_port(), folder)
    environment = {**os.environ, "INNGEST_SIGNING_KEY": KEY, "INNGEST_EVENT_KEY": "ek",
                   "INNGEST_DEV": "0"}  # fmt: skip
    command = ["engine", "--port", str(port), "--database-url", cluster.dsn(name),
               "--retry-interval", "0.3"]  # fmt: skip
    with _process(command, environment, folder / "engine.log"):
        _until(lambda: _answers(f"{made.url}/health"))
        yield made
    apart(cluster.drop(name))


@contextmanager
def _process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "stepbase.cli", *arguments]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code < 500
    except httpx.HTTPError:
        return False


def _until(is_so: object) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture
def signed_in(browser: Browser, keyed: Keyed) -> Iterator[Page]:
    """A page of somebody who has signed in, at the list of runs."""
    context = browser.new_context(base_url=keyed.url)
    page = context.new_page()
    page.goto("/runs")
    page.get_by_label("Signing key").fill(NEW_KEY)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not a signing key of this engine")
    page.get_by_label("Signing key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/runs")
    yield page
    context.close()


def _open_the_live_run(page: Page) -> None:
    page.get_by_label("Status").select_option("live")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("row").filter(has_text="shop-greet").get_by_role("link").click()


def test_the_host_cannot_be_reached(keyed: Keyed, signed_in: Page) -> None:
    with keyed.hosting(KEY):
        keyed.sync()
    keyed.send()

    _open_the_live_run(signed_in)
    why = signed_in.get_by_role("region", name="Why it is not done")
    expect(why).to_contain_text("attempt 0 of the code between steps failed")
    expect(why).to_contain_text(f"http://127.0.0.1:{keyed.port}/shop/api/inngest does not answer")
    expect(why).to_contain_text("What to do: start the app")
    address = signed_in.url
    signed_in.get_by_role("link", name="Apps", exact=True).click()
    signed_in.get_by_role("button", name="Sync again").click()
    expect(signed_in.get_by_role("status").first).to_contain_text("could not be synced")
    signed_in.goto(address)
    with keyed.hosting(KEY):
        heading = signed_in.get_by_role("heading", level=1)
        expect(heading).to_contain_text("Completed", timeout=15_000)


def test_the_signature_is_wrong_after_a_rotation(keyed: Keyed, signed_in: Page) -> None:
    with keyed.hosting(KEY):
        keyed.sync()
    with keyed.hosting(NEW_KEY):
        keyed.send()

        _open_the_live_run(signed_in)
        why = signed_in.get_by_role("region", name="Why it is not done")
        expect(why).to_contain_text(
            "What to do: give the app and the engine the same INNGEST_SIGNING_KEY"
        )
        signed_in.get_by_text("code between steps", exact=True).first.click()
        expect(signed_in.get_by_text("HTTP 401").first).to_be_attached()
    with keyed.hosting(NEW_KEY, fallback=KEY):
        heading = signed_in.get_by_role("heading", level=1)
        expect(heading).to_contain_text("Completed", timeout=15_000)
