"""Sleeps are reported with the time they end, and are over when the server says so."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Step, SyncStep

app = App("case")


@app.function("async", on="case/start")
async def handler(event: object, step: Step) -> str:
    await step.sleep("nap", event.data["for"])  # type: ignore[attr-defined]  # untyped on purpose
    return "awake"


@app.function("sync", on="case/start")
def sync_handler(event: object, step: SyncStep) -> str:
    step.sleep("nap", event.data["for"])  # type: ignore[attr-defined]  # untyped on purpose
    return "awake"


async def test_a_sleep_names_its_end_in_utc_milliseconds(drive: Drive) -> None:
    before = datetime.now(UTC)

    run = await drive(event(data={"for": "1h30m"}))

    after = datetime.now(UTC)
    (name,) = run.sleeps
    assert name.endswith("Z") and len(name) == len("2030-01-01T00:00:00.000Z")
    end = datetime.fromisoformat(name) - timedelta(hours=1, minutes=30)
    assert before - timedelta(milliseconds=1) <= end <= after
    assert run.output == "awake"
    op = run.ops[0]
    assert (op["op"], op["displayName"], op["opts"], op["data"]) == ("Sleep", "nap", None, None)


@pytest.mark.parametrize(
    ("duration", "says"),
    [("soon", "not a duration"), (90, "a timedelta or a string"), ("367d", "at most 366 days")],
)
async def test_a_sleep_that_cannot_be_is_final(call: Call, duration: object, says: str) -> None:
    reply = await call(call_body(event(data={"for": duration})))

    assert reply.status == 500
    assert reply.headers["x-inngest-no-retry"] == "true"
    assert 'step "nap"' in reply.body["message"]
    assert says in reply.body["message"]
