"""An id that looks like the number of another one gets a place of its own."""

from tests.cases.conftest import Drive
from tests.support.sdk_calls import hashed

from stepbase import App, Step, SyncStep

app = App("case")


@app.function("async", on="case/start")
async def handler(step: Step) -> list[str]:
    return [
        await step.run("a:1", lambda: "written out"),
        await step.run("a", lambda: "first"),
        await step.run("a", lambda: "second"),
    ]


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> list[str]:
    return [
        step.run("a:1", lambda: "written out"),
        step.run("a", lambda: "first"),
        step.run("a", lambda: "second"),
    ]


async def test_numbers_skip_ids_that_were_written_out(drive: Drive) -> None:
    run = await drive()

    assert run.output == ["written out", "first", "second"]
    assert [op["id"] for op in run.ops] == [hashed("a:1"), hashed("a"), hashed("a", 2)]
