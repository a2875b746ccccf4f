"""Keys for other systems stay the same over replays; patches tell new runs from old ones."""

from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, hashed

from stepbase import App, Step, SyncStep

app = App("case")


@app.function("async", on="case/start")
async def handler(step: Step) -> list[object]:
    key = step.idempotency_key("charge")
    is_new = await step.patch("other-letters")
    charged = await step.run("charge", lambda: key)
    return [key == charged, key != step.idempotency_key("refund"), is_new]


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> list[object]:
    key = step.idempotency_key("charge")
    is_new = step.patch("other-letters")
    charged = step.run("charge", lambda: key)
    return [key == charged, key != step.idempotency_key("refund"), is_new]


async def test_a_new_run_takes_the_patched_way(drive: Drive) -> None:
    run = await drive()

    assert run.output == [True, True, True]
    assert run.shown == ["StepRun patch: other-letters", "StepRun charge"]


async def test_a_run_that_has_passed_the_place_keeps_the_old_way(call: Call) -> None:
    reply = await call(call_body(steps={hashed("charge"): {"data": "k"}}))

    assert (reply.status, reply.body) == (200, [False, True, False])
