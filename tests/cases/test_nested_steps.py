"""Steps cannot contain steps, whichever they are: refused, finally, with the reason."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.cases.conftest import Drive
from tests.support.sdk_calls import event

from stepbase import App, Event, Step, StepError, SyncStep

app = App("case")

INNER: dict[str, Callable[[Any], Any]] = {
    "run": lambda step: step.run("inner", lambda: "never"),
    "sleep": lambda step: step.sleep("inner", "1h"),
    "wait_for_event": lambda step: step.wait_for_event("inner", "x/y", timeout="1h"),
    "invoke": lambda step: step.invoke("inner", "app-f"),
    "wait_for_signal": lambda step: step.wait_for_signal("inner", "s", timeout="1h"),
    "send_signal": lambda step: step.send_signal("inner", "s"),
    "send_event": lambda step: step.send_event("inner", Event("x/y")),
    "fetch": lambda step: step.fetch("inner", "https://a.example"),
    "ai.infer": lambda step: step.ai.infer(
        "inner", format="x", url="https://a.example", auth_key="", body={}
    ),
    "ai.openai": lambda step: step.ai.openai("inner", model="m", messages=[]),
}


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> str:
    async def outer() -> str:
        return str(await INNER[event.data["inner"]](step))

    try:
        return await step.run("outer", outer)
    except StepError as error:
        return error.message


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> str:
    try:
        return step.run("outer", lambda: str(INNER[event.data["inner"]](step)))
    except StepError as error:
        return error.message


@pytest.mark.parametrize("inner", INNER)
async def test_a_step_inside_a_step_fails_the_outer_one(drive: Drive, inner: str) -> None:
    run = await drive(event(data={"inner": inner}))

    assert run.shown == ["StepFailed outer"]
    assert run.ops[0]["error"]["code"] == "step_nested"
    assert 'inside step "outer"' in run.output
