"""Checkpoints: what is saved when, what the call ends with, and what happens when saving fails."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.fake_api import Answer, FakeApi, Received, fake_api
from tests.support.sdk_calls import RUN_ID, Reply, call_object, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Checkpointing, DefinitionError, Middleware, Step, SyncStep, asgi, clock
from stepbase.protocol.jsontext import dumps_bytes
from stepbase.protocol.signing import hash_key, sign
from stepbase.sdk import ask, post
from stepbase.sdk.http import Exchange
from stepbase.sdk.middleware import Output

app = App("saved")
ready = threading.Event()
hurried = threading.Event()


def define(name: str, **options: Any) -> Callable[[Any], None]:
    """Define the same handler as `async def` and as `def`."""

    def decorate(plain: Callable[[SyncStep], Any]) -> None:
        app.function(f"{name}-sync", **options)(plain)

    return decorate


@define("three")
def three(step: SyncStep) -> list[int]:
    return [step.run(name, lambda: 1) for name in "abc"]


@define("ten", checkpointing=Checkpointing(10))
def ten(step: SyncStep) -> list[int]:
    return [step.run(name, lambda: 1) for name in "abc"]


@define("off", checkpointing=False)
def off(step: SyncStep) -> list[int]:
    return [step.run(name, lambda: 1) for name in "abc"]


@define("short", checkpointing=Checkpointing(max_runtime="1ms"))
def short(step: SyncStep) -> list[int]:
    return [step.run(name, threading.Event().wait, 0.005) for name in "abc"]


@define("sleeps")
def sleeps(step: SyncStep) -> None:
    step.run("a", lambda: 1)
    step.sleep("nap", "1h")


@define("errs")
def errs(step: SyncStep) -> None:
    step.run("a", lambda: 1)
    step.run("b", lambda: 1 / 0)


@define("raises")
def raises(step: SyncStep) -> None:
    step.run("a", lambda: 1)
    raise ValueError("no")


@define("waits", checkpointing=Checkpointing(10, max_interval="10ms"))
def waits(step: SyncStep) -> None:
    step.run("a", lambda: 1)
    step.run("b", lambda: ready.wait(5))


@app.function("three-async")
async def three_async(step: Step) -> list[int]:
    return [await step.run(name, lambda: 1) for name in "abc"]


@app.function("ten-async", checkpointing=Checkpointing(10))
async def ten_async(step: Step) -> list[int]:
    return [await step.run(name, lambda: 1) for name in "abc"]


@app.function("off-async", checkpointing=False)
async def off_async(step: Step) -> list[int]:
    return [await step.run(name, lambda: 1) for name in "abc"]


@app.function("short-async", checkpointing=Checkpointing(max_runtime="1ms"))
async def short_async(step: Step) -> list[Any]:
    return [await step.run(name, asyncio.sleep, 0.005) for name in "abc"]


@app.function("sleeps-async")
async def sleeps_async(step: Step) -> None:
    await step.run("a", lambda: 1)
    await step.sleep("nap", "1h")


@app.function("errs-async")
async def errs_async(step: Step) -> None:
    await step.run("a", lambda: 1)
    await step.run("b", lambda: 1 / 0)


@app.function("raises-async")
async def raises_async(step: Step) -> None:
    await step.run("a", lambda: 1)
    raise ValueError("no")


@app.function("waits-async", checkpointing=Checkpointing(10, max_interval="10ms"))
async def waits_async(step: Step) -> None:
    await step.run("a", lambda: 1)
    await step.run("b", lambda: ready.wait(5))


@define("idle", checkpointing=Checkpointing(10, max_interval="1h"))
def idle(step: SyncStep) -> None:
    step.run("a", lambda: 1)


@app.function("idle-async", checkpointing=Checkpointing(10, max_interval="1h"))
async def idle_async(step: Step) -> None:
    await step.run("a", lambda: 1)


@define("hurries", checkpointing=Checkpointing(10, max_interval="10ms"))
def hurries(step: SyncStep) -> None:
    step.run("a", lambda: 1)
    step.run("b", lambda: ready.wait(5))
    step.run("c", hurried.set)


@app.function("hurries-async", checkpointing=Checkpointing(10, max_interval="10ms"))
async def hurries_async(step: Step) -> None:
    await step.run("a", lambda: 1)
    await step.run("b", lambda: ready.wait(5))
    await step.run("c", hurried.set)


async def cancels() -> None:
    asleep = asyncio.ensure_future(asyncio.sleep(3600))
    asyncio.get_running_loop().call_soon(asleep.cancel)
    await asleep


@app.function("cancels-async")
async def cancels_async(step: Step) -> None:
    await step.run("a", cancels)


@app.function("last-branch-sync")
def last_branch(step: SyncStep) -> None:
    step.run("a", lambda: 1)
    step.parallel(lambda: 1, lambda: step.run("b", lambda: 2))


@app.function("beside-async")
async def beside_async(step: Step) -> list[int]:
    first = await step.run("a", lambda: 1)
    return [first, *await asyncio.gather(step.run("b", lambda: 2), step.run("c", lambda: 3))]


@app.function("beside-sync")
def beside_sync(step: SyncStep) -> list[int]:
    first = step.run("a", lambda: 1)
    return [first, *step.parallel(lambda: step.run("b", int), lambda: step.run("c", int))]


class Veil(Middleware):
    """Hides what leaves, and shows it again."""

    def transform_output(self, output: Output) -> None:
        output.data = {"hidden": output.data}


veiled = App("veiled", middleware=[Veil])


@veiled.function("two-async")
async def two_async(step: Step) -> int:
    return await step.run("a", lambda: 1) + await step.run("b", lambda: 2)


@veiled.function("two-sync")
def two_sync(step: SyncStep) -> int:
    return step.run("a", lambda: 1) + step.run("b", lambda: 2)


KINDS = pytest.mark.parametrize("kind", ["async", "sync"])


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ask, "FIRST_PAUSE_SECONDS", 0.001)
    ready.clear()
    hurried.clear()
    yield
    post.close()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    with fake_api() as api:
        monkeypatch.setenv("INNGEST_DEV", api.url)
        yield api


async def call(name: str, *, headers: dict[str, str] | None = None, **options: Any) -> Reply:
    target = options.get("step_id", "step")
    body = dumps_bytes(call_object(may_checkpoint=True, **options))
    query = f"fnId=saved-{name}&stepId={target}"
    return await ask_asgi(asgi(app))("POST", query=query, body=body, headers=headers or {})


def shown(reply: Reply) -> list[str]:
    return [f"{op['op']} {op['displayName']}" for op in reply.body]


def saved(api: FakeApi) -> list[list[str]]:
    return [[op["displayName"] for op in each.body["steps"]] for each in api.received]


@KINDS
async def test_each_result_is_saved_before_the_next_step_and_the_last_travels(
    api: FakeApi, kind: str
) -> None:
    reply = await call(f"three-{kind}")

    assert saved(api) == [["a"], ["b"]]
    assert (reply.status, shown(reply)) == (206, ["StepRun c", "RunComplete complete"])
    assert reply.body[1] == {
        "data": [1, 1, 1],
        "displayName": "complete",
        "id": "0737c22d3bfae812339732d14d8c7dbd6dc4e09c",
        "name": "",
        "op": "RunComplete",
        "opts": None,
        "userland": {"id": "complete", "index": None},
    }


@KINDS
async def test_results_are_buffered_as_the_option_says(api: FakeApi, kind: str) -> None:
    reply = await call(f"ten-{kind}")

    assert saved(api) == []
    assert shown(reply) == ["StepRun a", "StepRun b", "StepRun c", "RunComplete complete"]


@KINDS
@pytest.mark.parametrize(
    "options",
    [
        {"step_id": hashed("a")},
        {"is_planning": True},
        {"attempt": 1},
        {"name": "off"},
        {"name": "short"},
    ],
)
async def test_calls_that_end_with_their_step(
    api: FakeApi, kind: str, options: dict[str, Any]
) -> None:
    name = options.get("name", "three")

    reply = await call(f"{name}-{kind}", **{k: v for k, v in options.items() if k != "name"})

    planned = "StepPlanned a" if options.get("is_planning") else "StepRun a"
    assert (saved(api), shown(reply)) == ([], [planned])


@KINDS
@pytest.mark.parametrize(
    ("name", "status", "last"),
    [("sleeps", 206, ["Sleep nap"]), ("errs", 206, ["StepError b"]), ("raises", 500, None)],
)
async def test_results_are_saved_before_anything_else_is_reported(
    api: FakeApi, kind: str, name: str, status: int, last: list[str] | None
) -> None:
    reply = await call(f"{name}-{kind}")

    assert saved(api) == [["a"]]
    assert reply.status == status
    assert last is None or shown(reply) == last


@KINDS
async def test_steps_side_by_side_are_planned_after_what_ran(api: FakeApi, kind: str) -> None:
    reply = await call(f"beside-{kind}")

    assert saved(api) == [["a"]]
    assert shown(reply) == ["StepPlanned b", "StepPlanned c"]


@KINDS
async def test_a_result_that_waits_too_long_is_saved_while_a_step_runs(
    api: FakeApi, kind: str
) -> None:
    def answer(_: Received) -> Answer:
        ready.set()
        return 200, {}

    api.answer = answer

    reply = await call(f"waits-{kind}")

    assert saved(api) == [["a"]]
    assert shown(reply) == ["StepRun b", "RunComplete complete"]


@KINDS
async def test_steps_go_on_while_results_are_on_their_way(api: FakeApi, kind: str) -> None:
    def answer(_: Received) -> Answer:
        ready.set()
        return (200 if hurried.wait(5) else 500), {}

    api.answer = answer

    reply = await call(f"hurries-{kind}")

    assert saved(api) == [["a"]]
    assert shown(reply) == ["StepRun b", "StepRun c", "RunComplete complete"]


@KINDS
async def test_nothing_is_saved_once_the_call_is_answered(api: FakeApi, kind: str) -> None:
    reply = await call(f"idle-{kind}")

    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
            assert not thread.is_alive()
    assert shown(reply) == ["StepRun a", "RunComplete complete"]
    assert saved(api) == []


@KINDS
async def test_a_changed_function_is_warned_of_though_the_call_goes_on(
    api: FakeApi, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    steps = {hashed("a"): {"data": 1}, hashed("gone"): {"data": 1}}

    reply = await call(f"three-{kind}", steps=steps, stack=list(steps))

    assert shown(reply) == ["StepRun c", "RunComplete complete"]
    assert "1 steps with results were not reached: the function was changed" in caplog.text


async def test_a_step_fails_when_what_it_waits_for_is_cancelled(api: FakeApi) -> None:
    reply = await call("cancels-async")

    assert shown(reply) == ["StepError a"]
    assert reply.body[0]["error"]["name"] == "CancelledError"


async def test_the_last_branch_runs_when_what_came_before_is_saved(api: FakeApi) -> None:
    reply = await call("last-branch-sync")

    assert saved(api) == [["a"]]
    assert shown(reply) == ["StepRun b"]


async def test_a_server_that_hangs_is_asked_once_for_each_try(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answer = lambda _: (200, {"waited": len(api.received) > 2 and hurried.wait(5)})
    exchange = Exchange("POST", f"{api.url}/x", {}, b"{}")
    monkeypatch.setattr(post, "TIMEOUT_SECONDS", 0.05)

    assert [post.post(exchange).status for _ in range(3)] == [200, 200, 0]
    hurried.set()

    assert len(api.received) == 3


@KINDS
@pytest.mark.parametrize(("status", "tries"), [(500, 5), (429, 5), (413, 1), (400, 1)])
async def test_what_cannot_be_saved_is_handed_back(
    api: FakeApi, kind: str, status: int, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    api.answer = lambda _: (status, {})

    reply = await call(f"three-{kind}")

    assert saved(api) == [["a"]] * tries
    assert (reply.status, shown(reply)) == (206, ["StepRun a"])
    assert f"did not take results on the way (HTTP {status})" in caplog.text


@KINDS
async def test_a_server_that_is_away_costs_nothing_but_the_shortcut(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "http://127.0.0.1:9")

    reply = await call(f"sleeps-{kind}")

    assert (reply.status, shown(reply)) == (206, ["StepRun a"])


@KINDS
async def test_a_call_that_the_server_has_given_up_stops(api: FakeApi, kind: str) -> None:
    api.answer = lambda _: (409, {})

    reply = await call(f"three-{kind}")

    assert (reply.status, reply.body["code"]) == (500, "call_stale")
    assert reply.headers["x-inngest-no-retry"] == "true"
    assert len(api.received) == 1


@KINDS
async def test_middleware_changes_what_is_saved_and_not_what_the_handler_sees(
    api: FakeApi, kind: str
) -> None:
    body = dumps_bytes(call_object(may_checkpoint=True))

    reply = await ask_asgi(asgi(veiled))("POST", query=f"fnId=veiled-two-{kind}", body=body)

    assert [op["data"] for op in api.received[0].body["steps"]] == [{"hidden": 1}]
    assert [op["data"] for op in reply.body] == [{"hidden": 2}, {"hidden": 3}]


async def test_a_checkpoint_says_whose_it_is(api: FakeApi) -> None:
    fence = {"x-inngest-generation-id": "7", "x-request-id": "from-the-header"}

    await call("three-async", headers=fence)

    received = api.received[0]
    body = received.body
    assert (received.method, received.path) == ("POST", f"/v1/checkpoint/{RUN_ID}/async")
    assert body["run_id"] == RUN_ID
    assert body["fn_id"] == "6f5b201f-ce08-56ec-9be7-dc8bb78243ae"
    assert body["qi_id"] == "ZDliZGN4dTJ2aGs4OjpkZWZhdWx0"
    assert (body["generation_id"], body["request_id"]) == (7, "from-the-header")
    assert body["request_started_at"] <= body["ts"]
    assert "authorization" not in received.headers


async def test_keys_are_used_and_the_second_when_the_first_is_refused(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("signkey-test-" + "ab" * 16, "signkey-test-" + "cd" * 16)
    monkeypatch.delenv("INNGEST_DEV")
    monkeypatch.setenv("INNGEST_API_BASE_URL", api.url)
    monkeypatch.setenv("INNGEST_SIGNING_KEY", keys[0])
    monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", keys[1])
    api.answer = lambda request: (
        (200, {})
        if request.headers["authorization"] == f"Bearer {hash_key(keys[1])}"
        else (401, {})
    )
    body = dumps_bytes(call_object(may_checkpoint=True))

    reply = await ask_asgi(asgi(app))(
        "POST",
        query="fnId=saved-sleeps-async&stepId=step",
        body=body,
        headers={"x-inngest-signature": sign(body, keys[0], clock.now_s())},
    )

    assert shown(reply) == ["Sleep nap"]
    assert [each.headers["authorization"] for each in api.received] == [
        f"Bearer {hash_key(key)}" for key in keys
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffered_steps": 0}, "1 to 100"),
        ({"buffered_steps": True}, "whole number"),
        ({"max_interval": "soon"}, "max_interval"),
        ({"max_runtime": "3h"}, "two hours"),
        ({"max_runtime": 10}, "max_runtime"),
    ],
)
def test_what_the_option_takes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Checkpointing(**options)


def test_an_app_and_a_function_refuse_anything_else() -> None:
    wrong: dict[str, Any] = {"checkpointing": "yes"}

    with pytest.raises(DefinitionError, match="True, False or Checkpointing"):
        App("x", **wrong)
