"""An error in a step fails the step: it is tried again on its own, then the handler may catch it."""

from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, event

from stepbase import App, Context, Event, Step, StepError, SyncStep

app = App("case")
Data = Event[dict[str, int]]


def flaky(ctx: Context, event: Data) -> str:
    if ctx.attempt < event.data["failures"]:
        raise ValueError(f"boom at attempt {ctx.attempt}")
    return f"ok at attempt {ctx.attempt}"


@app.function("async", on="case/start")
async def handler(event: Data, step: Step, ctx: Context) -> object:
    try:
        return await step.run("flaky", flaky, ctx, event)
    except StepError as error:
        done = await step.run("compensate", lambda: "compensated")
        return [error.name, error.message, "Traceback" in (error.stack or ""), done]


@app.function("sync", on="case/start")
def sync_handler(event: Data, step: SyncStep, ctx: Context) -> object:
    try:
        return step.run("flaky", flaky, ctx, event)
    except StepError as error:
        done = step.run("compensate", lambda: "compensated")
        return [error.name, error.message, "Traceback" in (error.stack or ""), done]


async def test_a_step_is_tried_again_until_it_works(drive: Drive) -> None:
    run = await drive(event(data={"failures": 2}))

    assert run.output == "ok at attempt 2"
    assert run.shown == ["StepError flaky", "StepError flaky", "StepRun flaky"]


async def test_the_last_attempt_fails_the_step_and_the_handler_catches_it(drive: Drive) -> None:
    run = await drive(event(data={"failures": 9}), max_attempts=2)

    assert run.output == ["ValueError", "boom at attempt 1", True, "compensated"]
    assert run.shown == ["StepError flaky", "StepFailed flaky", "StepRun compensate"]


async def test_the_error_is_described_without_our_own_frames(call: Call) -> None:
    reply = await call(call_body(event(data={"failures": 1})))

    error = reply.op["error"]
    assert (error["code"], error["name"]) == ("unknown", "ValueError")
    assert error["message"] == "boom at attempt 0"
    assert "in flaky" in error["stack"]
    assert "stepbase/sdk" not in error["stack"]
    assert reply.op["data"] is None
    assert "x-inngest-no-retry" not in reply.headers


async def test_without_max_attempts_the_server_decides_when_it_is_over(call: Call) -> None:
    reply = await call(call_body(event(data={"failures": 9}), attempt=7, max_attempts=None))

    assert reply.op["op"] == "StepError"
