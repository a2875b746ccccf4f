"""A rerun may give a step other arguments than its handler does."""

from tests.cases.conftest import Call
from tests.support.sdk_calls import call_body, hashed

from stepbase import App, Step, SyncStep

app = App("case")


def add(n: int, *, plus: int = 0) -> int:
    return n + plus


@app.function("async", on="case/start")
async def handler(step: Step) -> int:
    return await step.run("first", add, 1) + await step.run("edited", add, 2, plus=1)


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> int:
    return step.run("first", add, 1) + step.run("edited", add, 2, plus=1)


async def test_a_step_takes_the_arguments_of_the_rerun(call: Call, kind: str) -> None:
    memos = {hashed("first"): {"data": 1}, hashed("edited"): {"input": [40]}}

    reply = await call(call_body(steps=memos, stack=[hashed("first")]))

    assert (reply.op["op"], reply.op["displayName"], reply.op["data"]) == ("StepRun", "edited", 40)
