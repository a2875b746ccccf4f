"""A handler that catches everything still leaves at its step, and the step counts once."""

import logging

import pytest
from tests.cases.conftest import Drive
from tests.support.sdk_calls import event

from stepbase import App, Event, Step, SyncStep

app = App("case")
Data = Event[dict[str, str]]
ran: list[str] = []


def work() -> str:
    ran.append("work")
    return "worked"


@app.function("async", on="case/start")
async def handler(event: Data, step: Step) -> str:
    try:
        return await step.run("work", work)
    except BaseException:
        if event.data["then"] == "raise":
            raise RuntimeError("swallowed") from None
    return "swallowed"


@app.function("sync", on="case/start")
def sync_handler(event: Data, step: SyncStep) -> str:
    try:
        return step.run("work", work)
    except BaseException:
        if event.data["then"] == "raise":
            raise RuntimeError("swallowed") from None
    return "swallowed"


@pytest.mark.parametrize("then", ["return", "raise"])
async def test_the_step_is_reported_all_the_same(
    drive: Drive, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran.clear()

    with caplog.at_level(logging.WARNING, "stepbase"):
        run = await drive(event(data={"then": then}))

    assert run.output == "worked"
    assert run.shown == ["StepRun work"]
    assert ran == ["work"]
    assert ("raised while it was being left" in caplog.text) == (then == "raise")
