"""What the server adds: requests to models, state too large for a call, limits, syncs."""

from functools import partial
from typing import Any

import inngest
import pytest
from aiohttp import web
from inngest._internal.errors import SendEventsError
from inngest.experimental.ai import anthropic, deepseek, gemini, grok, openai
from tests.official.python.world import (
    APP,
    World,
    app_host,
    case,
    completed,
    data_of,
    function,
    official_client,
)

MIB = 1024 * 1024
ADAPTERS: dict[str, Any] = {
    "openai": openai, "anthropic": anthropic, "gemini": gemini, "grok": grok, "deepseek": deepseek,
}  # fmt: skip
MESSAGES = [{"role": "user", "content": "hi"}]


def adapter(name: str, url: str) -> Any:
    """Return the adapter of a provider, for a provider of our own."""
    return ADAPTERS[name].Adapter(auth_key=f"key-of-{name}", base_url=url, model=f"{name}-1")


@function("infer", retries=1)
async def infer(ctx: inngest.Context) -> Any:
    name, url = data_of(ctx)["name"], data_of(ctx)["url"]
    return await ctx.step.ai.infer("ask", adapter=adapter(name, url), body={"messages": MESSAGES})


@function("infer-sync", retries=1)
def infer_sync(ctx: inngest.ContextSync) -> Any:
    url = data_of(ctx)["url"]
    try:
        return ctx.step.ai.infer("ask", adapter=adapter("openai", url), body={"messages": MESSAGES})
    except inngest.StepError as error:
        return error.name


