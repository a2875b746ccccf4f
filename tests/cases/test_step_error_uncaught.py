"""A step's failure that nobody catches fails the run, shown as what it was."""

from tests.cases.conftest import Drive

from stepbase import App, Step, SyncStep

app = App("case")


def bad() -> None:
    raise KeyError("missing") from ValueError("the reason")


@app.function("async", on="case/start")
async def handler(step: Step) -> None:
    await step.run("bad", bad)


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> None:
    step.run("bad", bad)


async def test_the_run_fails_at_once_with_the_steps_error(drive: Drive) -> None:
    run = await drive(max_attempts=2)

    assert run.shown == ["StepError bad", "StepFailed bad"]
    assert run.replies[-1].status == 500
    assert run.replies[-1].headers["x-inngest-no-retry"] == "true"
    assert (run.error["code"], run.error["name"]) == ("step_errored", "KeyError")
    assert run.error["message"] == "'missing'"
    assert "in bad" in run.error["stack"]
    assert run.error["cause"]["name"] == "ValueError"
