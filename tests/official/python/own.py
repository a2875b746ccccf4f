"""What the package does by itself, on this engine: middleware, types, streams, web frameworks."""

import asyncio
import importlib
import json
import os
import warnings
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

import fastapi
import flask
import inngest
import pydantic
from inngest.experimental.remote_state_middleware import InMemoryDriver, RemoteStateMiddleware
from tests.official.python.world import (
    World,
    app_host,
    case,
    completed,
    data_of,
    function,
    official_client,
    seen,
)
from tests.support.real_hosts import serving_asgi, serving_wsgi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it still writes pydantic as before version 2
    import inngest.django
    import inngest.fast_api
    import inngest.flask
    import inngest_encryption

SECRET = "4111 1111 1111 1111"


class Noting(inngest.MiddlewareSync):
    """Notes which hooks are called, and changes what passes through."""

    hooks: list[Any]

    def transform_input(self, ctx: Any, function: Any, steps: Any) -> None:
        self.hooks = seen[f"hooks {ctx.run_id}"]
        self.hooks.append(("transform_input", sorted(str(memo.data) for memo in steps.values())))
        ctx.event.data["by middleware"] = True

    def before_execution(self) -> None:
        self.hooks.append("before_execution")

    def after_execution(self) -> None:
        self.hooks.append("after_execution")

    def transform_output(self, result: inngest.TransformOutputResult) -> None:
        self.hooks.append(("transform_output", result.step and result.step.id))
        if result.has_output() and result.output == "step":
            result.output = "step, changed"

    def before_response(self) -> None:
        self.hooks.append("before_response")

    def before_send_events(self, events: list[inngest.Event]) -> None:
        self.hooks.append(("before_send_events", [event.name for event in events]))
        events[0].data = {"added": "by middleware"}

    def after_send_events(self, result: Any) -> None:
        self.hooks.append(("after_send_events", result.ids))


class AsyncNoting(inngest.Middleware):
    """The same in the other form, of which two hooks are enough."""

    async def transform_input(self, ctx: Any, function: Any, steps: Any) -> None:
        seen[f"async hooks {ctx.run_id}"].append(function.local_id)

    async def transform_output(self, result: inngest.TransformOutputResult) -> None:
        if result.step is None:
            result.output = [result.output, "changed"]


@function("with-middleware", middleware=[Noting])
def with_middleware(ctx: inngest.ContextSync) -> Any:
    first = ctx.step.run("first", lambda: "step")
    ids = ctx.step.send_event("send", inngest.Event(name="py/of-middleware"))
    return [first, ids, data_of(ctx)["by middleware"]]


@function("of-middleware")
async def of_middleware(ctx: inngest.Context) -> Any:
    return dict(data_of(ctx))


@case("middleware", "sync functions")
async def the_hooks_of_middleware_are_called(world: World) -> None:
    run = await world.run("py/with-middleware")

    first, [sent], added = completed(run)
    assert (first, added) == ("step, changed", True)
    assert await of_event(world, sent) == {"added": "by middleware"}
    calls, call = [], []
    for hook in seen[f"hooks {run['run_id']}"]:
        call.append(hook)
        if hook == "before_response":
            calls.append(call)
            call = []
    memo = "step, changed"
    assert calls == [
        [
            ("transform_input", []),
            "before_execution",
            "after_execution",
            ("transform_output", "first"),
            "before_response",
        ],
        [
            ("transform_input", [memo]),
            "before_execution",
            ("before_send_events", ["py/of-middleware"]),
            ("after_send_events", [sent]),
            "after_execution",
            ("transform_output", "send"),
            "before_response",
        ],
        [
            ("transform_input", sorted([memo, str([sent])])),
            "before_execution",
            "after_execution",
            ("transform_output", None),
            "before_response",
        ],
    ]


async def of_event(world: World, event_id: str) -> Any:
    """Wait for the one run of an event, and return what it returned."""
    return completed(await world.engine.result(event_id))


