"""The table of features and SDKs: filled by the tests that run, printed after them."""

import pytest

pytest.register_assert_rewrite("tests.official.python", "tests.official.typescript")

from tests.official import features  # noqa: E402  # after the line above


@pytest.fixture(autouse=True)
def _noted(request: pytest.FixtureRequest) -> None:
    features.note(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    for line in features.table():
        terminalreporter.write_line(line)
