"""Everything recorded of the real server, played to our engine: what differs, by file or entry."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
from tests.interop.engine_graphql import play_graphql
from tests.interop.engine_requests import Aim, aimed, requests_recorded
from tests.interop.engine_rest import play_rest
from tests.support.engine_client import EngineClient
from tests.support.playback import Exchange, Playback, Stage
from tests.support.recordings import Found, differing, expanded, load, names, served_at
from tests.support.stub_host import Answer, StubHost, ops

from stepbase.engine.server import serving
from stepbase.engine.settings import Settings

STUB = "stub-sdk-odd-replies.json"
REGISTER = "02-register-POST-fn-register.json"
REQUESTS = "gateway-and-ai-outbound-requests.json"
CRON = "24-cron-call.json"
START_MODE = "scenario-start-mode-nostep.json"

WAIT_BEFORE = {"scenario-demo-run-run-sleep-wait.json": "wait", "scenario-cancel-on.json": "sleep"}
"""Before a later event is sent, the first one's run has such a queue item."""


SCENARIOS = names("scenario-*.json")
BEHAVIOURS = [f"{STUB}#{behaviour}" for behaviour in load(STUB)]


def sent(scenario: Mapping[str, Any]) -> list[Any]:
    """Return the requests that send a scenario's events, in order."""
    entries = scenario.get("events_sent") or [scenario["event_sent"], scenario.get("extra")]
    return [each for each in entries if each is not None]


def slug_of(exchange: Mapping[str, Any]) -> str:
    slug: str = exchange["request"]["path"].split("fnId=")[1].split("&")[0]
    return slug


def outcome(runs: list[dict[str, Any]]) -> list[Any]:
    """Return what is compared of runs; a race's run was recorded twice."""
    known = {run["run_id"]: run for run in runs}
    return [{"status": run["status"], "output": run.get("output")} for run in known.values()]


async def play(client: EngineClient, stage: Stage, name: str, playback: Playback) -> Found:
    """Play a scenario; return what differs."""
    scenario = load(name)
    stage.add(slug_of(scenario["sdk_calls"][0]), playback)
    recorded = scenario.get("runs_by_event") or {}
    ids: list[tuple[str, str]] = []
    for number, entry in enumerate(sent(scenario)):
        if number and name in WAIT_BEFORE:
            await client.opened(ids[0][1], WAIT_BEFORE[name])
        path, event = entry["request"]["path"], expanded(entry["request"]["body"])
        status, answer = await client.request("POST", path, event)
        assert status == 200, answer
        ids.append((entry["response"]["body"]["ids"][0], answer["ids"][0]))
    if not recorded:
        recorded = {ids[0][0]: scenario["final_runs_rest"]}
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for theirs_id, our_id in ids:
        theirs[str(len(theirs))] = outcome(recorded.get(theirs_id, []))
        ended = await client.ended(our_id, bool(recorded.get(theirs_id)), 20)
        ours[str(len(ours))] = outcome(ended)
    calls, recorded_calls = playback.compared()
    return differing({**calls, "runs": ours}, {**recorded_calls, "runs": theirs})


def race(call: dict[str, Any]) -> Answer | None:
    """Answer the calls of the race that the real server did not make: it is slower."""
    recorded = [Exchange.of_call(each) for each in load("scenario-parallelrace.json")["sdk_calls"]]
    target = call["_step_id"]
    if target != "step":
        return next(each for each in recorded if each.target == target).answer()
    names = {op["id"]: op for each in recorded[3:4] for op in each.reply["body"]}
    first = {op["id"]: op for each in recorded[:1] for op in each.reply["body"]}
    wanted = [
        second if second["id"] not in call["steps"] and step in call["steps"] else first[step]
        for step, second in zip(first, names.values(), strict=True)
        if second["id"] not in call["steps"]
    ]
    return ops(*wanted) if wanted else recorded[-1].answer()


def returned(call: dict[str, Any]) -> Answer | None:
    """Return the first step's result, as the recorded child does."""
    steps = list(call["steps"].values())
    return Answer(200, steps[0]["data"]) if steps else None


def playback_of(name: str) -> Playback:
    exchanges = [Exchange.of_call(each) for each in load(name)["sdk_calls"]]
    if "parallelrace" in name:
        return Playback(exchanges, improvise=race, is_race=True)
    return Playback(exchanges)


async def play_stub(client: EngineClient, stage: Stage, behaviour: str, aim: Aim) -> Found:
    recorded = aim.at(load(STUB)[behaviour])
    exchanges = [Exchange.of_stub(each) for each in recorded["calls"] if "reply" in each]
    # The recorded reply took three seconds.
    playback = Playback(exchanges, delay=0.5 if behaviour == "slow-3s" else 0)
    stage.add(f"stub-{behaviour}", playback)
    [event_id] = await client.send({"name": f"stub/{behaviour}", "data": {}})
    runs = outcome(await client.ended(event_id, 1, 20))
    calls, recorded_calls = playback.compared()
    if "run" not in recorded:
        return differing(calls, recorded_calls)
    return differing({**calls, "runs": runs}, {**recorded_calls, "runs": outcome(recorded["run"])})


@contextlib.asynccontextmanager
async def engine_and_stage(
    database: str, token: str | None = None, **changes: Any
) -> AsyncIterator[tuple[EngineClient, Stage, StubHost]]:
    """Run an engine with quick retries, and a stub host."""
    settings = Settings(
        database_url=database, port=0, retry_interval=0.05, lease=timedelta(seconds=30), **changes
    )
    host = StubHost()
    await host.start()
    try:
        async with serving(settings) as (_, port, _), aiohttp.ClientSession() as session:
            client = EngineClient(session, f"http://127.0.0.1:{port}", token)
            yield client, Stage(host, client), host
    finally:
        await host.stop()


