"""A whole local stack with a shop whose orders went every way, and a browser that looks at its console."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request
from tests.support import chromium
from tests.support.server import Server

_FUNCTIONS = Path(__file__).parent / "functions"
_FATES = ("paid", "flaky", "refused", "waits", "sleeps", "paid")
_SECONDS = 60.0
# In one transaction, so that no relay is faster.
_DEAD = """
select stepbase.emit('shop/order.placed', '{}', id => 'order:7:placed');
update stepbase.outbox set tries = 3, dead_at = stepbase.now(), error = 'HTTP 400: data.id is missing'
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """A running stack.

    Attributes:
        url: Of its engine and console.
    """

    url: str

    def data(self, path: str) -> Any:
        """Return a page's JSON."""
        query = "&" if "?" in path else "?"
        answer = httpx.get(f"{self.url}{path}{query}format=json", trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def send(self, name: str, **data: object) -> str:
        """Send an event; returns its id."""
        answer = httpx.post(
            f"{self.url}/e/test", json={"name": name, "data": data}, trust_env=False
        )
        answer.raise_for_status()
        event_id: str = answer.json()["ids"][0]
        return event_id

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + _SECONDS
        while not is_so():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.05)

    def run_of(self, event_id: str, status: str) -> str:
        """Wait until the run of an event has a status; return its id."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            for run in self.data(f"/events/{event_id}")["runs"]:
                if run["status"] == status:
                    return str(run["run_id"])
            time.sleep(0.05)
        raise AssertionError(f"event {event_id} has no run that is {status}")


@pytest.fixture(scope="session")
def site(cluster: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack, started as a user would, with orders of every fate."""
    with stack(cluster, tmp_path_factory.mktemp("site"), _FUNCTIONS, _DEAD) as started:
        _fill(started)
        yield started


@contextmanager
def stack(cluster: Server, folder: Path, functions: Path, sql: str = "") -> Iterator[Site]:
    """Run `stepbase dev`, with a database in which some SQL has been executed."""
    name = apart(cluster.create())
    port = free_port()
    command = [
        sys.executable, "-m", "stepbase.cli", "dev", str(functions), "--no-reload",
        "--database-url", cluster.dsn(name), "--gateway-port", "0", "--host-port", "0",
        "--engine-port", str(port), "--retry-interval", "0.2", "--data", str(folder / "data"),
    ]  # fmt: skip
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ)
        )
        try:
            started = Site(f"http://127.0.0.1:{port}")
            _wait_until_synced(started, process, folder / "log")
            if sql:
                apart(_execute(cluster.dsn(name), sql))
            yield started
        finally:
            process.terminate()
            process.wait(20)
    apart(cluster.drop(name))


def apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own: this one's event loop may be the browser's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_until_synced(site: Site, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if site.data("/functions")["functions"]:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _fill(site: Site) -> None:
    sent = [
        (fate, site.send("shop/order.placed", id=i, shop=f"s{i % 2}", cents=1250, fate=fate))
        for i, fate in enumerate(_FATES)
    ]
    ends = {"paid": "Completed", "flaky": "Failed", "refused": "Failed"}
    for fate, event_id in sent:
        site.run_of(event_id, ends.get(fate, "Running"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module: while it runs, its event loop is this thread's, so no async test may."""
    with chromium.browser() as launched:
        yield launched


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Open]:
    """Open pages in a window of the test's own; afterwards nothing may have been complained of."""
    complaints: list[str] = []
    contexts = []

    def open_(path: str, **options: Any) -> Page:
        context = browser.new_context(base_url=site.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: _note(message, complaints))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _leaves(request, site, complaints))
        page.goto(path, wait_until="load")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def _note(message: ConsoleMessage, complaints: list[str]) -> None:
    # A form that comes back with what is wrong in it is answered so, and browsers note that.
    if message.type in ("error", "warning") and "status of 422" not in message.text:
        complaints.append(message.text)


def _leaves(request: Request, site: Site, complaints: list[str]) -> None:
    if not request.url.startswith((site.url, "data:")):
        complaints.append(f"a request left the host: {request.url}")
