"""Steps beside each other in one call: what runs, what is saved, and what the call ends with."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from tests.support.fake_api import Answer, FakeApi, Received, fake_api
from tests.support.sdk_calls import Reply, call_object
from tests.support.sdk_hosts import ask_asgi

from stepbase import (
    App,
    Checkpointing,
    Middleware,
    NonRetriableError,
    RetryAfterError,
    Step,
    SyncStep,
    asgi,
)
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.sdk import ask, checkpoints, post
from stepbase.sdk.middleware import Output
from stepbase.sdk.together import PLAIN_AT_ONCE

app = App("t")
told = threading.Event()
saved_one = threading.Event()
user: ContextVar[str] = ContextVar("user", default="nobody")
most = [0, 0]
lock = threading.Lock()


class AwayError(Exception):
    """Something called is away."""

    is_outage = True


def fail(kind: str) -> None:
    errors = {
        "error": ValueError("no"),
        "final": NonRetriableError("never"),
        "later": RetryAfterError("busy", 60),
        "away": AwayError("away"),
    }
    raise errors[kind]


def busy() -> int:
    """Count how many of this are under way at once."""
    with lock:
        most[0] += 1
        most[1] = max(most)
    time.sleep(0.002)
    with lock:
        most[0] -= 1
    return 1


def wait_until_saved() -> bool:
    return saved_one.wait(5)


def pause() -> None:
    time.sleep(0.02)


@app.function("group-async")
async def group_async(step: Step) -> list[int]:
    first = await step.run("a", lambda: 1)
    others = await asyncio.gather(*(step.run(name, lambda: 2) for name in "bcd"))
    return [first, *others, await step.run("e", lambda: 3)]


@app.function("group-sync")
def group_sync(step: SyncStep) -> list[int]:
    first = step.run("a", lambda: 1)
    others = step.parallel(*(lambda n=name: step.run(n, lambda: 2) for name in "bcd"))
    return [first, *others, step.run("e", lambda: 3)]


@app.function("off-async", checkpointing=Checkpointing(parallel=False))
async def off_async(step: Step) -> Any:
    return await asyncio.gather(*(step.run(name, lambda: 2) for name in "bc"))


@app.function("off-sync", checkpointing=Checkpointing(parallel=False))
def off_sync(step: SyncStep) -> Any:
    return step.parallel(lambda: step.run("b", int), lambda: step.run("c", int))


app.function("beside-async")(off_async.handler)
app.function("beside-sync")(off_sync.handler)


@app.function("chains-async")
async def chains_async(step: Step) -> Any:
    async def chain(name: str) -> int:
        return sum([await step.run(f"{name}{i}", lambda: 1) for i in range(3)])

    return await asyncio.gather(*map(chain, "ab"))


@app.function("chains-sync")
def chains_sync(step: SyncStep) -> Any:
    def chain(name: str) -> int:
        return sum([step.run(f"{name}{i}", lambda: 1) for i in range(3)])

    return step.parallel(lambda: chain("a"), lambda: chain("b"))


for kind in ("error", "final", "later", "away"):

    @app.function(f"{kind}-async")
    async def fails_async(step: Step, kind: str = kind) -> Any:
        return await asyncio.gather(step.run("good", lambda: 1), step.run("bad", fail, kind))

    @app.function(f"{kind}-sync")
    def fails_sync(step: SyncStep, kind: str = kind) -> Any:
        return step.parallel(lambda: step.run("good", int), lambda: step.run("bad", fail, kind))


@app.function("sleeps-async")
async def sleeps_async(step: Step) -> None:
    await asyncio.gather(step.run("a", told.set), step.sleep("nap", "1h"))


@app.function("sleeps-sync")
def sleeps_sync(step: SyncStep) -> None:
    step.parallel(lambda: step.run("a", told.set), lambda: step.sleep("nap", "1h"))


@app.function("race-async")
async def race_async(step: Step) -> None:
    await step.race(step.run("a", told.set), step.run("b", told.set))


@app.function("race-sync")
def race_sync(step: SyncStep) -> None:
    step.race(lambda: step.run("a", told.set), lambda: step.run("b", told.set))


@app.function("busy-async")
async def busy_async(step: Step) -> int:
    return sum(await asyncio.gather(*(step.run(f"s{i}", busy) for i in range(30))))


@app.function("busy-sync")
def busy_sync(step: SyncStep) -> int:
    return sum(step.parallel(*(lambda i=i: step.run(f"s{i}", busy) for i in range(30))))


@app.function("late-async", checkpointing=Checkpointing(max_runtime="10ms"))
async def late_async(step: Step) -> None:
    await asyncio.gather(*(step.run(f"s{i}", pause) for i in range(2 * PLAIN_AT_ONCE)))


@app.function("late-sync", checkpointing=Checkpointing(max_runtime="10ms"))
def late_sync(step: SyncStep) -> None:
    step.parallel(*(lambda i=i: step.run(f"s{i}", pause) for i in range(2 * PLAIN_AT_ONCE)))


@app.function("long-async")
async def long_async(step: Step) -> Any:
    return await asyncio.gather(step.run("quick", lambda: 1), step.run("long", wait_until_saved))


@app.function("long-sync")
def long_sync(step: SyncStep) -> Any:
    return step.parallel(
        lambda: step.run("quick", lambda: 1), lambda: step.run("long", wait_until_saved)
    )


@app.function("context-async")
async def context_async(step: Step) -> Any:
    async def branch(name: str) -> str:
        user.set(name)
        return await step.run(name, user.get)

    return await asyncio.gather(*map(branch, "ab"))


@app.function("large-async")
async def large_async(step: Step) -> None:
    await asyncio.gather(*(step.run(name, lambda: "x" * 300) for name in "abcd"))


@app.function("large-sync")
def large_sync(step: SyncStep) -> None:
    step.parallel(*(lambda n=name: step.run(n, lambda: "x" * 300) for name in "abcd"))


@app.function("left-async")
async def left_async(step: Step) -> str:
    task = asyncio.ensure_future(step.run("a", wait_until_saved))
    other = asyncio.ensure_future(step.run("b", lambda: 1))
    await asyncio.sleep(0.05)
    saved_one.set()
    task.cancel()
    other.cancel()
    return "left"


class Veil(Middleware):
    """Hides what leaves."""

    def transform_output(self, output: Output) -> None:
        output.data = {"hidden": output.data}


veiled = App("v", middleware=[Veil])
veiled.function("group-async")(group_async.handler)
veiled.function("group-sync")(group_sync.handler)


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    monkeypatch.setattr(ask, "FIRST_PAUSE_SECONDS", 0.001)
    told.clear()
    saved_one.clear()
    most[:] = [0, 0]
    with fake_api() as api:
        monkeypatch.setenv("INNGEST_DEV", api.url)
        yield api
    post.close()


async def call(name: str, *, ours: bool = True, of: App = app, **options: Any) -> Reply:
    body = dumps_bytes(call_object(may_checkpoint=True, **options))
    headers = {"x-stepbase-together": "true"} if ours else {}
    query = f"fnId={of.id}-{name}&stepId=step"
    return await ask_asgi(asgi(of))("POST", query=query, body=body, headers=headers)


def shown(reply: Reply) -> list[str]:
    return [f"{op['op']} {op['displayName']}" for op in reply.body]


def saved(api: FakeApi) -> list[list[str]]:
    return [[op["displayName"] for op in each.body["steps"]] for each in api.received]


KINDS = pytest.mark.parametrize("kind", ["async", "sync"])


@KINDS
async def test_a_group_runs_in_one_call_and_is_saved_before_the_next_step(
    api: FakeApi, kind: str
) -> None:
    reply = await call(f"group-{kind}")

    first, second = saved(api)
    assert (first, sorted(second)) == (["a"], ["b", "c", "d"])
    assert shown(reply) == ["StepRun e", "RunComplete complete"]
    assert reply.body[1]["data"] == [1, 2, 2, 2, 3]


@KINDS
async def test_other_servers_are_told_of_every_step(api: FakeApi, kind: str) -> None:
    reply = await call(f"group-{kind}", ours=False)

    assert saved(api) == [["a"]]
    assert shown(reply) == ["StepPlanned b", "StepPlanned c", "StepPlanned d"]


@KINDS
@pytest.mark.parametrize("options", [{"is_planning": True}, {"attempt": 1}])
async def test_calls_in_which_nothing_goes_on_report_a_group(
    api: FakeApi, kind: str, options: dict[str, Any]
) -> None:
    reply = await call(f"beside-{kind}", **options)

    assert (saved(api), shown(reply)) == ([], ["StepPlanned b", "StepPlanned c"])


@KINDS
async def test_the_option_has_a_call_made_for_each(api: FakeApi, kind: str) -> None:
    assert shown(await call(f"off-{kind}")) == ["StepPlanned b", "StepPlanned c"]


@KINDS
async def test_branches_go_on_together_step_after_step(api: FakeApi, kind: str) -> None:
    reply = await call(f"chains-{kind}")

    waves = [sorted(each) for each in saved(api)]
    assert waves == [["a0", "b0"], ["a1", "b1"]]
    assert sorted(shown(reply)) == ["RunComplete complete", "StepRun a2", "StepRun b2"]
    assert reply.body[-1]["data"] == [3, 3]


@KINDS
async def test_a_step_that_fails_is_planned_with_the_error_of_its_first_attempt(
    api: FakeApi, kind: str
) -> None:
    reply = await call(f"error-{kind}")

    assert saved(api) == [["good"]]
    assert shown(reply) == ["StepPlanned bad"]
    assert (reply.body[0]["error"]["name"], reply.body[0]["error"]["message"]) == (
        "ValueError",
        "no",
    )
    assert reply.body[0]["opts"] is None


@KINDS
async def test_each_brings_when_it_may_be_tried_again(api: FakeApi, kind: str) -> None:
    reply = await call(f"later-{kind}")

    assert shown(reply) == ["StepPlanned bad"]
    assert reply.body[0]["opts"] == {"retryAfter": "60"}
    assert "retry-after" not in reply.headers


@KINDS
async def test_a_final_failure_is_reported_as_one(api: FakeApi, kind: str) -> None:
    reply = await call(f"final-{kind}")

    assert saved(api) == [["good"]]
    assert shown(reply) == ["StepFailed bad"]


@KINDS
async def test_an_outage_costs_no_attempt(api: FakeApi, kind: str) -> None:
    reply = await call(f"away-{kind}")

    assert shown(reply) == ["StepPlanned bad"]
    assert "error" not in reply.body[0]


@KINDS
@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("sleeps", ["StepPlanned a", "Sleep nap"]),
        ("race", ["StepPlanned a", "StepPlanned b"]),
    ],
)
async def test_what_the_server_must_see_is_all_its(
    api: FakeApi, kind: str, name: str, ops: list[str]
) -> None:
    reply = await call(f"{name}-{kind}")

    assert shown(reply) == ops
    assert not told.is_set()


@KINDS
async def test_plain_functions_are_bounded(api: FakeApi, kind: str) -> None:
    reply = await call(f"busy-{kind}")

    assert reply.body[-1]["data"] == 30
    assert 2 <= most[1] <= PLAIN_AT_ONCE


@KINDS
async def test_what_was_not_begun_in_time_is_planned(api: FakeApi, kind: str) -> None:
    reply = await call(f"late-{kind}")

    count = sum(len(each) for each in saved(api))
    planned = [each for each in shown(reply) if each.startswith("StepPlanned")]
    assert 0 < count <= PLAIN_AT_ONCE
    assert count + len(planned) == 2 * PLAIN_AT_ONCE
    assert len(planned) == len(reply.body)


@KINDS
async def test_a_result_is_saved_while_others_are_under_way(api: FakeApi, kind: str) -> None:
    def answer(_: Received) -> Answer:
        saved_one.set()
        return 200, {}

    api.answer = answer

    reply = await call(f"long-{kind}")

    assert saved(api) == [["quick"]]
    assert shown(reply) == ["StepRun long", "RunComplete complete"]
    assert reply.body[1]["data"] == [1, True]


@KINDS
@pytest.mark.parametrize(("status", "ending"), [(409, 500), (413, 206)])
async def test_a_group_whose_results_are_not_taken(
    api: FakeApi, kind: str, status: int, ending: int
) -> None:
    def answer(_: Received) -> Answer:
        saved_one.set()
        return status, {}

    api.answer = answer

    reply = await call(f"long-{kind}")

    assert reply.status == ending
    if status == 413:
        assert shown(reply) == ["StepRun quick", "StepRun long"]
    else:
        assert reply.body["code"] == "call_stale"


@KINDS
async def test_results_are_sent_in_parts_that_fit(
    api: FakeApi, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_BUFFERED_BYTES", 1000)
    monkeypatch.setattr(checkpoints, "MAX_POST_BYTES", 700)

    reply = await call(f"large-{kind}")

    assert sorted(map(len, saved(api))) == [2, 2]
    assert shown(reply) == ["RunComplete complete"]


async def test_the_work_of_a_step_sees_the_context_of_its_branch(api: FakeApi) -> None:
    reply = await call("context-async")

    assert reply.body[-1]["data"] == ["a", "b"]


async def test_works_under_way_end_before_the_call_does(api: FakeApi) -> None:
    reply = await call("left-async")

    ops = [*sum(saved(api), []), *(op["displayName"] for op in reply.body)]
    assert sorted(ops) == ["a", "b", "complete"]


async def test_hooks_see_every_result(api: FakeApi) -> None:
    reply = await call("group-async", of=veiled)

    assert {op["data"]["hidden"] for op in api.received[1].body["steps"]} == {2}
    assert reply.body[-1]["data"] == {"hidden": [1, 2, 2, 2, 3]}


async def test_plain_handlers_with_hooks_report_a_group(api: FakeApi) -> None:
    reply = await call("group-sync", of=veiled)

    assert shown(reply) == ["StepPlanned b", "StepPlanned c", "StepPlanned d"]


async def test_a_final_failure_of_a_group_reaches_the_handler(api: FakeApi) -> None:
    steps = {each["id"]: {"error": each["error"]} for each in (await call("final-async")).body}

    reply = await call("final-async", steps=steps)

    assert (reply.status, reply.body["message"]) == (500, "never")
