"""Steps that wait: for a time, an event, another function; and what sends events."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest
from tests.official.python.world import (
    APP,
    World,
    app_host,
    case,
    completed,
    data_of,
    function,
    official_client,
    seen,
)


def note_time(run_id: str) -> None:
    seen[f"time {run_id}"].append(time.time())


@function("sleep")
async def sleep(ctx: inngest.Context) -> None:
    async def note() -> None:
        note_time(ctx.run_id)

    await ctx.step.run("before", note)
    await ctx.step.sleep("sleep", 300)
    await ctx.step.run("between", note)
    await ctx.step.sleep("sleep longer", timedelta(seconds=0.4))
    await ctx.step.run("after", note)


@function("sleep-sync")
def sleep_sync(ctx: inngest.ContextSync) -> None:
    def note() -> None:
        note_time(ctx.run_id)

    ctx.step.run("before", note)
    ctx.step.sleep("sleep", timedelta(seconds=0.3))
    ctx.step.run("between", note)
    ctx.step.sleep("sleep longer", 400)
    ctx.step.run("after", note)


@case("step.sleep", "sync functions")
async def a_sleep_takes_as_long_as_it_says(world: World) -> None:
    for name in ("py/sleep", "py/sleep-sync"):
        run = await world.run(name)
        assert run["status"] == "Completed"
        before, between, after = seen[f"time {run['run_id']}"]
        # The SDK cuts the end of a sleep to milliseconds.
        assert between - before >= 0.299
        assert after - between >= 0.399


@function("sleep-until")
async def sleep_until(ctx: inngest.Context) -> Any:
    until = datetime.fromtimestamp(data_of(ctx)["until"], UTC)
    await ctx.step.sleep_until("sleep", until)
    await ctx.step.sleep_until("past", datetime(2001, 1, 1, tzinfo=UTC))
    return time.time()


@case("step.sleep_until")
async def a_sleep_ends_at_its_instant(world: World) -> None:
    until = round(time.time() + 0.5, 3)

    assert await world.output("py/sleep-until", {"until": until}) >= until


@function("wait")
async def wait(ctx: inngest.Context) -> Any:
    found = await ctx.step.wait_for_event(
        "wait",
        event="py/paid",
        if_exp="event.data.id == async.data.id && async.data.amount > 10",
        timeout=timedelta(hours=1),
    )
    return found and found.model_dump()


@function("wait-sync")
def wait_sync(ctx: inngest.ContextSync) -> Any:
    found = ctx.step.wait_for_event("wait", event="py/paid", timeout=3_600_000)
    return found and found.model_dump()


@case("step.wait_for_event", "wait condition", "sync functions")
async def an_event_ends_the_waits_it_fits(world: World) -> None:
    choosy = await world.send("py/wait", {"id": 7})
    other = await world.send("py/wait", {"id": 8})
    easy = await world.send("py/wait-sync")
    for event_id in (choosy, other, easy):
        await world.waits(await world.started(event_id), "wait")

    first = await world.send("py/paid", {"id": 7, "amount": 10})
    assert completed(await world.engine.result(easy))["id"] == first
    second = await world.send("py/paid", {"id": 7, "amount": 11})
    found = completed(await world.engine.result(choosy))
    assert (found["name"], found["id"]) == ("py/paid", second)
    assert found["data"] == {"id": 7, "amount": 11}
    assert await world.status(other) == "Running"
    await world.send("py/paid", {"id": 8, "amount": 12})
    assert completed(await world.engine.result(other))["data"]["amount"] == 12


@function("wait-in-vain")
async def wait_in_vain(ctx: inngest.Context) -> Any:
    found = await ctx.step.wait_for_event("wait", event="py/never", timeout=1_000)
    return [found, time.time()]


@case("step.wait_for_event")
async def a_wait_ends_with_nothing_after_its_time(world: World) -> None:
    before = time.time()
    found, at = await world.output("py/wait-in-vain")

    assert found is None
    assert at - before >= 1


@function("child", [], retries=0)
async def child(ctx: inngest.Context) -> Any:
    data = data_of(ctx)
    if data.get("fails"):
        raise ValueError("child failed")
    if data.get("sleeps"):
        await ctx.step.wait_for_event("wait", event="py/child.now", timeout=3_600_000)
    return {"got": data["n"], "event": ctx.event.name}


@function("child-sync", [], retries=0)
def child_sync(ctx: inngest.ContextSync) -> Any:
    return ctx.step.run("step", lambda: "sync child")


@function("parent")
async def parent(ctx: inngest.Context) -> Any:
    by_function = await ctx.step.invoke("by function", function=child, data={"n": 1})
    by_id = await ctx.step.invoke_by_id("by id", function_id="child", data={"n": 2})
    return [by_function, by_id]


@function("parent-sync")
def parent_sync(ctx: inngest.ContextSync) -> Any:
    found = ctx.step.invoke("by function", function=child_sync)
    return [found, ctx.step.invoke_by_id("by id", app_id="second", function_id="far")]


@case("step.invoke", "step.invoke by id", "no trigger")
async def an_invoked_function_answers(world: World) -> None:
    event = "inngest/function.invoked"

    assert await world.output("py/parent") == [
        {"got": 1, "event": event},
        {"got": 2, "event": event},
    ]


@case("step.invoke by id", "sync functions")
async def a_function_of_another_app_answers(world: World) -> None:
    async with official_client(world.engine.url, app_id="second") as client:

        @client.create_function(fn_id="far", trigger=[])
        async def far(ctx: inngest.Context) -> Any:
            return client.app_id

        with app_host(client, [far]) as host:
            await world.sync(host)
            assert await world.output("py/parent-sync") == ["sync child", "second"]


@function("unlucky-parent", retries=0)
async def unlucky_parent(ctx: inngest.Context) -> Any:
    how = str(data_of(ctx)["how"])
    try:
        if how == "unknown":
            await ctx.step.invoke_by_id("child", function_id="nowhere")
        await ctx.step.invoke(
            "child",
            function=child,
            data={"n": how, how: True},
            timeout=1_000 if how == "sleeps" else None,
        )
    except inngest.StepError as error:
        return [error.name, error.message]


@case("failing invoke")
async def the_error_of_an_invoked_function_can_be_caught(world: World) -> None:
    found = await world.output("py/unlucky-parent", {"how": "fails"})

    assert found == ["ValueError", "child failed"]


@case("failing invoke")
async def invoking_an_unknown_function_is_an_error(world: World) -> None:
    _, message = await world.output("py/unlucky-parent", {"how": "unknown"})

    assert f"{APP}-nowhere" in message


@case("failing invoke")
async def an_invoked_function_goes_on_after_the_timeout(world: World) -> None:
    before = time.time()
    name, _ = await world.output("py/unlucky-parent", {"how": "sleeps"})
    assert name == "InngestInvokeTimeoutError"
    assert time.time() - before >= 1

    [row] = await world.sql(
        """select r.run_id, r.event_id from stepbase.runs r join stepbase.events e on e.id = r.event_id
             where e.payload->'data'->>'n' = 'sleeps'"""
    )
    await world.waits(row["run_id"], "wait")
    await world.send("py/child.now")
    run = await world.engine.result(row["event_id"])
    assert completed(run)["got"] == "sleeps"


@function("rationed", [], rate_limit=inngest.RateLimit(limit=1, period=60_000))
async def rationed(ctx: inngest.Context) -> str:
    return "once"


@function("greedy-parent", retries=0)
async def greedy_parent(ctx: inngest.Context) -> Any:
    first = await ctx.step.invoke("first", function=rationed)
    try:
        await ctx.step.invoke("second", function=rationed)
    except inngest.StepError as error:
        return [first, error.name]


@case("failing invoke", "rate limit")
async def an_invoke_that_a_rule_drops_is_an_error(world: World) -> None:
    assert await world.output("py/greedy-parent") == ["once", "InvokeRefused"]


@function("send")
async def send(ctx: inngest.Context) -> Any:
    one = await ctx.step.send_event("one", inngest.Event(name="py/sent", data={"n": 1}))
    two = await ctx.step.send_event(
        "two", [inngest.Event(name="py/sent", data={"n": n}) for n in (2, 3)]
    )
    return [*one, *two]


@function("send-sync")
def send_sync(ctx: inngest.ContextSync) -> Any:
    return ctx.step.send_event("one", inngest.Event(name="py/sent", data={"n": 4}))


@function("sent")
async def sent(ctx: inngest.Context) -> Any:
    return data_of(ctx)["n"]


@case("step.send_event", "sync functions")
async def sent_events_start_functions(world: World) -> None:
    ids = await world.output("py/send")
    ids += await world.output("py/send-sync")

    assert [completed(await world.engine.result(each)) for each in ids] == [1, 2, 3, 4]
