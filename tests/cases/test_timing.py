"""A step tells when its work began, and how long it took."""

import time

from tests.cases.conftest import Call
from tests.support.sdk_calls import call_body

from stepbase import App, Step, SyncStep

app = App("case")
_MS = 1_000_000


def work() -> None:
    time.sleep(0.02)


@app.function("async", on="case/start")
async def handler(step: Step) -> None:
    await step.run("work", work)


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> None:
    step.run("work", work)


async def test_the_work_of_a_step_is_timed(call: Call, kind: str) -> None:
    began = time.time_ns()
    reply = await call(call_body())

    timing = reply.op["timing"]
    assert 20 * _MS <= timing["b"] <= time.time_ns() - began + _MS
    assert began - _MS <= timing["a"] <= time.time_ns()
