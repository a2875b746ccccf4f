"""Replay keeps the promise: whatever gets lost or repeated, a run ends as the plain program would.

Programs are random: steps that fail some times or for good, sleeps, loops, branches on results, caught
errors and clean-up, with few ids so that they repeat. Each runs three ways: as a plain program, as an
async handler and as a sync one, the latter two against a server that loses and repeats replies.
"""

import asyncio
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.sdk_calls import call_body

from stepbase import App, Context, Step, StepError, SyncStep
from stepbase.config import InngestConfig
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.message import Request

MAX_ATTEMPTS = 3
DEV = InngestConfig(
    is_dev=True,
    api_origin="http://127.0.0.1:1",
    event_origin="http://127.0.0.1:1",
    serve_origin=None,
    serve_path=None,
    env=None,
    event_key=None,
    signing_key=None,
    signing_key_fallback=None,
)
MOST_CALLS = 400


@dataclass(frozen=True)
class Run:
    """A step that fails its first `failures` attempts."""

    id: str
    value: int
    failures: int


@dataclass(frozen=True)
class Sleep:
    id: str


@dataclass(frozen=True)
class Loop:
    times: int
    body: Any


@dataclass(frozen=True)
class Branch:
    """Goes on by whether the last result was even."""

    even: Any
    odd: Any


@dataclass(frozen=True)
class Catch:
    body: Any
    then: Any


@dataclass(frozen=True)
class Finally:
    body: Any
    always: Any


@dataclass(frozen=True)
class Sequence_:
    parts: tuple[Any, ...]


IDS = st.sampled_from(["a", "b", "a:1", "c"])
LEAVES = st.builds(Run, IDS, st.integers(0, 9), st.sampled_from([0, 0, 0, 1, 2, 3])) | st.builds(
    Sleep, IDS
)
PROGRAMS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Loop, st.integers(1, 3), inner),
        st.builds(Branch, inner, inner),
        st.builds(Catch, inner, inner),
        st.builds(Finally, inner, inner),
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: Sequence_(tuple(parts))),
    ),
    max_leaves=8,
)
FAULTS = st.lists(st.sampled_from(["ok", "ok", "lost", "repeated"]), max_size=60)

Steps = Generator[Run | Sleep, Any, None]


def interpret(node: Any, log: list[Any]) -> Steps:
    """Run a program; yields each step and is sent its result, or thrown its error."""
    match node:
        case Run():
            log.append((yield node))
        case Sleep():
            yield node
        case Loop(times, body):
            for _ in range(times):
                yield from interpret(body, log)
        case Branch(even, odd):
            last = log[-1] if log and isinstance(log[-1], int) else 0
            yield from interpret(odd if last % 2 else even, log)
        case Sequence_(parts):
            for part in parts:
                yield from interpret(part, log)
        case _:
            yield from interpret_guard(node, log)


def interpret_guard(node: Catch | Finally, log: list[Any]) -> Steps:
    """Run a program that handles errors."""
    if isinstance(node, Finally):
        try:
            yield from interpret(node.body, log)
        finally:
            yield from interpret(node.always, log)
        return
    try:
        yield from interpret(node.body, log)
    except StepError as error:
        log.append(f"caught {error.name}: {error.message}")
        yield from interpret(node.then, log)


def work(step: Run, attempt: int) -> int:
    if attempt < step.failures:
        raise ValueError(f"{step.id} failed")
    return step.value


def plain(program: Any) -> Any:
    """Return what the program does without any durability: its log, or its error."""
    log: list[Any] = []
    steps = interpret(program, log)
    try:
        node = next(steps)
        while True:
            if isinstance(node, Sleep):
                node = steps.send(None)
            elif node.failures >= MAX_ATTEMPTS:
                node = steps.throw(StepError("ValueError", f"{node.id} failed"))
            else:
                node = steps.send(node.value)
    except StopIteration:
        return log
    except StepError as error:
        return [error.name, error.message]


def build(program: Any) -> App:
    """Return an app that runs the program as an async and as a sync handler."""
    app = App("p")
    add_async(app, program)
    add_sync(app, program)
    return app


