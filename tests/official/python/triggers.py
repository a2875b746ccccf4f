"""What starts functions: events, with their ids and times, expressions, schedules, and the end of runs."""

import asyncio
import time
from typing import Any

import inngest
from aiohttp import web
from tests.official.python.world import (
    APP,
    World,
    case,
    completed,
    data_of,
    function,
    official_client,
    seen,
)

TriggerEvent = inngest.TriggerEvent
ENDS = ("py/returns", "py/raises", "py/cancelled")


@function("event-fields")
async def event_fields(ctx: inngest.Context) -> Any:
    return [ctx.event.model_dump(), [each.model_dump() for each in ctx.events]]


@case("event fields")
async def events_arrive_as_they_were_sent(world: World) -> None:
    sent: dict[str, Any] = {
        "name": "py/event-fields",
        "data": {"text": 'ü "\n 漢字 🎈', "n": 1.5, "none": None, "list": [[], {}], "big": 2**53},
        "id": "an id",
        "ts": int(time.time() * 1000) - 5_000,
    }

    event, events = await world.output(**sent)

    assert event == sent
    assert events == [sent]


@case("event fields")
async def what_an_event_lacks_is_filled_in(world: World) -> None:
    before = int(time.time() * 1000)
    event_id = await world.send("py/event-fields")
    event, _ = completed(await world.engine.result(event_id))

    assert event["id"] == event_id
    assert event["data"] == {}
    assert before <= event["ts"] <= time.time() * 1000


@case("event fields", "sync functions")
async def events_are_sent_by_sync_code_too(world: World) -> None:
    event = inngest.Event(name="py/event-fields", data={"n": 1})
    [event_id] = await asyncio.to_thread(world.client.send_sync, event)

    found, _ = completed(await world.engine.result(event_id))
    assert (found["id"], found["data"]) == (event_id, {"n": 1})


@function("same-id")
async def same_id(ctx: inngest.Context) -> Any:
    return data_of(ctx)["n"]


@case("event id")
async def an_id_starts_a_function_once(world: World) -> None:
    first = await world.send("py/same-id", {"n": 1}, id="only once")
    await world.engine.result(first)
    second = await world.send("py/same-id", {"n": 2}, id="only once")

    assert first != second
    assert await world.not_started(second) == ["duplicate"]
    assert await world.engine.runs_of(second) == []
    assert (await world.engine.result(first))["output"] == 1


@case("event id seed")
async def a_request_that_is_sent_again_is_stored_once(world: World) -> None:
    answers: list[Any] = []
    seeds: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        seeds.append(request.headers["x-inngest-event-id-seed"])
        body = await request.read()
        headers = {"x-inngest-event-id-seed": seeds[-1]}
        answers.append(await world.engine.request("POST", request.path, body, headers))
        # The first answer is lost on its way.
        return web.json_response(answers[-1][1], status=503 if len(answers) == 1 else 200)

    proxy = web.Application()
    proxy.router.add_post("/e/{key}", forward)
    runner = web.AppRunner(proxy)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    events = [inngest.Event(name="py/same-id", data={"n": n}) for n in (1, 2)]

    async with official_client(origin) as client:
        ids = await client.send(events)
    await runner.cleanup()

    assert len(seeds) == 2 and len(set(seeds)) == 1
    assert answers[0] == answers[1]
    assert ids == answers[0][1]["ids"]
    assert [completed(await world.engine.result(each)) for each in ids] == [1, 2]


@function("in-the-future")
async def in_the_future(ctx: inngest.Context) -> Any:
    return time.time() * 1000


@case("future event")
async def an_event_of_the_future_starts_then(world: World) -> None:
    ts = int(time.time() * 1000) + 1_000

    assert await world.output("py/in-the-future", ts=ts) >= ts


@function("several", [TriggerEvent(event="py/several.a"), TriggerEvent(event="py/several.b")])
async def several(ctx: inngest.Context) -> Any:
    return ctx.event.name


@case("several triggers")
async def each_trigger_starts_the_function(world: World) -> None:
    assert await world.output("py/several.a") == "py/several.a"
    assert await world.output("py/several.b") == "py/several.b"


@function("wildcard", [TriggerEvent(event="py/any/*"), TriggerEvent(event="py.any.*")])
async def wildcard(ctx: inngest.Context) -> Any:
    return ctx.event.name


@case("wildcard trigger")
async def wildcards_stand_for_what_follows(world: World) -> None:
    for name in ("py/any/thing", "py/any/thing/at.all", "py.any.thing"):
        assert await world.output(name) == name
    for name in ("py/any", "py/anything"):
        assert await world.engine.runs_of(await world.send(name)) == []


