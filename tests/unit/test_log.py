"""Log lines of our own processes."""

import json
import logging
from collections.abc import Iterator

import pytest

from stepbase import log


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("stepbase", "asyncpg")]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def fail(logger: str) -> None:
    try:
        raise OSError("the server\nis\n  away")
    except OSError:
        logging.getLogger(logger).exception("connection lost")


@pytest.mark.parametrize("as_json", [False, True])
def test_the_drivers_tracebacks_are_lines(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    log.setup(as_json=as_json)

    fail("asyncpg.pool")

    [line] = capsys.readouterr().err.splitlines()
    if as_json:
        entry = json.loads(line)
        assert (entry["message"], entry["logger"]) == ("connection lost", "asyncpg.pool")
        assert entry["reason"].startswith("OSError: the server") and "exception" not in entry
    else:
        assert line.endswith("asyncpg.pool: connection lost reason=OSError: the server is away")


def test_our_own_faults_keep_their_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup()

    fail("stepbase.engine")

    assert "Traceback" in capsys.readouterr().err
