"""Errors and what follows them: attempts, their times, handlers of failed runs, hosts that are away."""

import time
from datetime import timedelta
from typing import Any

import fastapi
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
from tests.support.real_hosts import serving_asgi


def error_of(run: Any) -> tuple[str, str]:
    """Return the name and the message of the error a run ended with."""
    assert run["status"] == "Failed", run
    return run["output"]["name"], run["output"]["message"]


def note_attempt(ctx: inngest.Context | inngest.ContextSync) -> None:
    """Note that this attempt was made, and when."""
    seen[f"attempts {ctx.run_id}"].append(ctx.attempt)
    seen[f"times {ctx.run_id}"].append(time.monotonic())


def attempts(run: Any) -> list[int]:
    """Return the attempts that were made."""
    return seen[f"attempts {run['run_id']}"]


def first_gap(run: Any) -> float:
    """Return the seconds between the first two attempts."""
    first, second, *_ = seen[f"times {run['run_id']}"]
    return float(second - first)


@function("five-attempts")
async def five_attempts(ctx: inngest.Context) -> None:
    note_attempt(ctx)
    raise KeyError("never")


@case("default retries")
async def five_attempts_are_made_if_nothing_is_said(world: World) -> None:
    run = await world.run("py/five-attempts")

    assert error_of(run) == ("KeyError", "'never'")
    assert attempts(run) == [0, 1, 2, 3, 4]


@function("two-retries", retries=2)
def two_retries(ctx: inngest.ContextSync) -> Any:
    note_attempt(ctx)
    if ctx.attempt < data_of(ctx)["failures"]:
        raise ValueError(f"failure {ctx.attempt}")
    return ctx.attempt


@case("retries", "sync functions")
async def so_many_retries_are_made(world: World) -> None:
    run = await world.run("py/two-retries", {"failures": 2})
    assert completed(run) == 2
    assert attempts(run) == [0, 1, 2]

    run = await world.run("py/two-retries", {"failures": 3})
    assert error_of(run) == ("ValueError", "failure 2")
    assert attempts(run) == [0, 1, 2]


@function("no-retries", retries=0)
async def no_retries(ctx: inngest.Context) -> None:
    note_attempt(ctx)
    raise ValueError("once")


@case("retries")
async def no_retry_is_made_of_none(world: World) -> None:
    run = await world.run("py/no-retries")

    assert error_of(run) == ("ValueError", "once")
    assert attempts(run) == [0]


@function("step-attempts", retries=1)
async def step_attempts(ctx: inngest.Context) -> Any:
    async def flaky(step: str) -> int:
        seen[f"{step} {ctx.run_id}"].append(ctx.attempt)
        if ctx.attempt == 0:
            raise ValueError(step)
        return ctx.attempt

    a = await ctx.step.run("a", flaky, "a")
    b = await ctx.step.run("b", flaky, "b")
    if ctx.attempt == 0:
        raise ValueError("between steps")
    return [a, b, ctx.attempt]


@case("retries", "step.run")
async def each_step_and_what_follows_it_has_its_own_attempts(world: World) -> None:
    run = await world.run("py/step-attempts")

    assert completed(run) == [1, 1, 1]
    assert seen[f"a {run['run_id']}"] == [0, 1]
    assert seen[f"b {run['run_id']}"] == [0, 1]


@function("final")
async def final(ctx: inngest.Context) -> None:
    note_attempt(ctx)

    async def work() -> None:
        raise inngest.NonRetriableError("final in a step")

    if data_of(ctx)["where"] == "step":
        await ctx.step.run("work", work)
    raise inngest.NonRetriableError("final")


@case("NonRetriableError")
async def a_final_error_ends_the_run(world: World) -> None:
    run = await world.run("py/final", {"where": "function"})
    assert error_of(run) == ("NonRetriableError", "final")
    assert attempts(run) == [0]

    run = await world.run("py/final", {"where": "step"})
    assert error_of(run) == ("NonRetriableError", "final in a step")
    assert attempts(run) == [0]


@function("retry-after", retries=1)
async def retry_after(ctx: inngest.Context) -> Any:
    note_attempt(ctx)

    def later() -> None:
        if ctx.attempt == 0:
            raise inngest.RetryAfterError("later", timedelta(seconds=1.5))

    async def work() -> None:
        later()

    if data_of(ctx)["where"] == "step":
        await ctx.step.run("work", work)
    else:
        later()
    return "done"


@case("RetryAfterError")
async def an_error_says_when_the_next_attempt_is_made(world: World) -> None:
    for where in ("function", "step"):
        event_id = await world.send("py/retry-after", {"where": where})
        run = await world.engine.result(event_id)

        assert completed(run) == "done"
        assert attempts(run)[:2] == [0, 1]
        assert first_gap(run) >= 1.49


