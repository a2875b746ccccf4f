"""`finally` blocks run whenever a call ends, and a step inside one waits for the real end."""

from tests.cases.conftest import Drive

from stepbase import App, Step, SyncStep

app = App("case")
seen: list[str] = []


@app.function("async", on="case/start")
async def handler(step: Step) -> str:
    try:
        await step.run("work", lambda: "worked")
    finally:
        seen.append("finally")
        await step.run("clean", lambda: "cleaned")
    return "done"


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> str:
    try:
        step.run("work", lambda: "worked")
    finally:
        seen.append("finally")
        step.run("clean", lambda: "cleaned")
    return "done"


async def test_they_run_at_every_call_but_their_steps_once(drive: Drive) -> None:
    seen.clear()

    run = await drive()

    assert run.output == "done"
    assert run.shown == ["StepRun work", "StepRun clean"]
    assert seen == ["finally"] * 3
