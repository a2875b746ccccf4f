"""A step id that is no text is final, with the reason."""

from typing import Any

import pytest
from tests.cases.conftest import Call
from tests.support.sdk_calls import call_body, event

from stepbase import App, Event, Step, SyncStep

app = App("case")


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> None:
    await step.run(event.data["id"], lambda: 1)


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> None:
    step.run(event.data["id"], lambda: 1)


@pytest.mark.parametrize("step_id", ["", 7, None, "a\x00b", ["a"]])
async def test_a_step_id_that_is_no_text_is_refused(call: Call, step_id: object) -> None:
    reply = await call(call_body(event(data={"id": step_id})))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert "a step id is non-empty text" in reply.body["message"]
