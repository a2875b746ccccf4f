"""`POST /v0/gql`: what the official SDKs' test suites ask, of real runs of every shape."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect
from tests.engine.conftest import StartEngine
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

UNKNOWN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"

# As the Python package's test helper asks.
STATUS = """query GetRun($run_id: String!) {
  run(runID: $run_id) { output status }
  runTrigger(runID: $run_id) { payloads }
}"""
STEPS = """query GetHistory($run_id: String!) {
  run(runID: $run_id) { trace { childrenSpans { name outputID } } }
}"""
OUTPUT = """query GetHistory($output_id: String!) {
  runTraceSpanOutputByID(outputID: $output_id) { data error { message name stack } }
}"""
RUNS = """query GetRunFromEventID($event_id: ID!) {
  event(query: {eventId: $event_id}) { functionRuns { id } }
}"""

# As the TypeScript package's suites ask.
TRACE = """query ($runId: String!) {
  run(runID: $runId) {
    status
    trace(preview: true) {
      ...Span
      childrenSpans { ...Span childrenSpans { ...Span childrenSpans { ...Span } } }
    }
  }
}
fragment Span on RunTraceSpan {
  name status outputID spanID stepID stepOp stepType attempts isRoot startedAt endedAt
  metadata { scope kind values updatedAt }
  stepInfo {
    __typename
    ... on InvokeStepInfo { triggeringEventID functionID timeout returnEventID: runID runID timedOut }
    ... on SleepStepInfo { sleepUntil }
    ... on WaitForEventStepInfo { eventName expression timeout foundEventID timedOut }
    ... on WaitForSignalStepInfo { signal timeout timedOut }
    ... on RunStepInfo { type }
  }
}"""
EVENT_V2 = "query ($id: ULID!) { eventV2(id: $id) { idempotencyKey name raw } }"
EVENTS = "query { events(query: {}) { id name payload } }"
STREAM = """query GetEventStream {
  stream(query: {limit: 999, includeInternalEvents: false}) {
    id trigger runs { id function { name } }
  }
}"""


async def ask(client: EngineClient, query: str, **variables: object) -> dict[str, Any]:
    """Ask, and return what came; asserts that nothing was refused."""
    body = {"query": query, "variables": variables}
    status, answer = await client.request("POST", "/v0/gql", body)
    assert status == 200 and "errors" not in answer, answer
    data: dict[str, Any] = answer["data"]
    return data


async def tree(client: EngineClient, run_id: str) -> dict[str, Any]:
    """Return a run's root span."""
    trace: dict[str, Any] = (await ask(client, TRACE, runId=run_id))["run"]["trace"]
    return trace


async def output(client: EngineClient, span: dict[str, Any]) -> dict[str, Any]:
    """Return what a span's outputID stands for."""
    found = await ask(client, OUTPUT, output_id=span["outputID"])
    answer: dict[str, Any] = found["runTraceSpanOutputByID"]
    return answer


async def start(
    client: EngineClient, host: StubHost, handler: Any, **options: object
) -> tuple[str, str]:
    """Serve a handler as app-f and start a run of it; return the ids of its event and itself."""
    host.handlers["app-f"] = handler
    await client.register(host.registration(host.function("app-f", **options)))
    [event_id] = await client.send({"name": "app/f", "data": {"id": 1}})
    [run] = await client.runs_of(event_id)
    return event_id, run["run_id"]


async def until(connection: asyncpg.Connection, condition: str) -> None:
    """Return when rows fit."""
    async with asyncio.timeout(20):
        while not await connection.fetchval(f"select exists (select from stepbase.{condition})"):
            await asyncio.sleep(0.01)


def shape(span: dict[str, Any]) -> list[Any]:
    """Return a span and those below it by name and status."""
    return [span["name"], span["status"], *(shape(each) for each in span["childrenSpans"] or ())]


# -- the queries of the Python suite ---------------------------------------------------------------


