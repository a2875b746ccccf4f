"""Steps cannot contain steps: refused, finally, with the reason."""

from tests.cases.conftest import Drive

from stepbase import App, Step, StepError, SyncStep

app = App("case")


@app.function("async", on="case/start")
async def handler(step: Step) -> str:
    async def outer() -> str:
        return await step.run("inner", lambda: "never")

    try:
        return await step.run("outer", outer)
    except StepError as error:
        return error.message


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> str:
    try:
        return step.run("outer", lambda: step.run("inner", lambda: "never"))
    except StepError as error:
        return error.message


async def test_a_step_inside_a_step_fails_the_outer_one(drive: Drive) -> None:
    run = await drive()

    assert run.shown == ["StepFailed outer"]
    assert run.ops[0]["error"]["code"] == "step_nested"
    assert 'inside step "outer"' in run.output
