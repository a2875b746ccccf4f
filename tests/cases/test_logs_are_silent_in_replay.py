"""`ctx.logger` writes each line once per run, however often the code runs."""

import logging

import pytest
from tests.cases.conftest import Drive

from stepbase import App, Context, Step, SyncStep

app = App("case")


@app.function("async", on="case/start")
async def handler(step: Step, ctx: Context) -> None:
    ctx.logger.info("start")
    await step.run("one", lambda: ctx.logger.info("inside one"))
    ctx.logger.info("between", extra={"n": 1})
    await step.run("two", lambda: ctx.logger.info("inside two"))
    ctx.logger.info("end")


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep, ctx: Context) -> None:
    ctx.logger.info("start")
    step.run("one", lambda: ctx.logger.info("inside one"))
    ctx.logger.info("between", extra={"n": 1})
    step.run("two", lambda: ctx.logger.info("inside two"))
    ctx.logger.info("end")


async def test_each_line_is_logged_once(
    drive: Drive, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "stepbase.app"):
        run = await drive()

    lines = [record for record in caplog.records if record.name == "stepbase.app.case"]
    assert [line.getMessage() for line in lines] == [
        "start",
        "inside one",
        "between",
        "inside two",
        "end",
    ]
    fields = lines[2].__dict__
    assert (fields["n"], fields["function"], fields["attempt"]) == (1, f"case-{kind}", 0)
    assert fields["run_id"] and "step" not in fields
    assert lines[1].__dict__["step"] == "one"
    assert run.output is None