async def test_a_run_its_trigger_its_steps_and_their_output(
    client: EngineClient, host: StubHost
) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        return (
            Answer(200, {"got": call["steps"]}) if call["steps"] else ops(step_run("s", [1, "é"]))
        )

    event_id, run_id = await start(client, host, handler)
    await client.result(event_id)

    run = await ask(client, STATUS, run_id=run_id)
    steps = await ask(client, STEPS, run_id=run_id)
    runs = await ask(client, RUNS, event_id=event_id)

    assert run["run"]["status"] == "COMPLETED"
    assert json.loads(run["run"]["output"]) == {"got": {"s": {"data": [1, "é"]}}}
    [payload] = run["runTrigger"]["payloads"]
    event = json.loads(payload)
    assert (event["id"], event["name"], event["data"]) == (event_id, "app/f", {"id": 1})
    step, end = steps["run"]["trace"]["childrenSpans"]
    assert (step["name"], end["name"]) == ("s", "function success")
    assert await output(client, step) == {"data": '[1,"é"]', "error": None}
    assert json.loads((await output(client, end))["data"]) == {"got": {"s": {"data": [1, "é"]}}}
    assert runs == {"event": {"functionRuns": [{"id": run_id}]}}


async def test_a_step_that_fails_and_is_caught(client: EngineClient, host: StubHost) -> None:
    problem = {"name": "Oops", "message": "no luck", "stack": "at s", "cause": {"message": "why"}}

    def handler(call: dict[str, Any]) -> Answer:
        if call["steps"]:
            return Answer(200, "caught")
        return ops({"op": "StepError", "id": "s", "displayName": "try", "error": problem})

    event_id, run_id = await start(client, host, handler, retries=1)
    await client.result(event_id)

    root = await tree(client, run_id)
    step, end = root["childrenSpans"]

    assert shape(root) == [
        "app-f", "COMPLETED",
        ["try", "FAILED", ["Attempt 0", "FAILED"], ["Attempt 1", "FAILED"]],
        ["function success", "COMPLETED"],
    ]  # fmt: skip
    assert (step["attempts"], step["stepOp"], step["stepID"]) == (1, "RUN", "s")
    failed = {"message": "no luck", "name": "Oops", "stack": "at s"}
    for span in (step, *step["childrenSpans"]):
        assert await output(client, span) == {"data": None, "error": failed}
    assert (root["outputID"], end["outputID"]) == (run_id, run_id)
    cause = "query($id: String!) { runTraceSpanOutputByID(outputID: $id) { error { cause } } }"
    found = await ask(client, cause, id=step["outputID"])
    assert found == {"runTraceSpanOutputByID": {"error": {"cause": '{"message":"why"}'}}}


async def test_a_step_that_succeeds_at_its_second_attempt(
    client: EngineClient, host: StubHost
) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        if call["steps"]:
            return Answer(200, None)
        error = {"name": "E", "message": "m"}
        failed = {"op": "StepError", "id": "s", "displayName": "s", "error": error}
        return ops(step_run("s", "ok") if call["ctx"]["attempt"] else failed)

    event_id, run_id = await start(client, host, handler)
    await client.result(event_id)

    root = await tree(client, run_id)
    step = root["childrenSpans"][0]

    assert shape(step) == ["s", "COMPLETED", ["Attempt 0", "FAILED"], ["Attempt 1", "COMPLETED"]]
    assert step["attempts"] == 1
    assert (await output(client, step["childrenSpans"][1]))["data"] == '"ok"'


async def test_a_run_that_fails(client: EngineClient, host: StubHost) -> None:
    error = {"name": "Boom", "message": "gone", "stack": "at f"}
    event_id, run_id = await start(client, host, lambda call: Answer(500, error), retries=1)
    await client.result(event_id)

    run = (await ask(client, STATUS, run_id=run_id))["run"]
    root = await tree(client, run_id)

    assert run["status"] == "FAILED" and json.loads(run["output"])["message"] == "gone"
    assert shape(root) == [
        "app-f", "FAILED",
        ["function error", "FAILED", ["Attempt 0", "FAILED"], ["Attempt 1", "FAILED"]],
    ]  # fmt: skip
    assert (await output(client, root))["error"] == {
        "message": "gone", "name": "Boom", "stack": "at f",
    }  # fmt: skip


# -- what runs wait for ----------------------------------------------------------------------------


