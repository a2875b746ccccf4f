"""A stored result that no longer fits its annotation is final, naming the field."""

from pydantic import BaseModel
from tests.cases.conftest import Call
from tests.support.sdk_calls import call_body, hashed

from stepbase import App, Step, SyncStep

app = App("case")


class Config(BaseModel):
    delay_hours: int


def config() -> Config:
    return Config(delay_hours=1)


@app.function("async", on="case/start")
async def handler(step: Step) -> int:
    return (await step.run("config", config)).delay_hours


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> int:
    return step.run("config", config).delay_hours


async def test_the_field_is_named(call: Call) -> None:
    reply = await call(call_body(steps={hashed("config"): {"data": {"delay_hours": "many"}}}))

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert reply.body["message"].startswith('step "config": delay_hours: ')


async def test_a_result_that_fits_comes_back_typed(call: Call) -> None:
    reply = await call(call_body(steps={hashed("config"): {"data": {"delay_hours": 3}}}))

    assert (reply.status, reply.body) == (200, 3)