@function("with-async-middleware", middleware=[AsyncNoting])
async def with_async_middleware(ctx: inngest.Context) -> str:
    return "result"


@case("middleware")
async def async_middleware_changes_what_a_function_returns(world: World) -> None:
    run = await world.run("py/with-async-middleware")

    assert completed(run) == ["result", "changed"]
    assert seen[f"async hooks {run['run_id']}"] == ["with-async-middleware"]


@case("encryption")
async def what_is_encrypted_is_stored_encrypted(world: World) -> None:
    middleware = [inngest_encryption.EncryptionMiddleware.factory("a passphrase")]
    async with official_client(
        world.engine.url, app_id="encrypted", middleware=middleware
    ) as client:

        @client.create_function(fn_id="pay", trigger=inngest.TriggerEvent(event="py/encrypted"))
        async def pay(ctx: inngest.Context) -> Any:
            async def read() -> Any:
                return {"card": data_of(ctx)["encrypted"]}

            card = await ctx.step.run("read", read)
            await ctx.step.sleep("sleep", 10)
            seen[f"card {ctx.run_id}"].append(card)
            return card

        with app_host(client, [pay]) as host:
            await world.sync(host)
            event = inngest.Event(name="py/encrypted", data={"encrypted": SECRET, "open": 1})
            [event_id] = await client.send(event)
            run = await world.engine.result(event_id)

    assert seen[f"card {run['run_id']}"] == [{"card": SECRET}]
    memos = await world.sql(
        "select memo::text from stepbase.steps where run_id = $1", run["run_id"]
    )
    events = await world.sql("select payload::text from stepbase.events where id = $1", event_id)
    stored = json.dumps([completed(run), *(row[0] for row in (*memos, *events))])
    assert SECRET not in stored
    # The result, the step's and the event's field.
    assert stored.count("__ENCRYPTED__") == 3
    assert json.loads(events[0][0])["data"]["open"] == 1


REMOTE = InMemoryDriver()


@function("remote", middleware=[RemoteStateMiddleware.factory(REMOTE)])
async def remote(ctx: inngest.Context) -> Any:
    async def work() -> str:
        return SECRET

    found = await ctx.step.run("work", work)
    await ctx.step.sleep("sleep", 10)
    return found == SECRET


@case("remote state")
async def results_can_be_kept_elsewhere(world: World) -> None:
    run = await world.run("py/remote")

    assert completed(run) is True
    [memo, _] = await world.sql(
        "select memo::text from stepbase.steps where run_id = $1 order by pos", run["run_id"]
    )
    assert SECRET not in memo[0] and "__REMOTE_STATE__" in memo[0]


class Order(pydantic.BaseModel):
    """A result of one's own type."""

    total: Decimal
    at: datetime


@function("typed", output_type=list[Order])
async def typed(ctx: inngest.Context) -> list[Order]:
    async def order() -> Order:
        return Order(total=Decimal("1.10"), at=datetime(2026, 1, 2, tzinfo=UTC))

    found = await ctx.step.run("order", order, output_type=Order)
    assert isinstance(found, Order)
    return [found]


@function("typed-parent")
async def typed_parent(ctx: inngest.Context) -> Any:
    [found] = await ctx.step.invoke("child", function=typed)
    return [type(found).__name__, str(found.total), found.at.isoformat()]


@case("serializer")
async def results_have_types_of_their_own(world: World) -> None:
    stored = await world.output("py/typed")

    assert stored == [{"total": "1.10", "at": "2026-01-02T00:00:00Z"}]
    assert await world.output("py/typed-parent") == ["Order", "1.10", "2026-01-02T00:00:00+00:00"]


@case("streaming")
async def replies_are_streamed(world: World) -> None:
    async with official_client(world.engine.url, app_id="streaming") as client:
        with serving_asgi(noting_chunks(streaming_site(client))) as host:
            await world.sync(host)
            run = await world.run("py/streaming", {"n": 1})
            failed = await world.run("py/streaming", {"n": 0})

    assert completed(run) == [1, 1, 1]
    assert failed["status"] == "Failed"
    assert failed["output"]["message"] == "final"
    # A step's two attempts, the sleep, the end; the failing run.
    assert seen["statuses"] == [201] * 5
    assert b" " in seen["chunks"]


