"""The same app twice: with stepbase and with the official Python package, for differential tests.

One function per handler kind; what it does is chosen by `event.data.k`, so that both sides get the very
same request bytes.
"""

import datetime
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fastapi
import inngest
from tests.support.peers_parallel import UNTIL, AsyncGroups, SyncGroups
from tests.support.sdk_hosts import Ask, ask_asgi

import stepbase
from stepbase import asgi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it still writes pydantic as before version 2
    import inngest.fast_api
    from inngest._internal.const import Streaming
    from inngest.experimental.ai import openai

APP = "app"
KEY = "signkey-test-" + "0123456789abcdef" * 2
FALLBACK = "signkey-test-" + "fedcba9876543210" * 2
EVENT_KEY = "evkey"
HOUR = datetime.timedelta(hours=1)
NOT_JSON = object()
FETCH_URL = "https://models.example/q"
FETCH_ID = "step.fetch: models.example"
"""What TypeScript calls the step, which has no id of its own there."""
FETCH: dict[str, Any] = {"method": "POST", "headers": {"x-a": "b"}, "body": '{"q":1}'}


@dataclass(frozen=True)
class Peers:
    """Both apps, and how to ask them."""

    ours: Ask
    theirs: Ask
    client: inngest.Inngest


def value(name: str) -> Any:
    """Return what a step or a handler gives back."""
    return {
        "object": {"a": 1},
        "none": None,
        "zero": 0,
        "empty": "",
        "list": [],
        "false": False,
        "float": 1.5,
        "text": 'ü "quoted" \n 漢字 🎈',
        "not json": NOT_JSON,
    }[name]