async def test_a_wait_a_signal_and_a_sleep_that_are_open_and_then_over(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    opened = (
        {
            "op": "WaitForEvent", "id": "w", "displayName": "wait", "name": "app/go",
            "opts": {"timeout": "1h", "if": "event.data.id == async.data.id && async.data.ok == true"},
        },
        {"op": "WaitForEvent", "id": "n", "name": "app/never", "opts": {"timeout": "1s"}},
        {"op": "WaitForSignal", "id": "g", "opts": {"signal": "sig", "timeout": "1h"}},
        {"op": "Sleep", "id": "z", "displayName": "nap", "name": "1s"},
    )  # fmt: skip

    def handler(call: dict[str, Any]) -> Answer:
        return Answer(200, "done") if len(call["steps"]) == 4 else ops(*opened)

    event_id, run_id = await start(client, host, handler)
    connection = await connect()
    await until(connection, "pauses where event_name = 'app/go'")

    root = await tree(client, run_id)
    by_id = {each["stepID"]: each for each in root["childrenSpans"]}
    wait, never, signal, nap = (by_id[each] for each in "wngz")

    assert root["status"] == "RUNNING" and root["outputID"] is None
    assert [each["status"] for each in (wait, never, signal, nap)] == ["WAITING"] * 4
    assert [each["stepOp"] for each in (wait, never, signal, nap)] == [
        "WAIT_FOR_EVENT", "WAIT_FOR_EVENT", "WAIT_FOR_SIGNAL", "SLEEP",
    ]  # fmt: skip
    info = wait["stepInfo"]
    assert (info["eventName"], info["foundEventID"], info["timedOut"]) == ("app/go", None, None)
    assert info["expression"] == "async.data.id == 1 && (async.data.ok == true)"
    assert info["timeout"] > wait["startedAt"]
    assert signal["stepInfo"]["signal"] == "sig" and signal["stepInfo"]["timeout"]
    assert nap["stepInfo"]["__typename"] == "SleepStepInfo"
    assert nap["stepInfo"]["sleepUntil"] > nap["startedAt"]

    [found] = await client.send({"name": "app/go", "data": {"id": 1, "ok": True}})
    await client.request("POST", "/v1/signals", {"signal": "sig", "data": 5})
    await client.result(event_id)
    by_id = {each["stepID"]: each for each in (await tree(client, run_id))["childrenSpans"]}
    wait, never, signal, nap = (by_id[each] for each in "wngz")

    assert [each["status"] for each in (wait, never, signal, nap)] == ["COMPLETED"] * 4
    assert wait["stepInfo"] == {
        "__typename": "WaitForEventStepInfo", "eventName": "app/go", "expression": None,
        "timeout": None, "foundEventID": found, "timedOut": False,
    }  # fmt: skip
    assert json.loads((await output(client, wait))["data"])["data"] == {"id": 1, "ok": True}
    assert never["stepInfo"]["timedOut"] is True
    assert never["stepInfo"]["timeout"] == never["endedAt"]
    assert await output(client, never) == {"data": "null", "error": None}
    assert signal["stepInfo"]["timedOut"] is False
    assert json.loads((await output(client, signal))["data"]) == {"signal": "sig", "data": 5}
    assert nap["stepInfo"]["sleepUntil"] == nap["endedAt"]


async def test_a_sleep_that_is_alone(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    sleep = {"op": "Sleep", "id": "z", "displayName": "nap", "name": "1h"}
    _, run_id = await start(client, host, lambda call: ops(sleep))
    await until(await connect(), "steps")

    [nap] = (await tree(client, run_id))["childrenSpans"]

    assert (nap["status"], nap["stepOp"], nap["outputID"]) == ("WAITING", "SLEEP", None)
    assert nap["stepInfo"]["sleepUntil"] > nap["startedAt"]


async def test_an_invoke_says_which_run_it_made(client: EngineClient, host: StubHost) -> None:
    def handler(call: dict[str, Any]) -> Answer:
        if len(call["steps"]) == 2:
            return Answer(200, None)
        opts = {"function_id": "app-child", "payload": {"data": {}}}
        slow = {"function_id": "app-slow", "payload": {"data": {}}, "timeout": "1s"}
        return ops(
            {"op": "InvokeFunction", "id": "i", "displayName": "call", "opts": opts},
            {"op": "InvokeFunction", "id": "j", "displayName": "slow", "opts": slow},
        )

    host.handlers["app-f"] = handler
    host.handlers["app-child"] = lambda call: Answer(200, "made")
    host.handlers["app-slow"] = lambda call: ops({"op": "Sleep", "id": "z", "name": "1h"})
    functions = [host.function(slug) for slug in ("app-f", "app-child", "app-slow")]
    await client.register(host.registration(*functions))
    [event_id] = await client.send({"name": "app/f"})
    run = await client.result(event_id)

    by_id = {each["stepID"]: each for each in (await tree(client, run["run_id"]))["childrenSpans"]}
    call, slow = by_id["i"], by_id["j"]

    info = call["stepInfo"]
    assert (call["stepOp"], info["__typename"]) == ("INVOKE", "InvokeStepInfo")
    assert (info["functionID"], info["timedOut"], info["timeout"]) == ("app-child", False, None)
    [child] = await client.runs_of(info["triggeringEventID"])
    assert (child["run_id"], child["output"]) == (info["runID"], "made")
    assert (await output(client, call))["data"] == '"made"'
    assert slow["status"] == "FAILED"
    assert (slow["stepInfo"]["functionID"], slow["stepInfo"]["timedOut"]) == ("app-slow", True)
    assert (await output(client, slow))["error"]["name"] == "InngestInvokeTimeoutError"


async def test_parallel_steps_are_side_by_side(client: EngineClient, host: StubHost) -> None:
    gate = asyncio.Event()

    async def handler(call: dict[str, Any]) -> Answer:
        target = call["_step_id"]
        if target == "b":
            await gate.wait()
        if target != "step":
            return ops(step_run(target, target * 2))
        if len(call["steps"]) == 2:
            return Answer(200, None)
        return ops(*({"op": "StepPlanned", "id": each, "displayName": each} for each in "ab"))

    event_id, run_id = await start(client, host, handler)
    async with asyncio.timeout(20):
        while (root := await tree(client, run_id))["childrenSpans"] == [] or (
            root["childrenSpans"][0]["status"] != "COMPLETED"
        ):
            await asyncio.sleep(0.01)

    assert shape(root) == ["app-f", "RUNNING", ["a", "COMPLETED"], ["b", "RUNNING"]]
    gate.set()
    await client.result(event_id)
    root = await tree(client, run_id)
    assert shape(root) == [
        "app-f", "COMPLETED", ["a", "COMPLETED"], ["b", "COMPLETED"], ["function success", "COMPLETED"],
    ]  # fmt: skip
    assert (await output(client, root["childrenSpans"][1]))["data"] == '"bb"'


async def test_a_run_that_was_cancelled_and_one_that_was_skipped(
    client: EngineClient, host: StubHost, connect: Connect
) -> None:
    sleep = {"op": "Sleep", "id": "z", "displayName": "nap", "name": "1h"}
    _, run_id = await start(client, host, lambda call: ops(sleep), singleton={"mode": "skip"})
    await until(await connect(), "steps")
    [skipped_event] = await client.send({"name": "app/f"})
    [skipped] = await client.runs_of(skipped_event)

    await client.request("DELETE", f"/v1/runs/{run_id}")

    assert shape(await tree(client, run_id)) == ["app-f", "CANCELLED", ["nap", "CANCELLED"]]
    run = (await ask(client, STATUS, run_id=skipped["run_id"]))["run"]
    assert run["status"] == "SKIPPED"
    root = await tree(client, skipped["run_id"])
    assert shape(root) == ["app-f", "SKIPPED"]
    assert (await output(client, root))["error"]["name"] == "Skipped"


async def test_a_step_that_has_only_failed_so_far(
    client: EngineClient, start_engine: StartEngine, host: StubHost, connect: Connect
) -> None:
    failed = {
        "op": "StepError",
        "id": "s",
        "displayName": "s",
        "error": {"name": "E", "message": "m"},
    }
    async with start_engine(retry_interval=3600.0) as (slow, _):
        _, run_id = await start(slow, host, lambda call: ops(failed))
        await until(await connect(), "attempts")

        root = await tree(slow, run_id)

        assert shape(root) == ["app-f", "RUNNING", ["s", "RUNNING", ["Attempt 0", "FAILED"]]]
        await slow.request("DELETE", f"/v1/runs/{run_id}")
        assert shape(await tree(slow, run_id))[2][:2] == ["s", "CANCELLED"]


# -- events ----------------------------------------------------------------------------------------


async def test_events_and_the_stream_of_them(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, None)
    await client.register(host.registration(host.function("app-f")))
    sent = await client.send(
        {"name": "app/f", "id": "mine", "data": {"n": 1.5}, "v": "2"}, {"name": "app/other"}
    )
    run = await client.result(sent[0])

    listed = (await ask(client, EVENTS))["events"]
    stream = (await ask(client, STREAM))["stream"]
    one = (await ask(client, EVENT_V2, id=sent[0]))["eventV2"]
    other = (await ask(client, EVENT_V2, id=sent[1]))["eventV2"]

    assert [each["id"] for each in listed] == sent[::-1]
    assert (listed[1]["name"], listed[1]["payload"]) == ("app/f", '{"n":1.5}')
    assert stream == [
        {"id": sent[1], "trigger": "app/other", "runs": []},
        {
            "id": sent[0], "trigger": "app/f",
            "runs": [{"id": run["run_id"], "function": {"name": "f"}}],
        },
    ]  # fmt: skip
    assert (one["idempotencyKey"], one["name"]) == ("mine", "app/f")
    assert (json.loads(one["raw"])["v"], other["idempotencyKey"]) == ("2", None)


async def test_pages_of_the_stream(client: EngineClient) -> None:
    sent = [(await client.send({"name": f"a/{n}"}))[0] for n in range(4)]
    page = """query ($after: ID, $before: ID, $limit: Int) {
      stream(query: {after: $after, before: $before, limit: $limit}) { id }
      events(query: {lastEventId: $before}) { id }
    }"""

    older = await ask(client, page, after=sent[2], limit=1)
    newer = await ask(client, page, before=sent[1])

    assert older["stream"] == [{"id": sent[1]}]
    assert newer["stream"] == newer["events"] == [{"id": sent[3]}, {"id": sent[2]}]


async def test_a_schedule_is_the_trigger_of_its_event(client: EngineClient) -> None:
    tick = {"name": "inngest/scheduled.timer", "data": {"cron": "* * * * *"}}
    query = """query ($all: Boolean) {
      stream(query: {includeInternalEvents: $all}) { trigger type }
    }"""
    status, _ = await client.request("POST", "/e/test", tick)

    assert status == 400  # nobody but the engine sends these
    assert (await ask(client, query, all=True))["stream"] == []


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([], "NO_FUNCTIONS"),
        ([200], "COMPLETED"),
        ([500], "FAILED"),
        ([200, 500], "PARTIALLY_FAILED"),
        ([200, 206], "RUNNING"),
    ],
)
async def test_what_an_event_came_to(
    client: EngineClient, host: StubHost, connect: Connect, outcomes: list[int], status: str
) -> None:
    def replying(code: int) -> Any:
        sleep = {"op": "Sleep", "id": "z", "name": "1h"}
        return lambda call: ops(sleep) if code == 206 else Answer(code, {"message": "m"})

    for number, code in enumerate(outcomes):
        host.handlers[f"app-f{number}"] = replying(code)
    triggers = [{"event": "app/go"}]
    await client.register(
        host.registration(*(host.function(s, retries=0, triggers=triggers) for s in host.handlers))
    )
    [event_id] = await client.send({"name": "app/go", "data": {}})
    live = outcomes.count(206)
    query = """query ($id: ID!) {
      event(query: {eventId: $id}) { status totalRuns pendingRuns functionRuns { status output } }
    }"""
    async with asyncio.timeout(20):
        while (event := (await ask(client, query, id=event_id))["event"])["pendingRuns"] != live:
            await asyncio.sleep(0.01)

    assert (event["status"], event["totalRuns"]) == (status, len(outcomes))
    ended = [run["output"] for run in event["functionRuns"] if run["status"] != "RUNNING"]
    assert None not in ended[: len(outcomes) - live]