def streaming_site(client: inngest.Inngest) -> fastapi.FastAPI:
    """Return a site whose function fails in several ways."""

    @client.create_function(
        fn_id="streaming", retries=1, trigger=inngest.TriggerEvent(event="py/streaming")
    )
    async def streaming(ctx: inngest.Context) -> Any:
        if data_of(ctx)["n"] == 0:
            raise inngest.NonRetriableError("final")

        async def work() -> int:
            if ctx.attempt == 0:
                raise inngest.RetryAfterError("later", timedelta(seconds=1))
            # Longer than the time after which it shows that it is alive.
            await asyncio.sleep(3.2)
            return ctx.attempt

        found = await ctx.step.run("work", work)
        await ctx.step.sleep("sleep", 10)
        return [found, data_of(ctx)["n"], len(ctx.events)]

    site = fastapi.FastAPI()
    inngest.fast_api.serve(site, client, [streaming], streaming=inngest.Streaming.FORCE)
    return site


def noting_chunks(site: Any) -> Any:
    """Wrap a site: note the statuses of its answers to calls, and the pieces of their bodies."""

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: MutableMapping[str, Any]) -> None:
            if scope.get("method") == "POST" and "status" in message:
                seen["statuses"].append(message["status"])
            elif "body" in message:
                seen["chunks"].append(message["body"])
            await send(message)

        await site(scope, receive, note)

    return noting


def framework_function(client: inngest.Inngest) -> inngest.Function[Any]:
    """Declare a function whose event is called like its app."""
    trigger = inngest.TriggerEvent(event=f"py/{client.app_id}")

    @client.create_function(fn_id="f", retries=1, trigger=trigger)
    def declared(ctx: inngest.ContextSync) -> Any:
        def work() -> int:
            if ctx.attempt == 0:
                raise ValueError("once")
            return ctx.attempt

        return [ctx.step.run("work", work), data_of(ctx)["n"]]

    return declared


@case("adapters", "sync functions")
async def flask_serves_functions(world: World) -> None:
    async with official_client(world.engine.url, app_id="flask") as client:
        site = flask.Flask("site")
        inngest.flask.serve(site, client, [framework_function(client)])
        with serving_wsgi(site) as host:
            await world.sync(host)
            assert await world.output("py/flask", {"n": 1}) == [1, 1]


def django_site(*urls: Any) -> Any:
    """Return a Django site with these URLs and no others, whatever the settings say."""
    with mock.patch.dict(os.environ, {"DJANGO_SETTINGS_MODULE": "tests.support.django_settings"}):
        importlib.import_module("django").setup()
    site: Any = importlib.import_module("django.core.handlers.wsgi").WSGIHandler()
    answer = site.get_response

    def get_response(request: Any) -> Any:
        request.urlconf = urls
        return answer(request)

    site.get_response = get_response
    return site


@case("adapters", "sync functions")
async def django_serves_functions(world: World) -> None:
    async with official_client(world.engine.url, app_id="django") as client:
        site = django_site(inngest.django.serve(client, [framework_function(client)]))
        with serving_wsgi(site) as host:
            await world.sync(host)
            assert await world.output("py/django", {"n": 1}) == [1, 1]


@case("adapters")
async def fastapi_serves_functions_at_another_path(world: World) -> None:
    async with official_client(world.engine.url, app_id="elsewhere") as client:

        @client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="py/elsewhere"))
        async def elsewhere(ctx: inngest.Context) -> Any:
            return data_of(ctx)["n"]

        site = fastapi.FastAPI()
        inngest.fast_api.serve(site, client, [elsewhere], serve_path="/functions/of/mine")
        with serving_asgi(site) as host:
            await world.sync(host, "/functions/of/mine")
            assert await world.output("py/elsewhere", {"n": 1}) == 1
