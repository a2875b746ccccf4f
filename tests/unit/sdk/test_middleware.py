"""Middleware apart from the order of its hooks (tests/cases/test_middleware.py): what they may change."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.sdk_calls import Reply, call_body, event, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import (
    App,
    Context,
    DefinitionError,
    Event,
    EventData,
    Middleware,
    SendError,
    Step,
    SyncStep,
    asgi,
)
from stepbase.sdk import http
from stepbase.sdk.message import Response
from stepbase.sdk.middleware import Factory, Input, Output, Sent, StepInfo


class Asked(EventData, name="case/asked"):
    number: int


def app_of(
    *middleware: Factory, function: Sequence[Factory] = (), raises: Exception | None = None
) -> App:
    """Return an app of two functions that behave alike."""
    app = App("case", middleware=middleware)

    @app.function("async", on=Asked, middleware=function)
    async def run(event: Event[Asked], step: Step) -> int:
        if raises is not None:
            raise raises
        return event.data.number + await step.run("one", lambda: 1)

    if "async" not in [getattr(each, "kind", "") for each in (*middleware, *function)]:

        @app.function("sync", on=Asked, middleware=function)
        def run_sync(event: Event[Asked], step: SyncStep) -> int:
            if raises is not None:
                raise raises
            return event.data.number + step.run("one", lambda: 1)

    return app


KINDS = ("async", "sync")


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")


async def call(app: App, kind: str = "async", **options: Any) -> Reply:
    first = event(name="case/asked", data={"number": 40})
    body = call_body(first, **options)
    return await ask_asgi(asgi(app))("POST", query=f"fnId=case-{kind}&stepId=step", body=body)


DONE = {hashed("one"): {"data": 1}}


@pytest.mark.parametrize("kind", KINDS)
async def test_input_can_be_changed(kind: str) -> None:
    class Change(Middleware):
        def transform_input(self, input: Input) -> None:
            assert input.run_id and input.attempt == 0 and input.max_attempts == 4
            input.events[0]["data"]["number"] = 50
            input.steps[hashed("one")] = {"data": 5}

    assert (await call(app_of(Change), kind, steps=DONE)).body == 55


@pytest.mark.parametrize("kind", KINDS)
async def test_events_are_checked_after_they_were_changed(kind: str) -> None:
    class Spoil(Middleware):
        def transform_input(self, input: Input) -> None:
            input.events[0]["data"] = {"number": "none"}

    reply = await call(app_of(Spoil), kind)

    assert (reply.status, reply.body["code"]) == (500, "event_invalid")


@pytest.mark.parametrize("kind", KINDS)
async def test_output_of_steps_and_handlers_can_be_changed(kind: str) -> None:
    class Wrap(Middleware):
        def transform_output(self, output: Output) -> None:
            output.data = {"wrapped": output.data}

    class Inner(Middleware):
        def transform_output(self, output: Output) -> None:
            output.data += 1000

    app = app_of(Wrap, function=[Inner])

    assert (await call(app, kind)).op["data"] == {"wrapped": 1001}
    assert (await call(app, kind, steps=DONE)).body == {"wrapped": 1041}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failure_can_be_changed_into_another_and_into_a_result(kind: str) -> None:
    class Soften(Middleware):
        def transform_output(self, output: Output) -> None:
            assert isinstance(output.exception, ValueError)
            if self.function and self.function.name == "async":
                output.error, output.data = None, "softened"
            elif output.error:
                output.error["message"] = "[redacted]"

    app = app_of(Soften, raises=ValueError("a secret"))
    reply = await call(app)
    assert (reply.status, reply.body) == (200, "softened")
    reply = await call(app, "sync")
    assert (reply.status, reply.body["message"]) == (500, "[redacted]")


async def test_a_step_may_end_otherwise_than_it_did() -> None:
    class Turn(Middleware):
        def transform_output(self, output: Output) -> None:
            if output.error is None:
                output.error = {"name": "Refused", "message": "not today"}
            else:
                output.error, output.data = None, "mended"

    app = App("case", middleware=[Turn])

    def fail() -> None:
        raise ValueError("broken")

    @app.function("async", on=Asked)
    async def run(step: Step, event: Event[Asked]) -> None:
        await step.run("one", fail if event.data.number else lambda: 1)

    reply = await call(app, attempt=3)
    assert (reply.op["op"], reply.op["data"]) == ("StepRun", "mended")
    assert "error" not in reply.op and "x-inngest-no-retry" not in reply.headers
    body = call_body(event(name="case/asked", data={"number": 0}))
    reply = await ask_asgi(asgi(app))("POST", query="fnId=case-async&stepId=step", body=body)
    assert (reply.op["op"], reply.op["error"]["name"]) == ("StepError", "Refused")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_server_is_told_of_a_step_can_be_changed(kind: str) -> None:
    class Tell(Middleware):
        def transform_step_input(self, step: StepInfo) -> None:
            step.opts = {"of": step.step_id}

    reply = await call(app_of(Tell), kind, is_planning=True)

    assert (reply.op["op"], reply.op["opts"]) == ("StepPlanned", {"of": "one"})


@pytest.mark.parametrize("kind", KINDS)
async def test_a_response_can_be_changed(kind: str) -> None:
    class Time(Middleware):
        def before_response(self, response: Response) -> None:
            response.headers["server-timing"] = "total;dur=1"

    assert (await call(app_of(Time), kind)).headers["server-timing"] == "total;dur=1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "hook",
    ["transform_input", "before_memoization", "after_memoization", "before_execution", "transform_output"],
)  # fmt: skip
async def test_a_hook_that_raises_fails_the_call(kind: str, hook: str) -> None:
    def refuse(self: Middleware, *_: Any) -> None:
        raise LookupError(f"no {hook}")

    Failing = type("Failing", (Middleware,), {hook: refuse})
    reply = await call(app_of(Failing), kind, steps=DONE)

    assert (reply.status, reply.body["message"]) == (500, f"no {hook}")
    assert "x-inngest-no-retry" not in reply.headers


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_cannot_go_on_without_a_hook_that_failed(kind: str) -> None:
    went_on: list[str] = []

    class Failing(Middleware):
        def before_execution(self) -> None:
            raise LookupError("no connection")

    app = App("case", middleware=[Failing])

    @app.function("async", on=Asked)
    async def run(step: Step) -> None:
        try:
            await step.run("one", lambda: 1)
        except Exception:
            went_on.append("async")

    @app.function("sync", on=Asked)
    def run_sync(step: SyncStep) -> None:
        try:
            step.run("one", lambda: 1)
        except Exception:
            went_on.append("sync")

    reply = await call(app, kind, steps=DONE)

    assert (reply.status, reply.body["message"]) == (500, "no connection")
    assert not went_on


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hook", ["after_execution", "before_response"])
async def test_what_a_step_did_counts_though_a_hook_that_looks_back_fails(
    kind: str, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Middleware, *_: Any) -> None:
        raise LookupError(f"no {hook}")

    Failing = type("Failing", (Middleware,), {hook: refuse})
    with caplog.at_level(logging.ERROR, "stepbase.sdk.hooks"):
        reply = await call(app_of(Failing), kind)

    assert reply.op["data"] == 1
    assert [record.__dict__["hook"] for record in caplog.records] == [hook]


async def test_hooks_may_be_async() -> None:
    said: list[str] = []

    class Slow(Middleware):
        kind = "async"

        async def transform_input(self, input: Input) -> None:
            await asyncio.sleep(0)
            said.append("input")

        async def after_memoization(self) -> None:
            await asyncio.sleep(0)
            said.append("memoized")

        async def before_execution(self) -> None:
            await asyncio.sleep(0)
            said.append("new")

        async def transform_output(self, output: Output) -> None:
            await asyncio.sleep(0)
            said.append(f"output {output.data}")

        @contextlib.asynccontextmanager
        async def around_call(self) -> AsyncIterator[None]:
            said.append("{")
            yield
            said.append("}")

        @contextlib.asynccontextmanager
        async def around_step(self, step: StepInfo) -> AsyncIterator[None]:
            said.append("step {")
            yield
            said.append("} step")

    class Quick(Middleware):
        kind = "async"

        def before_execution(self) -> None:
            said.append("new, plainly")

    app = app_of(Slow, Quick)
    await call(app)
    new = ["{", "input", "memoized", "new", "new, plainly"]
    assert said == [*new, "step {", "} step", "output 1", "}"]
    said.clear()
    assert (await call(app, steps=DONE)).body == 41
    assert said == [*new, "output 41", "}"]


def test_a_plain_handler_refuses_async_hooks_at_definition() -> None:
    class Slow(Middleware):
        async def before_execution(self) -> None: ...

    class SlowAround(Middleware):
        @contextlib.asynccontextmanager
        async def around_call(self) -> AsyncIterator[None]:
            yield

    def plain(step: SyncStep) -> None: ...

    for kind, name in ((Slow, "Slow.before_execution"), (SlowAround, "SlowAround.around_call")):
        with pytest.raises(DefinitionError, match=f'function "f": {name} is async'):
            App("a", middleware=[kind]).function("f", on="x/y")(plain)
        with pytest.raises(DefinitionError, match=f'function "f": {name} is async'):
            App("a").function("f", on="x/y", middleware=[kind])(plain)

    async def handler(step: Step) -> None: ...

    with pytest.raises(DefinitionError, match='on_failure of "a-f": Slow.before_execution is a'):
        App("a").function("f", on="x/y", middleware=[Slow], on_failure=plain)(handler)


class Needy(Middleware):
    def __init__(self, key: str) -> None:
        self.key = key


class Forgot(Middleware):
    def around_step(self, step: StepInfo) -> Iterator[None]:  # type: ignore[override]  # the mistake
        yield


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Needy.factory("s3cret"), "is a list of Middleware classes"),
        ([Needy("s3cret")], r"every call needs an object of its own: write Needy, or Needy.factory\("),
        ([Needy], r"Needy cannot be made: .*missing.*; give its arguments by Needy.factory\("),
        ([str], "str is no Middleware"),
        ([17], "lists Middleware classes"),
        ([lambda: 17], "made no Middleware, but a <class 'int'>"),
        ([Forgot], "around_step is a generator: put @contextmanager"),
    ],
)  # fmt: skip
def test_what_is_no_middleware_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        App("a", middleware=given)

    assert "s3cret" not in str(caught.value)


def test_arguments_do_not_show() -> None:
    assert repr(Needy.factory(key="s3cret")) == "Needy.factory(…)"


async def test_every_call_has_objects_of_its_own() -> None:
    made: list[Needy] = []

    class Kept(Needy):
        def transform_input(self, input: Input) -> None:
            assert self.function is not None and self.function.slug == "case-async"
            assert self.app is app
            made.append(self)

    app = app_of(Kept.factory("k"))
    await call(app)
    await call(app)

    assert len({id(each) for each in made}) == 2 and {each.key for each in made} == {"k"}


async def test_the_failure_handler_has_the_middleware_too() -> None:
    app = App("case")

    class Mark(Middleware):
        def transform_input(self, input: Input) -> None:
            input.extra["mark"] = 1

    async def failed(ctx: Context) -> Any:
        return ctx.extra["mark"]

    @app.function("async", on=Asked, middleware=[Mark], on_failure=failed)
    async def run(step: Step) -> None: ...

    reply = await call(app, "async-failure")

    assert reply.body == 1


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApi]:
    def answer(request: Received) -> tuple[int, Any]:
        return 200, {"ids": [f"id-{i}" for i, _ in enumerate(request.body)], "status": 200}

    with fake_api(answer) as running:
        monkeypatch.setenv("INNGEST_DEV", running.url)
        yield running
        await http.aclose()
        http.close()


told: list[Any] = []


class Stamp(Middleware):
    def before_send_events(self, events: list[Event[Any]]) -> None:
        told.append(self.request is not None)
        for each in events:
            each.data["stamped"] = True

    def after_send_events(self, result: Sent) -> None:
        told.append(result)


async def send(app: App, kind: str, given: Any) -> list[str]:
    if kind == "async":
        return await app.send(given)
    return await asyncio.to_thread(app.send_sync, given)


@pytest.mark.parametrize("kind", KINDS)
async def test_sent_events_can_be_changed_and_the_senders_own_stay(api: FakeApi, kind: str) -> None:
    told.clear()
    given = Event(data=Asked(number=7), id="seven", user={"id": 1}, v="2")
    ids = await send(App("a", middleware=[Stamp]), kind, [given, Event("x/y", {"n": 1})])

    first, second = api.received[0].body
    assert first["data"] == {"number": 7, "stamped": True}
    assert second["data"] == {"n": 1, "stamped": True}
    assert (first["id"], first["user"], first["v"]) == ("seven", {"id": 1}, "2")
    assert given.data == Asked(number=7)
    assert told == [False, Sent(ids)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_sending_is_told(api: FakeApi, kind: str) -> None:
    told.clear()
    api.answer = lambda _: (400, {"error": "no", "ids": ["id-0"]})

    with pytest.raises(SendError):
        await send(App("a", middleware=[Stamp]), kind, Event("x/y"))

    _, result = told
    assert result.ids == ("id-0",) and isinstance(result.error, SendError)


@pytest.mark.parametrize("kind", KINDS)
async def test_events_of_a_step_go_through_the_calls_own_objects(api: FakeApi, kind: str) -> None:
    told.clear()
    app = App("case")

    @app.function("async", on=Asked, middleware=[Stamp])
    async def run(step: Step) -> Any:
        return await step.send_event("tell", Event("x/y"))

    @app.function("sync", on=Asked, middleware=[Stamp])
    def run_sync(step: SyncStep) -> Any:
        return step.send_event("tell", Event("x/y"))

    assert (await call(app, kind)).op["data"] == ["id-0"]
    assert told == [True, Sent(["id-0"])]
    assert api.received[0].body[0]["data"] == {"stamped": True}


async def test_send_sync_refuses_async_hooks(api: FakeApi) -> None:
    class Slow(Middleware):
        async def before_send_events(self, events: list[Event[Any]]) -> None: ...

    app = App("a", middleware=[Slow])

    assert await app.send(Event("x/y")) == ["id-0"]
    with pytest.raises(DefinitionError, match=r"app\.send_sync: Slow\.before_send_events is async"):
        app.send_sync(Event("x/y"))
