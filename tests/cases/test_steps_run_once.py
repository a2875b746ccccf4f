"""Each step runs once; finished ones give their results back."""

from tests.cases.conftest import Drive

from stepbase import App, Step, SyncStep

app = App("case")
ran: list[str] = []


def note(name: str) -> str:
    ran.append(name)
    return name.upper()


async def note_async(name: str) -> str:
    return note(name)


@app.function("async", on="case/start")
async def handler(step: Step) -> list[str]:
    return [await step.run("one", note_async, "one"), await step.run("two", note_async, "two")]


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> list[str]:
    return [step.run("one", note, "one"), step.run("two", note, "two")]


async def test_each_step_runs_once_and_replays(drive: Drive) -> None:
    ran.clear()

    run = await drive()

    assert run.output == ["ONE", "TWO"]
    assert ran == ["one", "two"]
    assert run.shown == ["StepRun one", "StepRun two"]
    assert [reply.status for reply in run.replies] == [206, 206, 200]
