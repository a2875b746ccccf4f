"""Middleware's hooks run in their order, each once, around async and sync handlers alike."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cases.conftest import Call, Drive
from tests.support.sdk_calls import call_body, hashed

from stepbase import App, Context, Event, Middleware, NonRetriableError, Step, StepError, SyncStep
from stepbase.sdk.message import Response
from stepbase.sdk.middleware import Input, Output, StepInfo

said: list[str] = []


class Told(Middleware):
    """Tells of every hook."""

    letter = "a"

    def tell(self, what: str) -> None:
        said.append(f"{self.letter} {what}")

    def transform_input(self, input: Input) -> None:
        self.tell("transform_input")
        assert self.request is not None and self.request.raw is not None
        input.extra.setdefault("opened by", self.letter)

    def before_memoization(self) -> None:
        self.tell("before_memoization")

    def after_memoization(self) -> None:
        self.tell("after_memoization")

    def before_execution(self) -> None:
        self.tell("before_execution")

    def transform_step_input(self, step: StepInfo) -> None:
        self.tell(f"transform_step_input {step.op} {step.step_id}")

    def after_execution(self) -> None:
        self.tell("after_execution")

    def transform_output(self, output: Output) -> None:
        what = output.step.step_id if output.step else "handler"
        if output.error:
            assert output.exception is not None
            self.tell(f"transform_output {what}: {output.error['name']}")
        else:
            self.tell(f"transform_output {what}: {output.data!r}")

    def before_response(self, response: Response) -> None:
        self.tell(f"before_response {response.status}")

    @contextlib.contextmanager
    def around_call(self) -> Iterator[None]:
        self.tell("call {")
        yield
        self.tell("} call")

    @contextlib.contextmanager
    def around_step(self, step: StepInfo) -> Iterator[None]:
        self.tell(f"step {step.step_id} {{")
        try:
            yield
        except ValueError:
            self.tell("saw ValueError")
            raise
        finally:
            self.tell("} step")


class Inner(Told):
    letter = "b"


app = App("case", middleware=[Told])


def work(n: int) -> int:
    said.append("work")
    return n


def break_down() -> int:
    raise ValueError("broken")


async def handle(event: Event[dict[str, Any]], step: Step, ctx: Context) -> str:
    said.append(f"handler, {ctx.extra['opened by']}")
    total = await step.run("one", work, 1)
    if event.data.get("fails"):
        try:
            await step.run("two", break_down)
        except StepError as error:
            return error.message
    await step.sleep("nap", "1s")
    said.append("new code")
    if event.data.get("raises"):
        raise NonRetriableError("no")
    return f"sum {total}"


def handle_sync(event: Event[dict[str, Any]], step: SyncStep, ctx: Context) -> str:
    said.append(f"handler, {ctx.extra['opened by']}")
    total = step.run("one", work, 1)
    if event.data.get("fails"):
        try:
            step.run("two", break_down)
        except StepError as error:
            return error.message
    step.sleep("nap", "1s")
    said.append("new code")
    if event.data.get("raises"):
        raise NonRetriableError("no")
    return f"sum {total}"


app.function("async", on="case/start", middleware=[Inner])(handle)
app.function("sync", on="case/start", middleware=[Inner])(handle_sync)


@pytest.fixture(autouse=True)
def _forget() -> None:
    said.clear()


BEGUN = ["a call {", "b call {", "a transform_input", "b transform_input", "a before_memoization",
         "b before_memoization"]  # fmt: skip
ALL_NEW = ["b after_memoization", "a after_memoization", "a before_execution", "b before_execution"]


async def test_a_call_that_runs_a_step(call: Call) -> None:
    await call(call_body())

    assert said == [
        *BEGUN, *ALL_NEW, "handler, a", "a step one {", "b step one {", "work", "b } step", "a } step",
        "b after_execution", "a after_execution", "b transform_output one: 1", "a transform_output one: 1",
        "b } call", "a } call", "a before_response 206", "b before_response 206",
    ]  # fmt: skip


async def test_a_call_that_hands_a_step_to_the_server(call: Call) -> None:
    await call(call_body(steps={hashed("one"): {"data": 1}}))

    assert said == [
        *BEGUN, "handler, a", *ALL_NEW, "b after_execution", "a after_execution",
        "a transform_step_input Sleep nap", "b transform_step_input Sleep nap", "b } call", "a } call",
        "a before_response 206", "b before_response 206",
    ]  # fmt: skip


async def test_the_call_that_ends_the_run(call: Call) -> None:
    await call(call_body(steps={hashed("one"): {"data": 1}, hashed("nap"): None}))

    assert said == [
        *BEGUN, "handler, a", *ALL_NEW, "new code", "b after_execution", "a after_execution",
        "b transform_output handler: 'sum 1'", "a transform_output handler: 'sum 1'", "b } call", "a } call",
        "a before_response 200", "b before_response 200",
    ]  # fmt: skip


async def test_a_handler_that_raises(call: Call) -> None:
    steps = {hashed("one"): {"data": 1}, hashed("nap"): None}
    first = {"name": "case/start", "data": {"raises": True}, "id": "1", "ts": 1, "user": {}}
    reply = await call(call_body(first, steps=steps))

    assert reply.status == 500
    assert said[-8:] == [
        "b after_execution", "a after_execution",
        "b transform_output handler: NonRetriableError", "a transform_output handler: NonRetriableError",
        "b } call", "a } call", "a before_response 500", "b before_response 500",
    ]  # fmt: skip


async def test_a_step_that_raises_and_is_caught(drive: Drive) -> None:
    first = {"name": "case/start", "data": {"fails": True}, "id": "1", "ts": 1, "user": {}}
    run = await drive(first, max_attempts=1)

    assert run.output == "broken"
    assert said.count("a saw ValueError") == said.count("b saw ValueError") == 1
    assert said.count("a transform_output two: ValueError") == 1
    # The failed step's memo is the last one: after it the code is new.
    at = len(said) - said[::-1].index("handler, a")
    assert said[at : at + 4] == ALL_NEW


async def test_every_hook_runs_once_a_call(drive: Drive) -> None:
    run = await drive()

    assert run.output == "sum 1"
    assert len(run.replies) == 3
    for letter in "ab":
        for hook in ("transform_input", "before_memoization", "after_memoization", "before_execution",
                     "after_execution", "call {", "} call"):  # fmt: skip
            assert said.count(f"{letter} {hook}") == 3, hook
    assert said.count("work") == 1


async def test_new_code_before_the_last_memo(call: Call) -> None:
    await call(call_body(steps={hashed("of older code"): {"data": 1}}))

    assert "a after_memoization" not in said and said.count("a before_execution") == 1
    assert said.index("b before_execution") < said.index("work")
