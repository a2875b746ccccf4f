"""on_failure is a function of its own, called with the failed run's event."""

from tests.support.sdk_calls import call_body, event
from tests.support.sdk_hosts import Ask

from stepbase import App, Event, Step, SyncStep

app = App("case")


async def on_failure(event: Event[dict[str, dict[str, str]]], step: Step) -> str:
    return await step.run("note", lambda: event.data["error"]["message"])


def on_failure_sync(event: Event[dict[str, dict[str, str]]], step: SyncStep) -> str:
    return step.run("note", lambda: event.data["error"]["message"])


@app.function("async", on="case/start", on_failure=on_failure)
async def handler() -> None:
    raise ValueError("no")


@app.function("sync", on="case/start", on_failure=on_failure_sync)
def sync_handler() -> None:
    raise ValueError("no")


async def test_the_failure_handler_answers_under_its_own_name(ask: Ask, kind: str) -> None:
    failed = event(name="inngest/function.failed", data={"error": {"message": "no"}})

    reply = await ask("POST", query=f"fnId=case-{kind}-failure&stepId=step", body=call_body(failed))

    assert (reply.op["displayName"], reply.op["data"]) == ("note", "no")