@function("expression", TriggerEvent(event="py/expression", expression="event.data.n > 10"))
async def expression(ctx: inngest.Context) -> Any:
    return data_of(ctx)["n"]


@case("trigger expression")
async def an_expression_chooses_the_events(world: World) -> None:
    assert await world.output("py/expression", {"n": 11}) == 11
    for data in ({"n": 10}, {}):
        assert await world.engine.runs_of(await world.send("py/expression", data)) == []


@function("hourly", inngest.TriggerCron(cron="TZ=Europe/Berlin 30 4 * * *"))
async def hourly(ctx: inngest.Context) -> None:
    seen["hourly"].append(ctx.event)


@function("jittered", inngest.TriggerCron(cron="0 4 * * *", jitter="5m"))
def jittered(ctx: inngest.ContextSync) -> None:
    seen["jittered"].append(ctx.event)


SCHEDULED = """
    select c.scheduled_at, extract(epoch from next_at - scheduled_at)::float as jitter,
           to_char(scheduled_at at time zone $2, 'HH24:MI') as local
      from stepbase.crons c join stepbase.functions f using (function_id)
      where f.slug = $1 and c.scheduled_at is not null"""
FIRE = """
    update stepbase.crons c set next_at = stepbase.now() from stepbase.functions f
      where f.function_id = c.function_id and f.slug = $1"""


async def fires(world: World, fn_id: str, zone: str) -> Any:
    """Wait until a schedule has its instant, bring that near, and return what was known of it."""
    slug, rows = f"{APP}-{fn_id}", []

    async def is_known() -> bool:
        rows.extend(await world.sql(SCHEDULED, slug, zone))
        return bool(rows)

    await world.until(is_known)
    await world.sql(FIRE, slug)
    await world.until(lambda: seen[fn_id])
    return rows[0]


@case("cron")
async def a_schedule_fires_in_its_time_zone(world: World) -> None:
    row = await fires(world, "hourly", "Europe/Berlin")

    [event] = seen["hourly"]
    assert event.name == "inngest/scheduled.timer"
    assert event.data["cron"] == "TZ=Europe/Berlin 30 4 * * *"
    assert row["local"] == "04:30"
    assert row["jitter"] == 0


@case("cron jitter")
async def jitter_delays_a_schedule(world: World) -> None:
    row = await fires(world, "jittered", "UTC")

    [event] = seen["jittered"]
    assert event.data["cron"] == "0 4 * * *"
    assert row["local"] == "04:00"
    assert 1 <= row["jitter"] < 300


@function(
    "ends",
    [
        TriggerEvent(
            event=f"inngest/function.{how}",
            expression=f"event.data.event.name in {list(ENDS)}",
        )
        for how in ("finished", "failed", "cancelled")
    ],
)
async def ends(ctx: inngest.Context) -> None:
    seen[f"{ctx.event.name} {data_of(ctx)['run_id']}"].append(data_of(ctx))


@function("returns")
async def returns(ctx: inngest.Context) -> Any:
    return {"n": data_of(ctx)["n"]}


@function("raises", retries=0)
async def raises(ctx: inngest.Context) -> None:
    raise ValueError("no luck")


@function("cancelled", cancel=[inngest.Cancel(event="py/cancelled.now")])
async def cancelled(ctx: inngest.Context) -> None:
    await ctx.step.sleep("long", 3_600_000)


@case("finished events")
async def a_completed_run_is_told(world: World) -> None:
    run = await world.run("py/returns", {"n": 1})

    data = await world.finished_event(run["run_id"])
    assert data["function_id"] == f"{APP}-returns"
    assert data["result"] == {"n": 1}
    assert data["event"]["name"] == "py/returns"
    assert data["event"]["data"] == {"n": 1}


@case("finished events")
async def a_failed_run_is_told_twice(world: World) -> None:
    run = await world.run("py/raises")

    assert run["status"] == "Failed"
    for name in ("finished", "failed"):
        data = await world.finished_event(run["run_id"], name)
        assert data["function_id"] == f"{APP}-raises"
        assert data["error"]["name"] == "ValueError"
        assert data["error"]["message"] == "no luck"
    assert f"inngest/function.cancelled {run['run_id']}" not in seen


@case("finished events", "cancel on")
async def a_cancelled_run_is_told_twice(world: World) -> None:
    event_id = await world.send("py/cancelled")
    run_id = await world.started(event_id)
    await world.waits(run_id, "sleep")
    await world.send("py/cancelled.now")

    assert (await world.engine.result(event_id))["status"] == "Cancelled"
    for name in ("finished", "cancelled"):
        data = await world.finished_event(run_id, name)
        assert data["function_id"] == f"{APP}-cancelled"
        assert data["event"]["name"] == "py/cancelled"
    assert f"inngest/function.failed {run_id}" not in seen