async def test_the_run_and_its_function_in_full(client: EngineClient, host: StubHost) -> None:
    event_id, run_id = await start(client, host, lambda call: Answer(200, 1))
    await client.result(event_id)
    query = """query ($id: String!) {
      run(runID: $id) {
        id functionID appID queuedAt startedAt endedAt triggerIDs eventName isBatch cronSchedule
        function { slug name url config triggers { type value condition } }
        app { name externalID url }
      }
      runTrace(runID: $id) { name duration }
      runTrigger(runID: $id) { IDs eventName timestamp isBatch cron }
      functions { slug appID }
    }"""

    found = await ask(client, query, id=run_id)

    run, trigger = found["run"], found["runTrigger"]
    assert (run["triggerIDs"], run["eventName"], run["isBatch"]) == ([event_id], "app/f", False)
    assert run["cronSchedule"] is None and run["queuedAt"] <= run["endedAt"]
    assert run["function"]["slug"] == "app-f" and run["app"]["url"] == host.url
    assert json.loads(run["function"]["config"])["id"] == "app-f"
    assert run["function"]["triggers"] == [{"type": "EVENT", "value": "app/f", "condition": None}]
    assert found["runTrace"]["name"] == "app-f" and found["runTrace"]["duration"] >= 0
    assert (trigger["IDs"], trigger["isBatch"], trigger["cron"]) == ([event_id], False, None)
    assert found["functions"] == [{"slug": "app-f", "appID": run["appID"]}]


