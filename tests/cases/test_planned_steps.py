"""A call may ask to plan instead of run, or be for one planned step."""

from tests.cases.conftest import Call
from tests.support.sdk_calls import call_body, hashed

from stepbase import App, Step, SyncStep

app = App("case")
ran: list[str] = []


def note(name: str) -> str:
    ran.append(name)
    return name


@app.function("async", on="case/start")
async def handler(step: Step) -> list[str]:
    return [await step.run("one", note, "one"), await step.run("two", note, "two")]


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> list[str]:
    return [step.run("one", note, "one"), step.run("two", note, "two")]


async def test_a_planning_call_reports_the_step_without_running_it(call: Call) -> None:
    ran.clear()

    reply = await call(call_body(is_planning=True))

    assert (reply.op["op"], reply.op["id"], reply.op["data"]) == (
        "StepPlanned",
        hashed("one"),
        None,
    )
    assert ran == []


async def test_a_targeted_call_runs_its_step(call: Call) -> None:
    ran.clear()
    body = call_body(step_id=hashed("one"), is_planning=True)

    reply = await call(body, step_id=hashed("one"))

    assert (reply.op["op"], reply.op["data"]) == ("StepRun", "one")
    assert ran == ["one"]


async def test_a_target_that_is_not_reached_is_tried_again_with_the_reason(call: Call) -> None:
    ran.clear()
    body = call_body(step_id=hashed("gone"))

    reply = await call(body, step_id=hashed("gone"))

    assert reply.status == 500
    assert reply.body["code"] == "step_unexpected"
    assert 'found step "one" when targeting a different step' in reply.body["message"]
    assert "x-inngest-no-retry" not in reply.headers
    assert ran == []