class Peer:
    """What the two packages spell differently."""

    def __init__(
        self,
        non_retriable: Callable[[str], Exception],
        retry_after: Callable[[str], Exception],
        step_error: type[Exception],
        condition: str,
    ) -> None:
        self.non_retriable = non_retriable
        self.retry_after = retry_after
        self.step_error = step_error
        self.condition = condition

    def fail(self, how: str) -> None:
        """Raise what a step or a handler raises."""
        if how == "error":
            raise ValueError("boom")
        if how == "cause":
            raise ValueError("boom") from KeyError("why")
        if how == "final":
            raise self.non_retriable("never again")
        raise self.retry_after("later")

    def wait(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a wait, after the step's id."""
        return {"event": "order/paid", "timeout": HOUR, self.condition: data.get("if")}

    def invoke(self, target: Any) -> dict[str, Any]:
        """Return the arguments of an invoke, after the step's id."""
        return {"function": target, "data": {"z": 1}}

    def invoke_by_id(self, step: Any) -> Any:
        """Invoke a function of another app."""
        data = {"z": 1}
        if self is OURS:
            return step.invoke("a", "app2-f2", data, timeout=HOUR)
        return step.invoke_by_id("a", app_id="app2", function_id="f2", data=data, timeout=HOUR)

    def infer(self, step: Any) -> Any:
        """Ask a model that speaks OpenAI's chat API."""
        messages = [{"role": "user", "content": "hi"}]
        url, headers = "https://models.example/v1", {"x-extra": "1"}
        if self is OURS:
            return step.ai.openai(
                "a", model="m", messages=messages, auth_key="k", base_url=url, headers=headers
            )
        adapter = openai.Adapter(auth_key="k", base_url=url, headers=headers, model="m")
        return step.ai.infer("a", adapter=adapter, body={"messages": messages})


OURS = Peer(
    stepbase.NonRetriableError,
    lambda message: stepbase.RetryAfterError(message, 5),
    stepbase.StepError,
    "if_",
)
THEIRS = Peer(
    inngest.NonRetriableError,
    lambda message: inngest.RetryAfterError(message, 5000),
    inngest.StepError,
    "if_exp",
)


@dataclass(frozen=True)
class Async(AsyncGroups):
    """What an async handler of either package does for each `event.data.k`."""

    peer: Peer
    step: Any
    data: dict[str, Any]
    emit: Any
    target: Any
    events: Any
    group: Any = None

    async def act(self) -> Any:
        """Do what the event asks for."""
        return await getattr(self, f"do_{self.data['k']}")()

    async def work(self) -> Any:
        """The work of step "a"."""
        return work(self.peer, self.data)

    async def do_return(self) -> Any:
        return value(self.data["value"])

    async def do_events(self) -> Any:
        return [[each.name, each.id, each.data] for each in self.events]

    async def do_raise(self) -> None:
        self.peer.fail(self.data["fail"])

    async def do_run(self) -> Any:
        return await self.step.run("a", self.work)

    async def do_twice(self) -> Any:
        return [await self.step.run("a", self.work), await self.step.run("a", self.work)]

    async def do_catch(self) -> Any:
        try:
            return await self.step.run("a", self.work)
        except self.peer.step_error as error:
            return caught(error)

    async def do_sleep(self) -> str:
        await self.step.sleep("a", HOUR)
        return "awake"

    async def do_sleep_until(self) -> str:
        await self.step.sleep_until("a", UNTIL)
        return "awake"

    async def do_send(self) -> Any:
        return await self.step.send_event("a", self.emit)

    async def do_wait(self) -> Any:
        found = await self.step.wait_for_event("a", **self.peer.wait(self.data))
        return None if found is None else [found.name, found.id, dict(found.data)]

    async def do_invoke(self) -> Any:
        return await self.step.invoke("a", **self.peer.invoke(self.target))

    async def do_invoke_by_id(self) -> Any:
        return await self.peer.invoke_by_id(self.step)

    async def do_infer(self) -> Any:
        return await self.peer.infer(self.step)

    async def do_wait_for_signal(self) -> Any:
        found = await self.step.wait_for_signal("a", "go", timeout=HOUR, on_conflict="replace")
        return None if found is None else [found.name, found.data]

    async def do_send_signal(self) -> str:
        await self.step.send_signal("a", "go", {"n": 1})
        return "sent"

    async def do_fetch(self) -> Any:
        found = await self.step.fetch(FETCH_ID, FETCH_URL, **FETCH)
        return [found.status, found.headers["x-t"], found.body]

    async def do_nested(self) -> Any:
        async def outer() -> Any:
            return await self.step.run("inner", self.work)

        return await self.step.run("a", outer)


@dataclass(frozen=True)
class Sync(SyncGroups):
    """What a sync handler of either package does for each `event.data.k`."""

    peer: Peer
    step: Any
    data: dict[str, Any]
    emit: Any
    target: Any
    events: Any
    group: Any = None

    def act(self) -> Any:
        """Do what the event asks for."""
        return getattr(self, f"do_{self.data['k']}")()

    def work(self) -> Any:
        """The work of step "a"."""
        return work(self.peer, self.data)

    def do_return(self) -> Any:
        return value(self.data["value"])

    def do_events(self) -> Any:
        return [[each.name, each.id, each.data] for each in self.events]

    def do_raise(self) -> None:
        self.peer.fail(self.data["fail"])

    def do_run(self) -> Any:
        return self.step.run("a", self.work)

    def do_twice(self) -> Any:
        return [self.step.run("a", self.work), self.step.run("a", self.work)]

    def do_catch(self) -> Any:
        try:
            return self.step.run("a", self.work)
        except self.peer.step_error as error:
            return caught(error)

    def do_sleep(self) -> str:
        self.step.sleep("a", HOUR)
        return "awake"

    def do_sleep_until(self) -> str:
        self.step.sleep_until("a", UNTIL)
        return "awake"

    def do_send(self) -> Any:
        return self.step.send_event("a", self.emit)

    def do_wait(self) -> Any:
        found = self.step.wait_for_event("a", **self.peer.wait(self.data))
        return None if found is None else [found.name, found.id, dict(found.data)]

    def do_invoke(self) -> Any:
        return self.step.invoke("a", **self.peer.invoke(self.target))

    def do_invoke_by_id(self) -> Any:
        return self.peer.invoke_by_id(self.step)

    def do_infer(self) -> Any:
        return self.peer.infer(self.step)

    def do_wait_for_signal(self) -> Any:
        found = self.step.wait_for_signal("a", "go", timeout=HOUR, on_conflict="replace")
        return None if found is None else [found.name, found.data]

    def do_send_signal(self) -> str:
        self.step.send_signal("a", "go", {"n": 1})
        return "sent"

    def do_fetch(self) -> Any:
        found = self.step.fetch(FETCH_ID, FETCH_URL, **FETCH)
        return [found.status, found.headers["x-t"], found.body]

    def do_nested(self) -> Any:
        return self.step.run("a", lambda: self.step.run("inner", self.work))


def work(peer: Peer, data: dict[str, Any]) -> Any:
    """Fail or return, as `data` says."""
    if "fail" in data:
        peer.fail(data["fail"])
    return value(data.get("value", "object"))


def caught(error: Any) -> dict[str, Any]:
    """Show a caught step error."""
    return {"caught": error.message, "name": error.name}


Data = stepbase.Event[dict[str, Any]]
Failed = stepbase.Event[stepbase.FunctionFailed[dict[str, Any]]]


def our_app() -> stepbase.App:
    """Return the app written for stepbase."""
    app = stepbase.App(APP)
    emit = stepbase.Event("order/paid", {"a": 1})

    async def failed(event: Failed, step: stepbase.Step) -> Any:
        return await step.run("a", noted, event.data.error.message, event.data.event)

    def sync_failed(event: Failed, step: stepbase.SyncStep) -> Any:
        return step.run("a", noted, event.data.error.message, event.data.event)

    @app.function("async", on="case/start", on_failure=failed)
    async def handler(event: Data, events: list[Data], step: stepbase.Step) -> Any:
        return await Async(OURS, step, event.data, emit, handler, events).act()

    @app.function("sync", on="case/start", on_failure=sync_failed)
    def sync_handler(event: Data, events: list[Data], step: stepbase.SyncStep) -> Any:
        return Sync(OURS, step, event.data, emit, sync_handler, events).act()

    return app


def noted(message: str, event: Any) -> list[Any]:
    """Show what a failure handler is told."""
    return [message, event.name, event.data]


def their_functions(client: inngest.Inngest) -> list[Any]:
    """Return the same functions for the official package."""
    emit = inngest.Event(name="order/paid", data={"a": 1})
    trigger = inngest.TriggerEvent(event="case/start")

    def told(ctx: Any) -> list[Any]:
        data = ctx.event.data
        return noted(data["error"]["message"], inngest.Event.model_validate(data["event"]))

    async def failed(ctx: inngest.Context) -> Any:
        async def note() -> Any:
            return told(ctx)

        return await ctx.step.run("a", note)

    def sync_failed(ctx: inngest.ContextSync) -> Any:
        return ctx.step.run("a", lambda: told(ctx))

    @client.create_function(fn_id="async", trigger=trigger, on_failure=failed)
    async def handler(ctx: inngest.Context) -> Any:
        data = dict(ctx.event.data)
        return await Async(THEIRS, ctx.step, data, emit, handler, ctx.events, ctx.group).act()

    @client.create_function(fn_id="sync", trigger=trigger, on_failure=sync_failed)
    def sync_handler(ctx: inngest.ContextSync) -> Any:
        data = dict(ctx.event.data)
        return Sync(THEIRS, ctx.step, data, emit, sync_handler, ctx.events, ctx.group).act()

    return [handler, sync_handler]


def build(
    *,
    is_dev: bool,
    origin: str | None = None,
    app: stepbase.App | None = None,
    functions: Any = None,
    streaming: bool = False,
) -> Peers:
    """Serve both; the environment for ours must be set already."""
    client = inngest.Inngest(
        app_id=APP,
        is_production=not is_dev,
        signing_key=None if is_dev else KEY,
        event_key=None if is_dev else EVENT_KEY,
        api_base_url=origin,
        event_api_base_url=origin,
    )
    site = fastapi.FastAPI()
    inngest.fast_api.serve(
        site,
        client,
        (functions or their_functions)(client),
        streaming=Streaming.FORCE if streaming else Streaming.DISABLE,
    )
    return Peers(ask_asgi(asgi(app or our_app(), streaming=streaming)), ask_asgi(site), client)
