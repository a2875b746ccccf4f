"""The engine makes the calls that the real server made, and ends its runs in the same way."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.interop.engine_differences import unexplained, unused
from tests.support.engine_client import EngineClient
from tests.support.playback import Exchange, Playback, Stage, differing, expanded
from tests.support.server import Server
from tests.support.stub_host import Answer, StubHost, ops

from stepbase.engine.server import serving
from stepbase.engine.settings import Settings

FOLDER = Path(__file__).parents[1] / "vectors" / "inngest-server"
STUB = "stub-sdk-odd-replies.json"
START_MODE = "scenario-start-mode-nostep.json"
KEY = "0123456789abcdef0123456789abcdef"
EVENT_KEY = "evkey123"

Found = dict[str, tuple[object, object]]

WAIT_BEFORE = {"scenario-demo-run-run-sleep-wait.json": "wait", "scenario-cancel-on.json": "sleep"}
"""Before a later event is sent, the first one's run has such a queue item."""


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def names(pattern: str) -> list[str]:
    return sorted(path.name for path in FOLDER.glob(pattern))


SCENARIOS = names("scenario-*.json")
BEHAVIOURS = [f"{STUB}#{behaviour}" for behaviour in load(STUB)]


def sent(scenario: Mapping[str, Any]) -> list[Any]:
    """Return the requests that send a scenario's events, in order."""
    entries = scenario.get("events_sent") or [scenario["event_sent"], scenario.get("extra")]
    return [each for each in entries if each is not None]


def slug_of(exchange: Mapping[str, Any]) -> str:
    slug: str = exchange["request"]["path"].split("fnId=")[1].split("&")[0]
    return slug


async def opened(client: EngineClient, event_id: str, kind: str) -> None:
    """Wait until an event's run waits for something of this kind."""
    while True:
        for run in await client.runs_of(event_id):
            _, jobs = await client.request("GET", f"/v1/runs/{run['run_id']}/jobs")
            if any(job["kind"] == kind for job in jobs["data"]):
                return
        await asyncio.sleep(0.01)


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
            await opened(client, ids[0][1], WAIT_BEFORE[name])
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


async def play_stub(client: EngineClient, stage: Stage, behaviour: str) -> Found:
    recorded = load(STUB)[behaviour]
    playback = Playback([Exchange.of_stub(each) for each in recorded["calls"] if "reply" in each])
    stage.add(f"stub-{behaviour}", playback)
    [event_id] = await client.send({"name": f"stub/{behaviour}", "data": {}})
    runs = outcome(await client.ended(event_id, 1, 20))
    calls, recorded_calls = playback.compared()
    if "run" not in recorded:
        return differing(calls, recorded_calls)
    return differing({**calls, "runs": runs}, {**recorded_calls, "runs": outcome(recorded["run"])})


def registration(host: StubHost, name: str) -> dict[str, Any]:
    """Return a recorded sync, of functions that are served here."""
    text = json.dumps(load(name)["request"]["body"])
    for port in ("19101", "19301"):
        for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
            text = text.replace(origin, f"http://127.0.0.1:{host.port}")
    body: dict[str, Any] = json.loads(text)
    return body


async def play_all(database: str) -> dict[str, Found]:
    """Play everything recorded in dev mode on one engine, at once."""
    found: dict[str, Found] = {}
    settings = Settings(
        database_url=database, port=0, retry_interval=0.05, lease=timedelta(seconds=30)
    )
    host = StubHost()
    await host.start()
    async with serving(settings) as (_, port, _), aiohttp.ClientSession() as session:
        client = EngineClient(session, f"http://127.0.0.1:{port}")
        stage = Stage(host, client)
        behaviours = load(STUB)
        await client.register(registration(host, "02-register-POST-fn-register.json"))
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
                f"{STUB}#{each}": group.create_task(play_stub(client, stage, each))
                for each in behaviours
            }
        found |= {name: task.result() for name, task in tasks.items()}
        found |= {name: differing(*each.compared()) for name, each in others.items()}
    await host.stop()
    return found


@pytest.fixture(scope="module")
def played(cluster: Server, template: str) -> Iterator[dict[str, Found]]:
    """What differs in everything played, by file or behaviour."""
    name = asyncio.run(cluster.create(template))
    yield asyncio.run(play_all(cluster.dsn(name)))
    asyncio.run(cluster.drop(name))


@pytest.mark.parametrize("name", [*(n for n in SCENARIOS if n != START_MODE), *BEHAVIOURS])
def test_run_is_called_and_ends_as_recorded(played: dict[str, Found], name: str) -> None:
    assert unexplained(name, played[name]) == []


def test_every_listed_difference_is_still_there(played: dict[str, Found]) -> None:
    assert [f"{each.where} {each.path}" for each in unused(played)] == []
