"""The same id may be used again: on the wire the uses are numbered."""

from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, hashed

from stepbase import App, Step, SyncStep

app = App("case")


@app.function("async", on="case/start")
async def handler(step: Step) -> int:
    total = 0
    for i in range(3):
        total += await step.run("add", lambda n: n, i)
    return total


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> int:
    return sum(step.run("add", lambda n: n, i) for i in range(3))


async def test_later_uses_carry_a_number(drive: Drive) -> None:
    run = await drive()

    assert run.output == 3
    assert [op["id"] for op in run.ops] == [hashed("add", i) for i in range(3)]
    assert [op["userland"] for op in run.ops] == [
        {"id": "add", "index": None},
        {"id": "add", "index": 1},
        {"id": "add", "index": 2},
    ]


async def test_the_second_use_runs_when_only_the_first_is_stored(call: Call) -> None:
    reply = await call(call_body(steps={hashed("add"): {"data": 5}}))

    assert (reply.op["id"], reply.op["data"]) == (hashed("add", 1), 1)
