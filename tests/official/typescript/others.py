"""Checkpoints, middleware, encryption, streams, keys, syncs: between the SDK and the engine."""

from dataclasses import replace

import aiohttp
from tests.official.typescript.world import World, case
from tests.support.engine_client import EngineClient

from stepbase.engine.server import serving

STEPS = [f"s{i}" for i in range(5)]


@case("checkpointing")
async def steps_are_told_while_the_call_goes_on(world: World) -> None:
    run = await world.run("checkpoints")

    assert run["output"] == "five"
    assert await world.calls(run["run_id"]) == ["step"]
    assert await world.checkpoints(run["run_id"]) == [[step] for step in STEPS]


@case("checkpointing")
async def steps_may_be_told_several_at_once(world: World) -> None:
    run = await world.run("checkpoints-in-threes")

    assert run["output"] == "five"
    assert await world.calls(run["run_id"]) == ["step"]
    assert await world.checkpoints(run["run_id"]) == [STEPS[:3]]


@case("checkpointing")
async def after_its_time_a_call_goes_back_to_the_engine(world: World) -> None:
    run = await world.run("checkpoints-for-a-while", pause=150)

    assert run["output"] == "five"
    assert len(await world.calls(run["run_id"])) > 1


@case("checkpointing")
async def steps_may_be_told_at_intervals(world: World) -> None:
    run = await world.run("checkpoints-at-intervals", pause=150)

    assert run["output"] == "five"
    assert await world.calls(run["run_id"]) == ["step"]
    told = [step for each in await world.checkpoints(run["run_id"]) for step in each]
    assert told and told == STEPS[: len(told)]


@case("checkpointing")
async def without_checkpoints_each_step_is_a_call(world: World) -> None:
    run = await world.run("checkpoints-off")

    assert run["output"] == "five"
    assert await world.calls(run["run_id"]) == ["step"] * 6
    assert await world.checkpoints(run["run_id"]) == []


@case("checkpointing", "step.sleep", "planned steps")
async def checkpoints_mix_with_all_else(world: World) -> None:
    k = world.key()

    assert await world.output("checkpoints-and-more", k=k) == "all"
    assert await world.notes(k) == ["a", "b", "c 0", "c 1", "d", "f"]


@case("middleware")
async def hooks_are_called(world: World) -> None:
    k = world.key()
    run = await world.run("marked", k=k)

    assert run["output"] == {
        "result": {
            "ran": {"handled": 40, "wrapped": True},
            "mark": "of the middleware",
            "dependency": 42,
            "seen": True,
        }
    }
    notes = await world.notes(k)
    assert notes[:3] == ["run start", "a start", "a complete"]
    assert notes.index("b again false") < notes.index("b complete")
    assert notes[-1] == "run complete" and notes.count("a start") == 1
    _, found = await world.engine.request("GET", "/v1/events?name=ts/fields&limit=100")
    assert {"k": k, "marked": True} in [event["data"] for event in found["data"]]


@case("encryption")
async def the_engine_sees_no_secret(world: World) -> None:
    secret = "what nobody may read"
    sent = await world.send("ts/secret", client="encrypting", encrypted={"secret": secret})
    run = await world.engine.result(sent)

    assert run["status"] == "Completed"
    assert secret not in str(run)
    async with world.connection() as connection:
        for table in ("events", "runs", "steps"):
            rows = await connection.fetch(f"select t::text from stepbase.{table} t")
            assert rows and not [row for row in rows if secret in row[0]]


@case("streaming")
async def replies_are_streamed(world: World) -> None:
    k = world.key()

    assert await world.output("streamed", k=k) == ["a", "b"]
    run = await world.run("streamed-error", k=k)
    assert (run["status"], run["output"]["message"]) == ("Failed", "in a stream")
    assert await world.notes(k) == [0, 1]


@case("adapters")
async def the_fetch_api_is_served_too(world: World) -> None:
    assert await world.output("edged") == ["a", "b"]


@case("failing host")
async def a_host_may_be_away_or_answer_nonsense(world: World) -> None:
    run = await world.run("hard-to-reach")

    # Only the nonsense has cost an attempt.
    assert run["output"] == 1
    assert len(await world.calls(run["run_id"])) == 3


@case("nested steps")
async def a_call_that_never_ends_can_be_cancelled(world: World) -> None:
    k = world.key()
    event_id = await world.send("ts/nested", k=k)
    await world.noted(k)  # the SDK waits for the inner step, which it will never run
    await world.engine.request("DELETE", f"/v1/runs/{await world.run_id(event_id)}")

    assert (await world.engine.result(event_id))["status"] == "Cancelled"


@case("signing key", "fallback key", "event key")
async def keys_are_asked_for_on_both_sides(world: World) -> None:
    url = f"{world.node}/api/cloud"
    status, answer = await world.cloud.request("PUT", "/fn/sync", {"url": url})
    assert status == 200, answer
    event_id = await world.send("ts/signed", client="cloud")
    run = await world.cloud.result(event_id)

    assert run["output"] == ["a", "b"]
    assert await world.calls(run["run_id"]) == ["step", "step"]
    assert (await world.cloud.request("POST", "/e/wrong", []))[0] == 401
    assert (await world.serve("POST", "cloud"))[0] == 401


@case("sync in band")
async def an_app_answers_with_its_functions(world: World) -> None:
    status, body = await world.serve("PUT", "edge", {"x-inngest-sync-kind": "in_band"})
    assert status == 200, body
    body["appName"] = body.pop("app_id")
    answer = await world.engine.register(body)

    assert [function["id"] for function in body["functions"]] == ["ts-edge-edged"]
    assert answer["modified"] is False  # the same that it has registered by itself


@case("sync out of band", "modified", "introspection")
async def syncs_say_what_changed(world: World) -> None:
    async def sync(app: str) -> bool:
        status, answer = await world.serve("PUT", app)
        assert status == 200, answer
        return bool(answer["modified"])

    async def slugs() -> set[str]:
        _, answer = await world.engine.request("GET", "/dev")
        return {each["slug"] for each in answer["functions"]}

    assert [await sync("before"), await sync("before")] == [True, False]
    assert {"ts-synced-stays", "ts-synced-goes"} <= await slugs()
    assert [await sync("after"), await sync("after")] == [True, False]
    gone = await world.send("ts/goes")
    assert await world.output("stays") == "here"
    assert await world.engine.runs_of(gone) == []
    status, shown = await world.serve("GET", "after")
    assert (status, shown["mode"], shown["function_count"]) == (200, "dev", 1)


@case("sync out of band")
async def an_engine_finds_its_apps(world: World) -> None:
    settings = replace(world.settings, sdk_urls=(f"{world.node}/api/found",))
    async with serving(settings) as (_, port, _), aiohttp.ClientSession() as session:
        client = EngineClient(session, f"http://127.0.0.1:{port}")
        while "ts-found-found" not in str(await client.request("GET", "/dev")):
            await world.beat()

    assert await world.output("found") == "here"


@case("traces", "signing key")
async def spans_of_the_user_are_accepted(world: World) -> None:
    url = f"{world.node}/api/traced"
    status, answer = await world.cloud.request("PUT", "/fn/sync", {"url": url})
    assert status == 200, answer
    run = await world.cloud.result(await world.send("ts/traced", client="traced"))

    assert run["output"] == "traced"
    assert {note["what"] for note in await world.noted("traces")} == {200}