async def test_a_batch_has_all_its_events(client: EngineClient, host: StubHost) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, len(call["events"]))
    batch = {"maxSize": 2, "timeout": "60s"}
    await client.register(host.registration(host.function("app-f", batchEvents=batch)))
    sent = await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(2)))
    run = await client.result(sent[0])

    query = "query ($id: String!) { run(runID: $id) { isBatch } runTrigger(runID: $id) { IDs payloads } }"
    found = await ask(client, query, id=run["run_id"])

    assert found["run"]["isBatch"] is True
    assert found["runTrigger"]["IDs"] == sent
    assert [json.loads(p)["data"]["n"] for p in found["runTrigger"]["payloads"]] == [0, 1]


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f'{{ run(runID: "{UNKNOWN}") {{ id }} }}', f"run {UNKNOWN} is not known here"),
        ('{ run(runID: "nope") { id } }', "Invalid run ID: nope"),
        (f'{{ event(query: {{eventId: "{UNKNOWN}"}}) {{ id }} }}', "Event not found"),
        ('{ eventV2(id: "nope") { id } }', "Invalid event ID: nope"),
        ('{ events(query: {lastEventId: "x"}) { id } }', "Invalid event ID: x"),
        ('{ runTraceSpanOutputByID(outputID: "x") { data } }', "Invalid output ID: x"),
        (
            f'{{ runTraceSpanOutputByID(outputID: "{UNKNOWN}/s") {{ data }} }}',
            f"there is no output {UNKNOWN}/s",
        ),
        (
            f'{{ runTraceSpanOutputByID(outputID: "{UNKNOWN}#1") {{ data }} }}',
            f"there is no output {UNKNOWN}#1",
        ),
    ],
)
async def test_what_is_not_there_is_null_with_an_error(
    client: EngineClient, query: str, message: str
) -> None:
    status, answer = await client.request("POST", "/v0/gql", {"query": query})

    assert status == 200
    assert [each["message"] for each in answer["errors"]] == [message]
    assert list(answer["data"].values()) in ([None], [])