class Provider:
    """Speaks like every provider: answers with what it was asked, the first time with a 500."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.failures = 1

    async def answer(self, request: web.Request) -> web.Response:
        """Answer, or fail."""
        body = await request.json()
        self.asked.append(body)
        if len(self.asked) <= self.failures:
            return web.json_response({"error": "overloaded"}, status=500)
        keys = {
            "authorization": request.headers.get("authorization"),
            "x-api-key": request.headers.get("x-api-key"),
            "key": ", ".join(request.query.getall("key", [])) or None,
        }
        said = {name: key for name, key in keys.items() if key is not None}
        return web.json_response({"path": request.path, "keys": said, "body": body})

    async def start(self) -> tuple[web.AppRunner, str]:
        """Listen; return what to clean up, and the origin."""
        site = web.Application()
        site.router.add_post("/{path:.*}", self.answer)
        runner = web.AppRunner(site)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


EXPECTED: dict[str, Any] = {
    "openai": ("/v1/chat/completions", {"authorization": "Bearer key-of-openai"}),
    "anthropic": ("/v1/messages", {"x-api-key": "key-of-anthropic"}),
    "gemini": ("/v1/models/gemini-1:generateContent", {"key": "key-of-gemini"}),
    "grok": ("/v1/chat/completions", {"authorization": "Bearer key-of-grok"}),
    "deepseek": ("/v1/chat/completions", {"authorization": "Bearer key-of-deepseek"}),
}


@case("step.ai.infer")
async def the_server_asks_the_model(world: World) -> None:
    for name, (path, keys) in EXPECTED.items():
        provider = Provider()
        runner, url = await provider.start()
        found = await world.output("py/infer", {"name": name, "url": f"{url}/v1"})
        await runner.cleanup()

        assert len(provider.asked) == 2
        assert (found["path"], found["keys"]) == (path, keys)
        assert found["body"]["messages"] == MESSAGES
        assert found["body"]["model"] == f"{name}-1"


@case("step.ai.infer", "sync functions")
async def what_a_model_refuses_is_an_error_of_the_step(world: World) -> None:
    provider = Provider()
    provider.failures = 2
    runner, url = await provider.start()
    found = await world.output("py/infer-sync", {"url": f"{url}/v1"})
    await runner.cleanup()

    assert found == "AIGatewayError"
    assert len(provider.asked) == 2


@function("big-state")
async def big_state(ctx: inngest.Context) -> Any:
    async def work(size: int) -> str:
        return "x" * size

    found = [await ctx.step.run("work", work, int(1.5 * MIB)) for _ in range(4)]
    return [len(each) for each in found] + [len(ctx.events)]


@function("big-state-sync", batch_events=inngest.Batch(max_size=3, timeout=60_000))
def big_state_sync(ctx: inngest.ContextSync) -> Any:
    found = [ctx.step.run("work", lambda: "x" * int(1.5 * MIB)) for _ in range(2)]
    return [len(each) for each in found] + [event.data["n"] for event in ctx.events]


@case("big state")
async def memos_too_large_for_a_call_are_fetched(world: World) -> None:
    assert await world.output("py/big-state") == [int(1.5 * MIB)] * 4 + [1]


@case("big state", "batch", "sync functions")
async def events_too_large_for_a_call_are_fetched(world: World) -> None:
    filler = "x" * MIB
    first, *_ = [
        await world.send("py/big-state-sync", {"n": n, "filler": filler}) for n in range(3)
    ]

    found = completed(await world.engine.result(first))
    assert found == [int(1.5 * MIB)] * 2 + [0, 1, 2]


@function("output", retries=0)
async def output(ctx: inngest.Context) -> Any:
    return "x" * data_of(ctx)["size"]


@function("step-output", retries=0)
async def step_output(ctx: inngest.Context) -> Any:
    async def work() -> str:
        return "x" * int(data_of(ctx)["size"])

    return len(await ctx.step.run("work", work))


@function("many-steps", retries=0)
def many_steps(ctx: inngest.ContextSync) -> Any:
    def work(number: int) -> int:
        return number

    count = data_of(ctx)["count"]
    steps = tuple(partial(ctx.step.run, f"step {n}", work, n) for n in range(count))
    return sum(ctx.group.parallel(steps))


@case("big output")
async def results_have_a_limit(world: World) -> None:
    largest = 4 * MIB - 2  # with its quotes

    assert len(await world.output("py/output", {"size": largest})) == largest
    run = await world.run("py/output", {"size": largest + 1})
    assert (run["status"], run["output"]["name"]) == ("Failed", "OutputTooLarge")


@case("big output", "big state")
async def results_of_steps_have_a_limit(world: World) -> None:
    assert await world.output("py/step-output", {"size": 4 * MIB - 100}) == 4 * MIB - 100
    run = await world.run("py/step-output", {"size": 4 * MIB + 1})
    assert run["status"] == "Failed"
    assert "4194304" in run["output"]["message"]


@case("big output", "parallel")
async def a_run_has_at_most_a_thousand_steps(world: World) -> None:
    run = await world.run("py/many-steps", {"count": 1_001})

    assert run["status"] == "Failed"
    assert "1000" in run["output"]["message"] or "1,000" in run["output"]["message"]


@case("big output")
async def events_have_a_limit(world: World) -> None:
    with pytest.raises(SendEventsError) as refused:
        await world.send("py/output", {"size": 0, "filler": "x" * 3 * MIB})
    assert "3" in str(refused.value)

    with pytest.raises(SendEventsError):
        await world.send_all("py/no-one", *({} for _ in range(5_001)))
    assert len(await world.send_all("py/no-one", *({} for _ in range(5_000)))) == 5_000


@case("event fields")
async def events_of_the_server_cannot_be_sent(world: World) -> None:
    names = ["py/no-one", "inngest/function.finished", "py/no-one"]

    with pytest.raises(SendEventsError) as refused:
        await world.client.send([inngest.Event(name=name) for name in names])

    assert "inngest/function.finished" in str(refused.value) or "reserved" in str(refused.value)
    assert len(refused.value.ids) == 1


def two(client: inngest.Inngest) -> list[inngest.Function[Any]]:
    """Return two functions of an app that start with the same event."""
    trigger = inngest.TriggerEvent(event=f"py/{client.app_id}")

    @client.create_function(fn_id="one", trigger=trigger)
    async def one(ctx: inngest.Context) -> str:
        return "one"

    @client.create_function(fn_id="two", trigger=trigger)
    def two(ctx: inngest.ContextSync) -> str:
        return "two"

    return [one, two]


@case("modified", "sync out of band")
async def a_sync_says_whether_anything_changed(world: World) -> None:
    async with official_client(world.engine.url, app_id="synced") as client:
        functions = two(client)
        with app_host(client, functions) as host:
            assert [(await world.sync(host))["modified"] for _ in range(3)] == [True, False, False]
            runs = await world.engine.ended(await world.send("py/synced"), 2)
            assert sorted(run["output"] for run in runs) == ["one", "two"]
        with app_host(client, functions[1:]) as host:
            # Another address, and a function less.
            assert (await world.sync(host))["modified"] is True
            assert await world.output("py/synced") == "two"
            assert (await world.sync(host))["modified"] is False


@case("sync out of band")
async def an_app_that_is_asked_by_anyone_registers_itself(world: World) -> None:
    async with official_client(world.engine.url, app_id="asked") as client:
        with app_host(client, two(client)) as host:
            status, answer = await world.ask("PUT", host)

    assert (status, answer["ok"], answer["modified"]) == (200, True, True)


@case("introspection")
async def an_app_says_what_it_is(world: World) -> None:
    status, answer = await world.ask("GET", world.host)

    assert status == 200
    assert answer["mode"] == "dev"
    assert answer["has_signing_key"] is False
    rows = await world.sql(
        """select count(*) from stepbase.functions
             where slug like $1 and slug not like '%-failure' and archived_at is null""",
        f"{APP}-%",
    )
    assert answer["function_count"] == rows[0][0]