def add_async(app: App, program: Any) -> None:
    @app.function("async", on="x")
    async def handler(step: Step, ctx: Context) -> list[Any]:
        async def take(node: Run | Sleep) -> Any:
            if isinstance(node, Sleep):
                return await step.sleep(node.id, "1h")
            return await step.run(node.id, work, node, ctx.attempt)

        log: list[Any] = []
        walk = Walk(interpret(program, log))
        while (node := walk.next_step()) is not None:
            try:
                walk.outcome = await take(node)
            except BaseException as error:
                walk.error = error
        return log


def add_sync(app: App, program: Any) -> None:
    @app.function("sync", on="x")
    def sync_handler(step: SyncStep, ctx: Context) -> list[Any]:
        def take(node: Run | Sleep) -> Any:
            if isinstance(node, Sleep):
                return step.sleep(node.id, "1h")
            return step.run(node.id, work, node, ctx.attempt)

        log: list[Any] = []
        walk = Walk(interpret(program, log))
        while (node := walk.next_step()) is not None:
            try:
                walk.outcome = take(node)
            except BaseException as error:
                walk.error = error
        return log


@dataclass
class Walk:
    """Goes through a program's steps with what came of the one before."""

    steps: Steps
    outcome: Any = None
    error: BaseException | None = None

    def next_step(self) -> Run | Sleep | None:
        """Hand over the last outcome; returns the next step, or None at the end."""
        outcome, error = self.outcome, self.error
        self.outcome = self.error = None
        try:
            return self.steps.send(outcome) if error is None else self.steps.throw(error)
        except StopIteration:
            return None


@dataclass
class Transcript:
    """What a server recorded of a run: the ops it took, in order, and the end."""

    ops: list[tuple[str, str, Any]]
    end: Any


async def serve(endpoint: Endpoint, kind: str, faults: Sequence[str]) -> Transcript:
    """Run a function to its end, losing and repeating replies as told."""
    memos: dict[str, Any] = {}
    ops: list[tuple[str, str, Any]] = []
    attempt = 0
    left = list(faults)
    for _ in range(MOST_CALLS):
        body = call_body(steps=memos, attempt=attempt, max_attempts=MAX_ATTEMPTS)
        request = Request("POST", "http://x/", f"fnId=p-{kind}&stepId=step", {}, body)
        response = await endpoint.ahandle(request)
        fault = left.pop(0) if left else "ok"
        if fault == "lost":
            continue  # nobody saw it: the same call is made again
        if fault == "repeated":
            again = await endpoint.ahandle(request)
            assert (again.status, shown(again.body)) == (response.status, shown(response.body))
        answer = json.loads(response.body)
        if response.status == 200:
            return Transcript(ops, answer)
        if response.status == 500:
            assert response.headers["x-inngest-no-retry"] == "true"
            return Transcript(ops, [answer["name"], answer["message"]])
        (op,) = answer
        assert op["id"] not in memos, "a finished step was reported again"
        ops.append((op["op"], op["id"], op["data"]))
        attempt = attempt + 1 if op["op"] == "StepError" else 0
        if op["op"] == "StepFailed":
            memos[op["id"]] = {"error": op["error"]}
        elif op["op"] != "StepError":
            memos[op["id"]] = {"data": op["data"]} if op["op"] == "StepRun" else None
    raise AssertionError("the run has not ended")


def shown(body: bytes) -> Any:
    """Return a reply without what may differ between two answers to one call."""
    answer = json.loads(body)
    for each in answer if isinstance(answer, list) else []:
        if isinstance(each, dict) and each.get("op") == "Sleep":
            each["name"] = ""
    return answer


@settings(max_examples=150, deadline=None)
@given(PROGRAMS, FAULTS)
def test_a_run_ends_as_the_plain_program_whatever_is_lost(program: Any, faults: list[str]) -> None:
    async def check() -> None:
        expected = plain(program)
        endpoint = Endpoint(build(program), framework="test", settings=DEV)

        undisturbed = await serve(endpoint, "async", [])
        disturbed = await serve(endpoint, "async", faults)
        sync = await serve(endpoint, "sync", faults)

        assert undisturbed.end == expected
        assert undisturbed == disturbed == sync

    asyncio.run(check())