NESTED = "{ trace { childrenSpans " + "{ childrenSpans " * 20 + "{ name }" + "}" * 22
BOMB = "".join(
    f"fragment F{n} on RunTraceSpan {{ {f'...F{n + 1} ' * 2 if n < 30 else 'name'} }}\n"
    for n in range(31)
)


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("{ nope }", "GRAPHQL_VALIDATION_FAILED", "Cannot query field 'nope' on type 'Query'."),
        ("mutation { x }", "GRAPHQL_VALIDATION_FAILED", "mutation"),
        ("{ run(", "GRAPHQL_PARSE_FAILED", "Syntax Error"),
        ("{" * 100_000, "GRAPHQL_PARSE_FAILED", ""),
        ("{ a" * 1500, "GRAPHQL_PARSE_FAILED", "nested too deeply"),
        ("{ x " * 5000, "GRAPHQL_PARSE_FAILED", ""),
        (f'{{ run(runID: "x") {NESTED} }}', "GRAPHQL_VALIDATION_FAILED", "levels deep, 15 are"),
        (
            "{" + " ".join(f"f{n}: functions {{ id }}" for n in range(21)) + "}",
            "GRAPHQL_VALIDATION_FAILED",
            "the query has 21 questions at its root, 20 are allowed",
        ),
        (
            'query { runTrace(runID: "x") { ...F0 } }\n' + BOMB,
            "GRAPHQL_VALIDATION_FAILED",
            "fields, 400 are allowed",
        ),
    ],
)
async def test_documents_that_do_not_fit_or_ask_for_too_much(
    client: EngineClient, query: str, code: str, message: str
) -> None:
    async with asyncio.timeout(20):
        status, answer = await client.request("POST", "/v0/gql", {"query": query})

    assert status == 422 and answer["data"] is None
    [problem] = answer["errors"]
    assert problem["extensions"] == {"code": code}
    assert message in problem["message"]