async def play_runs(
    client: EngineClient, stage: Stage, host: StubHost, aim: Aim
) -> dict[str, Found]:
    """Play every run that was recorded in dev mode, at once."""
    recorded = load(REGISTER)
    status, body = await client.request(
        "POST", "/fn/register", served_at(host.port, recorded["request"]["body"])
    )
    found = {
        REGISTER: differing(
            {"status": status, "body": body},
            {key: recorded["response"][key] for key in ("status", "body")},
        )
    }
    behaviours = load(STUB)
    await client.register(
        host.registration(
            *(host.function(f"stub-{each}", retries=1) for each in behaviours), app="stub"
        )
    )
    child = load("09-invoke.json")["exchanges"][1]
    failure = load("23-on-failure-handler.json")["exchanges"][0]
    others = {
        "09-invoke.json": Playback([Exchange.of_call(child)], improvise=returned),
        "23-on-failure-handler.json": Playback([Exchange.of_call(failure)]),
    }
    stage.add("cap-child", others["09-invoke.json"])
    stage.add("cap-onfailure-failure", others["23-on-failure-handler.json"])
    host.handlers["cap-slow"] = lambda _: ops({"op": "Sleep", "id": "z", "name": "1h"})
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(play(client, stage, name, playback_of(name)))
            for name in SCENARIOS
            if name != START_MODE
        }
        tasks |= {
            f"{STUB}#{each}": group.create_task(play_stub(client, stage, each, aim))
            for each in behaviours
        }
    found |= {name: task.result() for name, task in tasks.items()}
    await others["23-on-failure-handler.json"].exchanges[0].arrived.wait()
    return found | {name: differing(*each.compared()) for name, each in others.items()}


async def play_cron(database: str, client: EngineClient, stage: Stage, host: StubHost) -> Found:
    """Let a schedule fire for the recorded instant."""
    recorded = load(CRON)["exchanges"][0]
    playback = Playback([Exchange.of_call(recorded)])
    stage.add("cap-cron", playback)
    triggers = [{"cron": "* * * * *"}]
    await client.register(host.registration(host.function("cap-cron", triggers=triggers)))
    instant = datetime.fromisoformat(recorded["request"]["body"]["event"]["id"])
    connection = await asyncpg.connect(database)
    try:
        while not await connection.fetchval(
            "update stepbase.crons set scheduled_at = $1, next_at = $1"
            " where scheduled_at is not null returning true",
            instant,
        ):
            await asyncio.sleep(0.005)
        await connection.execute("select pg_notify('stepbase', 'c')")
        await playback.exchanges[0].arrived.wait()
    finally:
        await connection.close()
    return differing(*playback.compared())


async def play_dev(database: str) -> dict[str, Found]:
    """Play what was recorded in dev mode."""
    async with engine_and_stage(database) as (client, stage, host), AsyncExitStack() as stack:
        aim = await stack.enter_async_context(aimed())
        found = await play_runs(client, stage, host, aim)
        found[REQUESTS] = differing(aim.made(), requests_recorded())
        found[CRON] = await play_cron(database, client, stage, host)
        found |= await play_graphql(client, host.port)
        found |= await play_rest(client, host)
        found |= await play_api(client, client, "api-event-ingest.json", host.port)
        return found | await play_api(client, client, "api-register-variants.json", host.port)


async def play_api(
    asking: EngineClient, client: EngineClient, name: str, port: int
) -> dict[str, Found]:
    """Make a file's requests in order, with our ids for recorded ones; `client` may see the runs."""
    found = {}
    known: dict[str, str] = {}
    for entry, exchange in load(name).items():
        request, response = exchange["request"], exchange["response"]
        path = request["path"]
        for theirs, ours in known.items():
            path = path.replace(theirs, ours)
        body = served_at(port, request["body"])
        if body == "(4.2 MB)":
            body = json.dumps({"name": "cap/x", "data": {"a": "x" * 4_200_004}})
        if isinstance(body, str) and body.startswith('{"appname": "cap"'):
            # The recording cut it; it is the first sync's body.
            body = served_at(port, load(REGISTER)["request"]["body"])
        headers = {key: value for key, value in dict(request["headers"]).items() if value}
        status, answer = await asking.request(request["method"], path, body, headers)
        found[f"{name}#{entry}"] = differing(
            {"status": status, "body": answer, "seeded": _seeded(entry, answer)},
            {
                "status": response["status"],
                "body": _parsed(response["body"]),
                "seeded": _seeded(entry, response["body"]),
            },
        )
        for theirs, ours in zip(_ids(response["body"]), _ids(answer), strict=False):
            if theirs and ours and "right key" in entry:
                known[theirs] = ours
                await client.ended(ours)
    return found


def _parsed(body: object) -> object:
    """Return a body as the client does, which reads JSON whatever its type is said to be."""
    try:
        return json.loads(body) if isinstance(body, str) else body
    except ValueError:
        return body


def _seeded(entry: str, body: object) -> list[str]:
    """Return ids that were asked for, in lower case: those are not made equal."""
    return [each.lower() for each in _ids(body)] if "seed" in entry else []


def _ids(body: object) -> list[str]:
    return list(body.get("ids") or ()) if isinstance(body, dict) else []
