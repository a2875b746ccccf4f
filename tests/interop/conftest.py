"""The official SDKs to compare with, and the table that shows what came of it."""

from collections.abc import Iterator

import pytest
from tests.interop.differences import SDKS, Sdk
from tests.interop.features import stale, table
from tests.support import peers, typescript
from tests.support.fake_api import FakeApi, fake_api
from tests.support.peers_parallel import UNTIL
from tests.support.typescript import TypeScript


@pytest.fixture(scope="session")
def running_api() -> Iterator[FakeApi]:
    """The server's API that every SDK talks to."""
    with fake_api() as running:
        yield running


@pytest.fixture(scope="session")
def typescript_apps(running_api: FakeApi) -> Iterator[TypeScript]:
    """The TypeScript apps, in one process for all tests."""
    environment = {
        "ORIGIN": running_api.url,
        "SIGNING_KEY": peers.KEY,
        "SIGNING_KEY_FALLBACK": peers.FALLBACK,
        "EVENT_KEY": peers.EVENT_KEY,
        "UNTIL": UNTIL.isoformat(),
    }
    with typescript.running(environment) as running:
        yield running


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    """The SDK that judges."""
    found: Sdk = request.param
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session that asked everything and left an entry of the list without use."""
    if session.exitstatus == pytest.ExitCode.OK and stale():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    for line in table():
        terminalreporter.write_line(line)