async def tell(ctx: inngest.Context) -> None:
    async def note() -> Any:
        return data_of(ctx)["error"]["message"]

    note_attempt(ctx)
    message = await ctx.step.run("note", note)
    seen[f"failure of {data_of(ctx)['run_id']}"].append((data_of(ctx), message))
    raise ValueError("a failure handler is called once")


@function("with-handler", retries=1, on_failure=tell)
async def with_handler(ctx: inngest.Context) -> None:
    raise ValueError("no luck")


def tell_sync(ctx: inngest.ContextSync) -> None:
    seen[f"failure of {data_of(ctx)['run_id']}"].append((data_of(ctx), None))


@function("with-sync-handler", retries=0, on_failure=tell_sync)
def with_sync_handler(ctx: inngest.ContextSync) -> None:
    raise inngest.NonRetriableError("no luck")


@case("on failure")
async def a_failed_run_has_its_handler_called(world: World) -> None:
    run = await world.run("py/with-handler", {"n": 1})
    key = f"failure of {run['run_id']}"
    await world.until(lambda: key in seen)

    [(data, message)] = seen[key]
    assert error_of(run) == ("ValueError", "no luck")
    assert message == "no luck"
    assert data["function_id"] == f"{APP}-with-handler"
    assert data["error"]["name"] == "ValueError"
    assert "no luck" in data["error"]["stack"]
    assert data["event"]["name"] == "py/with-handler"
    assert data["event"]["data"] == {"n": 1}
    handler = await handler_run(world, run["run_id"])
    assert error_of(handler) == ("ValueError", "a failure handler is called once")
    # Before the step, and after it.
    assert attempts(handler) == [0, 0]


@case("on failure", "sync functions")
async def a_sync_function_has_a_sync_handler(world: World) -> None:
    run = await world.run("py/with-sync-handler")
    key = f"failure of {run['run_id']}"
    await world.until(lambda: key in seen)

    [(data, _)] = seen[key]
    assert data["error"]["name"] == "NonRetriableError"
    assert (await handler_run(world, run["run_id"]))["status"] == "Completed"


async def handler_run(world: World, run_id: str) -> Any:
    """Wait for the run of a failure handler to end, and return it."""
    [row] = await world.sql(
        """select id from stepbase.events where name = 'inngest/function.failed'
             and payload->'data'->>'run_id' = $1""",
        run_id,
    )
    return await world.engine.result(row["id"])


REFUSED = """
    select 1 from stepbase.queue
      where run_id = $1 and job = 'main' and owner is null and not ready and due_at < 'infinity'"""


async def parked(world: World, fn_id: str, retries: int) -> tuple[str, str, int]:
    """Run a function of an app of its own until it waits, and stop its host.

    Returns the event's id, the run's, and the port of the host.
    """
    async with official_client(world.engine.url, app_id=fn_id) as client:
        declared = fragile(client, fn_id, retries)
        with app_host(client, [declared]) as host:
            await world.sync(host)
            event_id = await world.send(f"py/{fn_id}")
            run_id = await world.started(event_id)
            await world.waits(run_id, "wait")
    return event_id, run_id, int(host.rpartition(":")[2])


def fragile(client: inngest.Inngest, fn_id: str, retries: int) -> inngest.Function[Any]:
    """Declare a function that waits for an event after its first step."""
    trigger = inngest.TriggerEvent(event=f"py/{fn_id}")

    @client.create_function(fn_id=fn_id, retries=retries, trigger=trigger)
    async def declared(ctx: inngest.Context) -> Any:
        async def work() -> str:
            return "done"

        first = await ctx.step.run("first", work)
        await ctx.step.wait_for_event("wait", event=f"py/{fn_id}.now", timeout=60_000)
        return [first, ctx.attempt]

    return declared


@case("failing host")
async def a_host_that_was_away_costs_no_attempt(world: World) -> None:
    event_id, run_id, port = await parked(world, "away", retries=0)
    await world.send("py/away.now")

    async def was_refused() -> bool:
        return bool(await world.sql(REFUSED, run_id))

    await world.until(was_refused)
    async with official_client(world.engine.url, app_id="away") as client:
        with app_host(client, [fragile(client, "away", 0)], port):
            assert completed(await world.engine.result(event_id)) == ["done", 0]


@case("failing host")
async def what_is_no_sdk_costs_attempts(world: World) -> None:
    event_id, _, port = await parked(world, "replaced", retries=1)

    with serving_asgi(fastapi.FastAPI(), port):
        await world.send("py/replaced.now")
        run = await world.engine.result(event_id)

    assert error_of(run)[0] == "NoAnswer"


@case("failing host")
async def a_function_whose_code_is_gone_fails(world: World) -> None:
    event_id, _, port = await parked(world, "forgotten", retries=1)

    async with official_client(world.engine.url, app_id="forgotten") as client:
        with app_host(client, [fragile(client, "another", 0)], port):
            await world.send("py/forgotten.now")
            run = await world.engine.result(event_id)

    name, message = error_of(run)
    assert (name, message) == ("FunctionNotFoundError", "function forgotten-forgotten not found")