@pytest.mark.parametrize(
    "body", ["{", "[]", '"x"', "{}", '{"query": 1}', '{"query": "", "variables": 1}']
)
async def test_a_body_that_is_no_question(client: EngineClient, body: str) -> None:
    status, answer = await client.request("POST", "/v0/gql", body)

    assert (status, answer) == (
        400, {"error": 'expected {"query": "<GraphQL>", "variables"?: {…}}', "status": 400},
    )  # fmt: skip


async def test_a_body_that_is_too_large(client: EngineClient) -> None:
    status, answer = await client.request("POST", "/v0/gql", "x" * (1024 * 1024 + 1))

    assert (status, answer["error"]) == (413, "a request may have 1048576 bytes")


async def test_a_document_that_needs_too_many_look_ups(
    client: EngineClient, connect: Connect
) -> None:
    connection = await connect()
    for number in range(6):
        [event_id] = await client.send({"name": "a/b", "data": {"n": number}})
        await connection.execute(
            """insert into stepbase.runs
                 (run_id, function_id, fn_version, event_id, status, created_at, ended_at, output)
               select $1 || n, gen_random_uuid(), 1, $1, 'Completed', now(), now(), '1'
                 from generate_series(1, 100) n""",
            event_id,
        )
    query = "query ($limit: Int) { stream(query: {limit: $limit}) { runs { output } } }"

    found = await ask(client, query, limit=4)
    status, answer = await client.request("POST", "/v0/gql", {"query": query})

    assert {run["output"] for each in found["stream"] for run in each["runs"]} == {"1"}
    assert status == 422
    [problem] = answer["errors"]
    assert problem["message"].startswith("the query needs more than 500 look-ups")


async def test_calls_go_on_while_an_answer_is_made(client: EngineClient, connect: Connect) -> None:
    run_id = UNKNOWN
    await (await connect()).execute(
        f"""insert into stepbase.runs
              (run_id, function_id, fn_version, event_id, status, created_at, started_at, ended_at)
            values ('{run_id}', gen_random_uuid(), 1, 'E', 'Completed', now(), now(), now());
            insert into stepbase.steps
              (run_id, hash, pos, name, op, status, memo, started_at, ended_at)
            select '{run_id}', 'h' || n, n, 's' || n, 'StepRun', 'done', '{{}}', now(), now()
              from generate_series(1, 1000) n"""
    )
    asked = asyncio.create_task(tree(client, run_id))
    answered = 0
    while not asked.done():
        assert (await client.request("GET", "/health"))[0] == 200
        answered += 1

    assert len((await asked)["childrenSpans"]) == 1001
    assert answered > 3


async def test_variables_that_do_not_fit_and_operations_by_name(client: EngineClient) -> None:
    two = "query A { functions { id } } query B { events(query: {}) { id } }"

    _, wrong = await client.request("POST", "/v0/gql", {"query": STATUS, "variables": {}})
    _, named = await client.request("POST", "/v0/gql", {"query": two, "operationName": "B"})
    _, unnamed = await client.request("POST", "/v0/gql", {"query": two})

    assert "'$run_id'" in wrong["errors"][0]["message"] and wrong["data"] is None
    assert named == {"data": {"events": []}}
    assert "operation name" in unnamed["errors"][0]["message"]


async def test_what_the_database_refuses_is_no_part_of_an_answer(
    client: EngineClient, connect: Connect
) -> None:
    connection = await connect()
    await connection.execute("alter function stepbase.get_runs(text, text) rename to gone")
    query = {"query": f'{{ run(runID: "{UNKNOWN}") {{ id }} }}'}

    status, answer = await client.request("POST", "/v0/gql", query)

    assert status == 500 and "get_runs" in answer["error"]


def test_starting_an_engine_does_not_load_graphql() -> None:
    code = "import sys, stepbase.engine.server; sys.exit('graphql' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
