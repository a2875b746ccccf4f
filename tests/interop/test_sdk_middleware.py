"""The hooks that the official Python package calls too are called in the same order for the same request."""

import datetime
import warnings
from typing import Any

import fastapi
import inngest
import pytest
from tests.support.sdk_calls import call_body, event, hashed
from tests.support.sdk_hosts import Ask, ask_asgi

from stepbase import App, Event, Middleware, Step, asgi
from stepbase.middleware import Input, Output, Response

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it still writes pydantic as before version 2
    import inngest.fast_api

said: list[str] = []


def shown(step: str | None, data: Any, error: str | None) -> str:
    return f"transform_output {step or 'handler'}: {error or data!r}"


class Ours(Middleware):
    def transform_input(self, input: Input) -> None:
        said.append(f"transform_input {len(input.steps)}")

    def before_execution(self) -> None:
        said.append("before_execution")

    def after_execution(self) -> None:
        said.append("after_execution")

    def transform_output(self, output: Output) -> None:
        step = output.step.step_id if output.step else None
        said.append(shown(step, output.data, output.error["message"] if output.error else None))

    def before_response(self, response: Response) -> None:
        said.append("before_response")


class Theirs(inngest.MiddlewareSync):
    def transform_input(self, ctx: Any, function: Any, steps: Any) -> None:
        said.append(f"transform_input {steps.size}")

    def before_execution(self) -> None:
        said.append("before_execution")

    def after_execution(self) -> None:
        said.append("after_execution")

    def transform_output(self, result: inngest.TransformOutputResult) -> None:
        data = result.output if result.has_output() else None
        step = result.step.id if result.step else None
        said.append(shown(step, data, str(result.error) if result.error else None))

    def before_response(self) -> None:
        said.append("before_response")


def ours() -> Ask:
    app = App("app", middleware=[Ours])

    @app.function("f", on="case/start")
    async def f(event: Event[dict[str, Any]], step: Step) -> str:
        async def work() -> int:
            if event.data.get("fails"):
                raise ValueError("broken")
            return 1

        await step.run("one", work)
        await step.sleep("nap", "1s")
        if event.data.get("raises"):
            raise ValueError("late")
        return "done"

    return ask_asgi(asgi(app))


def theirs() -> Ask:
    client = inngest.Inngest(app_id="app", is_production=False, middleware=[Theirs])

    @client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="case/start"))
    async def f(ctx: inngest.Context) -> str:
        async def work() -> int:
            if ctx.event.data.get("fails"):
                raise ValueError("broken")
            return 1

        await ctx.step.run("one", work)
        await ctx.step.sleep("nap", datetime.timedelta(seconds=1))
        if ctx.event.data.get("raises"):
            raise ValueError("late")
        return "done"

    application = fastapi.FastAPI()
    inngest.fast_api.serve(application, client, [f])
    return ask_asgi(application)


ONE = {hashed("one"): {"data": 1}}
BOTH = {**ONE, hashed("nap"): None}
FAILED = {hashed("one"): {"error": {"name": "ValueError", "message": "broken"}}}


async def hooks(ask: Ask, data: dict[str, Any], steps: dict[str, Any]) -> list[str]:
    said.clear()
    body = call_body(event(data=data), steps=steps)
    await ask("POST", query="fnId=app-f&stepId=step", body=body)
    return list(said)


@pytest.mark.parametrize(
    ("data", "steps"),
    [({}, {}), ({"fails": True}, {}), ({}, BOTH)],
    ids=["step", "failing step", "return"],
)
async def test_the_same_hooks(
    data: dict[str, Any], steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    mine = await hooks(ours(), data, steps)

    assert mine == await hooks(theirs(), data, steps)
    assert len(mine) == 5


@pytest.mark.parametrize(
    ("data", "steps", "message"),
    [({}, FAILED, "broken"), ({"raises": True}, BOTH, "late")],
    ids=["failed step, not caught", "raise"],
)
async def test_the_specification_wants_after_execution_also_when_the_handler_raises(
    data: dict[str, Any], steps: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")

    mine = await hooks(ours(), data, steps)

    assert mine[2:4] == ["after_execution", f"transform_output handler: {message!r}"]
    mine.remove("after_execution")
    assert mine == await hooks(theirs(), data, steps)


async def test_only_what_ran_has_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleep that is handed to the server has `transform_step_input` instead."""
    monkeypatch.setenv("INNGEST_DEV", "1")

    mine = await hooks(ours(), {}, ONE)

    their = await hooks(theirs(), {}, ONE)
    their.remove("transform_output nap: None")
    assert mine == their
