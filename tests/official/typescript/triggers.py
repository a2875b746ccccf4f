"""What starts runs: events, schedules, what happened to other runs."""

import asyncio
import time
from typing import Any

from tests.official.typescript.world import World, case


@case("event fields")
async def all_fields_of_an_event_arrive(world: World) -> None:
    sent = {
        "name": "ts/fields",
        "data": {"text": "ü 🎈", "list": [1, {"a": None}]},
        "id": "an id",
        "ts": 1_600_000_000_000,
        "user": {"email": "ann@example.com"},
        "v": "2020-01-01.1",
    }
    [event_id] = await world.send_all(sent)
    run = await world.engine.result(event_id)

    assert {name: run["output"]["event"][name] for name in sent} == sent
    assert run["output"]["runId"] == run["run_id"]
    assert run["output"]["same"] and run["output"]["attempt"] == 0


@case("event id")
async def an_id_starts_a_function_once(world: World) -> None:
    k = world.key()
    event = {"name": "ts/noted", "id": k, "data": {"k": k}}
    [first] = await world.send_all(event)
    await world.engine.result(first)
    second, third = await world.send_all(event, {**event, "id": f"{k} other"})
    await world.engine.result(third)

    assert first != second
    assert await world.engine.runs_of(second) == []
    assert await world.notes(k) == ["ts/noted", "ts/noted"]


@case("event id seed")
async def a_request_sent_again_is_stored_once(world: World) -> None:
    k = world.key()
    events = [{"name": "ts/noted", "data": {"k": k}} for _ in range(2)]
    ids = await world.send_all(*events, client="unlucky")
    for event_id in ids:
        await world.engine.result(event_id)
    await world.beat()

    assert len(set(ids)) == 2
    assert await world.notes(k) == ["ts/noted"] * 2


@case("future event")
async def an_event_of_the_future_waits(world: World) -> None:
    k = world.key()
    ts = int(time.time() * 1000) + 1500
    [event_id] = await world.send_all({"name": "ts/noted", "ts": ts, "data": {"k": k}})
    await world.engine.result(event_id)

    [note] = await world.noted(k)
    assert note["at"] >= ts


@case("several triggers")
async def each_trigger_has_its_condition(world: World) -> None:
    k = world.key()
    ids = [
        await world.send("ts/one", k=k, n=0),
        await world.send("ts/two", k=k, n=1),
        await world.send("ts/two", k=k, n=2),
    ]
    await world.engine.result(ids[0])
    await world.engine.result(ids[2])

    assert await world.engine.runs_of(ids[1]) == []
    assert sorted(await world.notes(k)) == ["ts/one", "ts/two"]


@case("wildcard trigger")
async def wildcards_end_at_a_slash_or_a_dot(world: World) -> None:
    async def started(name: str) -> int:
        return len(await world.engine.runs_of(await world.send(name, k=k)))

    k = world.key()
    found = [await started(f"ts/{name}") for name in ("wild/a", "wild/a/b", "wild.a", "wilder")]

    assert found == [1, 1, 1, 0]


@case("no trigger", "step.invoke")
async def a_function_without_triggers_is_invoked(world: World) -> None:
    *_, only = await world.output("invokes", k=world.key())

    assert only[0] == "inngest/function.invoked"
    assert only[1].pop("_inngest")["source_fn_id"] == "ts-invokes"
    assert only[1] == {"a": 1}


@case("trigger expression")
async def a_condition_decides(world: World) -> None:
    wrong = [
        await world.send("ts/if", **data)
        for data in ({"n": 2}, {"n": 1, "who": "ann"}, {"who": "ann"})
    ]
    right = await world.send("ts/if", n=2, who="ann")

    assert (await world.engine.result(right))["output"]["data"] == {"n": 2, "who": "ann"}
    assert [await world.engine.runs_of(event_id) for event_id in wrong] == [[], [], []]


@case("typed events")
async def a_schema_is_checked_by_the_sdk(world: World) -> None:
    assert await world.output("typed", n=7) == 7

    run = await world.run("typed", n="seven")
    assert run["status"] == "Failed"
    assert "number" in run["output"]["message"]


async def fire(world: World, function: str) -> Any:
    """Make a schedule due, and return the event that it sends."""
    async with world.connection() as connection:
        slugs = "select function_id from stepbase.functions where slug = $1"
        async with asyncio.timeout(60):
            while not await connection.fetchval(
                f"update stepbase.crons set next_at = now() where function_id = ({slugs})"
                " and scheduled_at is not null returning true",
                f"ts-{function}",
            ):
                await asyncio.sleep(0.02)
        await connection.execute("select pg_notify('stepbase', 'c')")
    [note] = await world.noted(function)
    return note["what"]


@case("cron", "several triggers")
async def a_schedule_fires_in_its_time_zone(world: World) -> None:
    event = await fire(world, "yearly")

    assert event["name"] == "inngest/scheduled.timer"
    assert event["data"]["cron"] == "TZ=Asia/Bangkok 0 9 1 1 *"
    assert event["data"]["scheduledAt"].endswith("-01-01T02:00:00Z"), event


@case("cron jitter")
async def jitter_delays_by_minutes_at_most(world: World) -> None:
    async with world.connection() as connection:
        late = None
        async with asyncio.timeout(60):
            while late is None:
                late = await connection.fetchval(
                    "select next_at - scheduled_at from stepbase.crons where jitter = '5m'"
                )
    event = await fire(world, "jittered")

    assert 1 <= late.total_seconds() < 300
    assert event["data"]["cron"] == "0 9 1 1 *"


@case("finished events", "on failure")
async def ends_of_runs_are_events(world: World) -> None:
    k = world.key()
    good = await world.run("child", k=k, n=4, watched=True)
    bad = await world.run("fails-thrice", k=k, n="always", watched=True)
    asleep = await world.run_id(await world.send("ts/sleeps", k=k, watched=True))
    await world.engine.request("DELETE", f"/v1/runs/{asleep}")

    finished = await event_of(world, "finished", good)
    assert finished["result"] == {"name": "ts/child", "doubled": 8}
    assert finished["function_id"] == "ts-child" and finished["run_id"] == good["run_id"]
    assert finished["event"]["data"] == {"k": k, "n": 4, "watched": True}
    failed = await event_of(world, "failed", bad)
    assert failed["error"]["name"] == "OutOfStock"
    assert failed["error"]["message"] == "at attempt 2"
    assert failed == await event_of(world, "finished", bad)
    cancelled = await event_of(world, "cancelled", {"run_id": asleep})
    assert cancelled["function_id"] == "ts-sleeps"
    assert cancelled == await event_of(world, "finished", {"run_id": asleep})
    assert await world.notes(f"inngest/function.failed {good['run_id']}") == []


async def event_of(world: World, end: str, run: dict[str, Any]) -> Any:
    [note] = await world.noted(f"inngest/function.{end} {run['run_id']}")
    return note["what"]["data"]
