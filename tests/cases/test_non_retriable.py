"""NonRetriableError ends a step, or the run, without further attempts."""

from tests.cases.conftest import Drive
from tests.support.sdk_calls import event

from stepbase import App, Event, NonRetriableError, Step, StepError, SyncStep

app = App("case")
Data = Event[dict[str, str]]


def refuse() -> None:
    raise NonRetriableError("no more please")


@app.function("async", on="case/start")
async def handler(event: Data, step: Step) -> str:
    if event.data["where"] == "handler":
        refuse()
    try:
        await step.run("refuse", refuse)
    except StepError as error:
        return f"caught {error.name}: {error.message}"
    return "unreachable"


@app.function("sync", on="case/start")
def sync_handler(event: Data, step: SyncStep) -> str:
    if event.data["where"] == "handler":
        refuse()
    try:
        step.run("refuse", refuse)
    except StepError as error:
        return f"caught {error.name}: {error.message}"
    return "unreachable"


async def test_in_a_step_it_fails_the_step_and_can_be_caught(drive: Drive) -> None:
    run = await drive(event(data={"where": "step"}))

    assert run.shown == ["StepFailed refuse"]
    assert run.replies[0].headers["x-inngest-no-retry"] == "true"
    assert run.ops[0]["error"]["code"] == "non_retriable_error"
    assert run.output == "caught NonRetriableError: no more please"


async def test_in_the_handler_it_fails_the_run(drive: Drive) -> None:
    run = await drive(event(data={"where": "handler"}))

    (reply,) = run.replies
    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert run.error["name"] == "NonRetriableError"
    assert run.error["message"] == "no more please"
