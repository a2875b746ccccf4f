"""sleep_until takes aware datetimes and ISO text; past moments are the server's to end at once."""

from datetime import datetime

import pytest
from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, Step, SyncStep

app = App("case")
NAIVE = "naive"


def moment(text: str) -> datetime | str:
    return datetime(2030, 1, 1) if text == NAIVE else text  # noqa: DTZ001  # the point of the test


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, str]], step: Step) -> str:
    await step.sleep_until("wake", moment(event.data["at"]))
    return "awake"


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, str]], step: SyncStep) -> str:
    step.sleep_until("wake", moment(event.data["at"]))
    return "awake"


@pytest.mark.parametrize(
    ("at", "name"),
    [
        ("2027-01-01T09:00:00+07:00", "2027-01-01T02:00:00.000Z"),
        ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00.000Z"),
    ],
)
async def test_the_moment_is_written_in_utc(drive: Drive, at: str, name: str) -> None:
    run = await drive(event(data={"at": at}))

    assert run.sleeps == [name]
    assert run.output == "awake"


@pytest.mark.parametrize(("at", "says"), [(NAIVE, "with a timezone"), ("tomorrow", "not a time")])
async def test_a_moment_that_is_none_is_final(call: Call, at: str, says: str) -> None:
    reply = await call(call_body(event(data={"at": at})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert says in reply.body["message"]
