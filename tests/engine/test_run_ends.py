"""How runs end other than by their own result: cancelled, out of time, or refused by the database."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run


class Held:
    """A handler that answers when the test says so."""

    def __init__(self, answer: Answer) -> None:
        self.go = asyncio.Event()
        self.came = asyncio.Event()
        self._answer = answer

    async def __call__(self, call: dict[str, Any]) -> Answer:
        self.came.set()
        await self.go.wait()
        return self._answer


def asleep(call: dict[str, Any]) -> Answer:
    """Sleep for an hour."""
    return ops({"op": "Sleep", "id": "nap", "displayName": "nap", "name": "1h"})


async def begun(client: EngineClient, host: StubHost, event: dict[str, Any]) -> str:
    """Send an event and wait until its run has made a call."""
    host.called.clear()
    [event_id] = await client.send(event)
    async with asyncio.timeout(20):
        await host.called.wait()
    return event_id


# --- cancelled ---------------------------------------------------------------------------------


async def test_a_cancelled_runs_call_in_flight_is_thrown_away(
    client: EngineClient, host: StubHost
) -> None:
    held = Held(ops(step_run("a", 1)))
    host.handlers["app-f"] = held
    await client.register(host.registration(host.function("app-f")))
    event_id = await begun(client, host, {"name": "app/f"})
    [run] = await client.runs_of(event_id)

    assert (await client.request("DELETE", f"/v1/runs/{run['run_id']}"))[0] == 204
    held.go.set()
    ended = await client.result(event_id)

    assert ended["status"] == "Cancelled"
    assert ended["output"] == {"name": "Cancelled", "message": "cancelled through the API"}
    assert len(host.calls) == 1


@pytest.mark.parametrize(
    ("condition", "stop"),
    [
        ("event.data.id == async.data.id", {"id": 7}),
        ("event.data.id == async.data.id && async.data.n > 5", {"id": 7, "n": 6}),
        ("async.data.n > event.data.limit", {"n": 99}),
        ("async.data.id == event.data.id || async.data.n == event.data.limit", {"n": 50}),
        ("has(async.data.key) && event.data.limit < 60", {"key": 1}),
    ],
    ids=["exact", "exact and more", "no equality", "either", "presence"],
)
async def test_an_event_cancels_the_sleeping_run_its_condition_names(
    client: EngineClient, host: StubHost, condition: str, stop: dict[str, Any]
) -> None:
    host.handlers["app-f"] = asleep
    cancel = [{"event": "app/stop", "if": condition}]
    await client.register(host.registration(host.function("app-f", cancel=cancel)))
    miss = await begun(client, host, {"name": "app/f", "data": {"id": 8, "limit": 100}})
    hit = await begun(client, host, {"name": "app/f", "data": {"id": 7, "limit": 50}})

    await client.send({"name": "app/other", "data": stop}, {"name": "app/stop", "data": {"id": 9}})
    await client.send({"name": "app/stop", "data": stop})

    assert (await client.result(hit))["status"] == "Cancelled"
    assert [run["status"] for run in await client.runs_of(miss)] == ["Running"]


async def test_a_condition_is_checked_when_the_event_comes_and_not_at_the_next_tick(
    start_engine: StartEngine, host: StubHost
) -> None:
    host.handlers["app-f"] = asleep
    cancel = [{"event": "app/stop", "if": "async.data.n > event.data.n"}]
    async with start_engine(sweep_seconds=60, lease=timedelta(minutes=3)) as (client, _):
        await client.register(host.registration(host.function("app-f", cancel=cancel)))
        event_id = await begun(client, host, {"name": "app/f", "data": {"n": 1}})
        await client.send({"name": "app/stop", "data": {"n": 2}})

        [run] = await client.ended(event_id, seconds=10)

    assert run["status"] == "Cancelled"


async def test_without_a_condition_any_event_of_the_name_cancels(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = asleep
    await client.register(host.registration(host.function("app-f", cancel=[{"event": "app/stop"}])))
    ids = [await begun(client, host, {"name": "app/f"}) for _ in range(3)]

    await client.send({"name": "app/stop"})

    assert {(await client.result(each))["status"] for each in ids} == {"Cancelled"}


async def test_a_run_may_be_cancelled_before_its_first_call(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = asleep
    await client.register(host.registration(host.function("app-f", cancel=[{"event": "app/stop"}])))

    ids = await client.send({"name": "app/f"}, {"name": "app/stop"})

    run = await client.result(ids[0])
    assert run["status"] == "Cancelled"


# --- out of time -------------------------------------------------------------------------------


async def test_a_run_that_does_not_start_in_time_is_cancelled(
    client: EngineClient, host: StubHost
) -> None:
    await client.register(host.registration(host.function("app-f", timeouts={"start": "300ms"})))
    await host.stop()

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["status"] == "Cancelled"
    assert run["output"]["message"] == "the run did not start within its timeout"


async def test_a_run_whose_first_call_is_slow_has_started(
    client: EngineClient, host: StubHost
) -> None:
    held = Held(Answer(200, "late"))
    host.handlers["app-f"] = held
    await client.register(host.registration(host.function("app-f", timeouts={"start": "200ms"})))
    event_id = await begun(client, host, {"name": "app/f"})
    [run] = await client.runs_of(event_id)

    async with asyncio.timeout(20):
        while len((await client.request("GET", f"/v1/runs/{run['run_id']}/jobs"))[1]["data"]) > 1:
            await asyncio.sleep(0.05)
    held.go.set()

    assert (await client.result(event_id))["status"] == "Completed"


async def test_a_run_that_does_not_finish_in_time_is_cancelled_in_its_sleep(
    client: EngineClient, host: StubHost
) -> None:
    host.handlers["app-f"] = asleep
    await client.register(host.registration(host.function("app-f", timeouts={"finish": "300ms"})))

    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    assert run["status"] == "Cancelled"
    assert run["output"]["message"] == "the run did not finish within its timeout"
    assert len(host.calls) == 1


# --- refused -----------------------------------------------------------------------------------


async def test_effects_the_database_refuses_fail_that_run_alone_and_end_it(
    client: EngineClient, host: StubHost
) -> None:
    """No index keeps an id of so many characters; the others of the same batch are written."""
    host.handlers["app-bad"] = lambda call: ops(step_run("".join(map(chr, range(1000, 9000))), 1))
    host.handlers["app-good"] = lambda call: (
        Answer(200, "ok") if call["steps"] else ops(step_run("a", 1))
    )
    await client.register(
        host.registration(
            host.function("app-bad", triggers=[{"event": "app/both"}]),
            host.function("app-good", triggers=[{"event": "app/both"}]),
        )
    )

    ids = await client.send(*({"name": "app/both"} for _ in range(5)))
    runs = [run for each in ids for run in await client.ended(each, count=2)]

    assert sorted(run["status"] for run in runs) == ["Completed"] * 5 + ["Failed"] * 5
    failed = next(run["output"] for run in runs if run["status"] == "Failed")
    assert failed["name"] == "StoreError" and "index" in failed["message"]
    bad = [call for call in host.calls if call["ctx"]["run_id"] in _ids(runs, "Failed")]
    assert len(bad) == 5, "a run that has failed is not called again"


def _ids(runs: list[dict[str, Any]], status: str) -> set[str]:
    return {run["run_id"] for run in runs if run["status"] == status}


# --- handed over -------------------------------------------------------------------------------


async def test_an_engine_that_stops_hands_its_runs_over_between_two_calls(
    start_engine: StartEngine, host: StubHost
) -> None:
    held = Held(ops(step_run("a", 1)))

    async def handler(call: dict[str, Any]) -> Answer:
        if not call["steps"]:
            return await held(call)
        return Answer(200, call["ctx"]["generation_id"])

    host.handlers["app-f"] = handler
    async with start_engine() as (client, engine):
        await client.register(host.registration(host.function("app-f")))
        event_id = await begun(client, host, {"name": "app/f"})
        stopping = asyncio.create_task(engine.worker.drain(5.0))
        await asyncio.sleep(0)
        held.go.set()
        await stopping

    assert len(host.calls) == 1, "the call in flight was the stopping engine's last"
    async with start_engine() as (client, _):
        async with asyncio.timeout(4):  # sooner than the lease of five seconds
            run = await client.result(event_id)

    assert run["status"] == "Completed"


# --- once --------------------------------------------------------------------------------------


async def test_a_repeated_request_with_a_seed_starts_each_run_once(
    client: EngineClient, host: StubHost
) -> None:
    """What the official SDKs do when the answer to their events is lost."""
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["id"])
    await client.register(host.registration(host.function("app-f")))
    seed = {"x-inngest-event-id-seed": "1743130137367,eii8dJdmmxnh9w=="}
    body = [{"name": "app/f"}, {"name": "app/f"}]

    answers = [await client.request("POST", "/e/test", body, seed) for _ in range(3)]

    ids = answers[0][1]["ids"]
    assert [status for status, _ in answers] == [200, 200, 200]
    assert all(answer["ids"] == ids for _, answer in answers) and len(set(ids)) == 2
    for event_id in ids:
        assert (await client.result(event_id))["output"] == event_id
    assert len(host.calls) == 2


async def test_each_failed_attempt_is_said_with_its_step_and_reason(
    start_engine: StartEngine, host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine's log is where people look first: a run that is tried again must not be silent there."""
    error = {"name": "ValueError", "message": "no such card", "stack": "…"}
    failing = {"id": "pay", "displayName": "charge", "error": error}

    def answer(call: dict[str, Any]) -> Answer:
        if call["steps"]:
            return Answer(200, 1)
        return ops({"op": ("StepError", "StepFailed")[call["ctx"]["attempt"]], **failing})

    host.handlers["app-f"] = answer
    async with start_engine(retry_interval=0.01) as (client, _):
        await client.register(host.registration(host.function("app-f", retries=1)))
        [event_id] = await client.send({"name": "app/f"})
        await client.result(event_id)

    fields = [vars(each) for each in caplog.records if each.msg == "attempt failed"]
    assert [(each["step"], each["attempt"]) for each in fields] == [("charge", 0), ("charge", 1)]
    assert {each["reason"] for each in fields} == {"ValueError: no such card"}
    assert fields[0]["again_in_s"] == 0.0 and "again_in_s" not in fields[1]
