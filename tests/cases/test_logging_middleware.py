"""LoggingMiddleware: what becomes of runs and steps, and ordinary loggers silent during replay."""

import logging

import pytest
from tests.cases.conftest import Drive

from stepbase import App, Step, StepError, SyncStep
from stepbase.middleware import LoggingMiddleware

logger = logging.getLogger("case_rules.prices")
app = App("case", middleware=[LoggingMiddleware.factory(loggers=["case_rules"])])


def fail() -> None:
    raise ValueError("4111 1111")


@app.function("async", on="case/start")
async def handler(step: Step) -> str:
    logger.info("start")
    await step.run("one", lambda: logger.info("inside one"))
    logger.info("between", extra={"n": 1})
    try:
        await step.run("two", fail)
    except StepError:
        logger.info("caught")
    raise ValueError("4111 1111")


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> str:
    logger.info("start")
    step.run("one", lambda: logger.info("inside one"))
    logger.info("between", extra={"n": 1})
    try:
        step.run("two", fail)
    except StepError:
        logger.info("caught")
    raise ValueError("4111 1111")


async def test_each_line_is_logged_once_with_its_fields(
    drive: Drive, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await drive(max_attempts=1)
        logger.info("outside")

    records = [each for each in caplog.records if each.name.startswith(("case_", "stepbase.app"))]
    said = [
        (each.getMessage(), each.levelname, each.__dict__.get("step"), each.__dict__.get("error"))
        for each in records
    ]
    assert said == [
        ("run started", "INFO", None, None),
        ("start", "INFO", None, None),
        ("inside one", "INFO", "one", None),
        ("step finished", "INFO", "one", None),
        ("between", "INFO", None, None),
        ("step failed", "WARNING", "two", "ValueError"),
        ("caught", "INFO", None, None),
        ("run failed", "ERROR", None, "ValueError"),
        ("outside", "INFO", None, None),
    ]
    assert {each.__dict__["function"] for each in records[:-1]} == {f"case-{kind}"}
    assert {each.__dict__["attempt"] for each in records[:-1]} == {0}
    assert all(each.__dict__["run_id"] for each in records[:-1])
    assert not hasattr(records[-1], "run_id")
    assert records[3].__dict__["ms"] >= 0
    assert "4111" not in caplog.text


async def test_a_call_that_is_tried_again_is_no_failed_run(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "stepbase.app"):
        await drive(max_attempts=2)

    ends = [each.getMessage() for each in caplog.records if "error" in each.__dict__]
    assert ends == ["step failed", "step failed", "call failed", "run failed"]
