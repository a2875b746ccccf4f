"""RetryAfterError chooses the time of the next attempt."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.cases.conftest import Call
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, RetryAfterError, Step, SyncStep

app = App("case")
Data = Event[dict[str, str]]
WHEN = {
    "seconds": 1.2,
    "timedelta": timedelta(minutes=1),
    "datetime": datetime(2030, 1, 1, 12, tzinfo=UTC),
}
HEADER = {"seconds": "2", "timedelta": "60", "datetime": "2030-01-01T12:00:00.000Z"}


def later(kind: str) -> None:
    raise RetryAfterError("come back", WHEN[kind])  # type: ignore[arg-type]  # a table of three kinds


@app.function("async", on="case/start")
async def handler(event: Data, step: Step) -> None:
    if event.data["where"] == "handler":
        later(event.data["when"])
    await step.run("later", later, event.data["when"])


@app.function("sync", on="case/start")
def sync_handler(event: Data, step: SyncStep) -> None:
    if event.data["where"] == "handler":
        later(event.data["when"])
    step.run("later", later, event.data["when"])


@pytest.mark.parametrize("when", WHEN)
async def test_in_a_step_the_header_rides_on_the_206(call: Call, when: str) -> None:
    reply = await call(call_body(event(data={"where": "step", "when": when})))

    assert (reply.op["op"], reply.headers["retry-after"]) == ("StepError", HEADER[when])
    assert reply.op["error"]["code"] == "retry_after_error"
    assert "x-inngest-no-retry" not in reply.headers


async def test_in_a_steps_last_attempt_it_fails_the_step(call: Call) -> None:
    body = call_body(event(data={"where": "step", "when": "seconds"}), attempt=3)

    reply = await call(body)

    assert reply.op["op"] == "StepFailed"
    assert "retry-after" not in reply.headers


@pytest.mark.parametrize("when", WHEN)
async def test_in_the_handler_the_header_rides_on_the_500(call: Call, when: str) -> None:
    reply = await call(call_body(event(data={"where": "handler", "when": when})))

    assert (reply.status, reply.headers["retry-after"]) == (500, HEADER[when])
    assert "x-inngest-no-retry" not in reply.headers
