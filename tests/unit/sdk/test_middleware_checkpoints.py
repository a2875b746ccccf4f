"""Middleware where a handler goes on after a step in the same call."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fake_api import FakeApi, fake_api
from tests.support.sdk_calls import Reply, call_object, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Checkpointing, Middleware, Step, SyncStep, asgi
from stepbase.middleware import EncryptionMiddleware, Input, Output
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.sdk import post

KINDS = pytest.mark.parametrize("kind", ["async", "sync"])
said: list[str] = []


class Told(Middleware):
    def after_memoization(self) -> None:
        said.append("after_memoization")

    def before_execution(self) -> None:
        said.append("before_execution")

    def after_execution(self) -> None:
        said.append("after_execution")

    def transform_output(self, output: Output) -> None:
        said.append(f"output {output.step.step_id if output.step else 'handler'}")
        if output.data == "secret b" and self.function and self.function.id.startswith("fails"):
            raise LookupError("no key")


def work(name: str) -> str:
    said.append(f"work {name}")
    return f"secret {name}"


app = App("case", middleware=[EncryptionMiddleware.factory("key"), Told])


def define(name: str, **options: Any) -> None:
    async def handler(step: Step) -> list[str]:
        found = []
        for each in "abc":
            try:
                found.append(await step.run(each, work, each))
            except Exception:
                said.append("caught")
        return found

    def plain_handler(step: SyncStep) -> list[str]:
        found = []
        for each in "abc":
            try:
                found.append(step.run(each, work, each))
            except Exception:
                said.append("caught")
        return found

    app.function(f"{name}-async", on="case/start", **options)(handler)
    app.function(f"{name}-sync", on="case/start", **options)(plain_handler)


define("runs")
define("fails")
define("fails-buffered", checkpointing=Checkpointing(10))


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    said.clear()
    with fake_api() as api:
        monkeypatch.setenv("INNGEST_DEV", api.url)
        yield api
    post.close()


async def call(name: str, **options: Any) -> Reply:
    body = dumps_bytes(call_object(may_checkpoint=True, **options))
    return await ask_asgi(asgi(app))("POST", query=f"fnId=case-{name}&stepId=step", body=body)


def opened(value: Any) -> Any:
    input = Input("run", 0, 4, [], {"x": {"data": value}})
    EncryptionMiddleware("key").transform_input(input)
    return input.steps["x"]["data"]


@KINDS
async def test_results_are_encrypted_before_they_are_saved(api: FakeApi, kind: str) -> None:
    reply = await call(f"runs-{kind}", steps={hashed("a"): {"data": "secret a"}})

    assert said == [
        "after_memoization", "before_execution", "work b", "output b", "work c", "output c",
        "after_execution", "output handler",
    ]  # fmt: skip
    (saved,) = api.received
    assert b"secret" not in saved.content and b"secret" not in reply.content
    assert opened(saved.body["steps"][0]["data"]) == "secret b"
    assert [opened(op["data"]) for op in reply.body] == [
        "secret c",
        ["secret a", "secret b", "secret c"],
    ]


@KINDS
async def test_nothing_goes_on_after_a_result_that_could_not_be_changed(
    api: FakeApi, kind: str
) -> None:
    reply = await call(f"fails-{kind}")

    assert (reply.status, reply.body["message"]) == (500, "no key")
    assert "caught" not in said and "work c" not in said
    assert [op["displayName"] for each in api.received for op in each.body["steps"]] == ["a"]


@KINDS
async def test_what_was_done_before_a_hook_failed_is_not_lost(api: FakeApi, kind: str) -> None:
    reply = await call(f"fails-buffered-{kind}")

    assert "work c" not in said
    known = [op for each in api.received for op in each.body["steps"]]
    known += reply.body if reply.status == 206 else []
    assert [(op["op"], op["displayName"]) for op in known] == [("StepRun", "a")]
