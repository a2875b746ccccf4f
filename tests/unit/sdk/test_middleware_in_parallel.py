"""Middleware around handlers whose steps stand beside each other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.support.planner import Planner
from tests.support.sdk_calls import Reply
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, Middleware, Step, SyncStep, asgi
from stepbase.middleware import EncryptionMiddleware, Input, Output, Response, StepInfo

ONCE = ("before_memoization", "after_memoization", "before_execution", "after_execution")
calls: list[list[str]] = []


class Told(Middleware):
    """Keeps what was said in each call."""

    def before_memoization(self) -> None:
        calls.append(["before_memoization"])

    def after_memoization(self) -> None:
        calls[-1].append("after_memoization")

    def before_execution(self) -> None:
        calls[-1].append("before_execution")

    def after_execution(self) -> None:
        calls[-1].append("after_execution")

    @contextlib.contextmanager
    def around_step(self, step: StepInfo) -> Iterator[None]:
        calls[-1].append(f"step {step.step_id} {{")
        yield
        calls[-1].append("} step")

    def transform_step_input(self, step: StepInfo) -> None:
        calls[-1].append(f"reports {step.step_id}")

    def transform_output(self, output: Output) -> None:
        calls[-1].append(f"output {output.step.step_id if output.step else 'handler'}")

    def before_response(self, response: Response) -> None:
        calls[-1].append("before_response")


class Slow(Middleware):
    """Hooks that wait for something else than steps."""

    async def after_memoization(self) -> None:
        await asyncio.sleep(0.001)

    async def before_execution(self) -> None:
        await asyncio.sleep(0.001)
        calls[-1].append("slow begin")

    @contextlib.asynccontextmanager
    async def around_step(self, step: StepInfo) -> AsyncIterator[None]:
        await asyncio.sleep(0.001)
        assert "slow begin" in calls[-1]
        yield


def work(name: str) -> str:
    calls[-1].append(f"work {name}")
    return name


async def branch(step: Step, name: str) -> str:
    first = await step.run(f"{name} 1", work, f"{name} 1")
    await step.sleep(f"{name} nap", "1s")
    return first + await step.run(f"{name} 2", work, f" {name} 2")


async def handler(step: Step) -> Any:
    before = await step.run("before", work, "before")
    both = await asyncio.gather(branch(step, "a"), branch(step, "b"))
    return [before, *both, await step.run("after", work, "after")]


def branch_sync(step: SyncStep, name: str) -> str:
    first = step.run(f"{name} 1", work, f"{name} 1")
    step.sleep(f"{name} nap", "1s")
    return first + step.run(f"{name} 2", work, f" {name} 2")


def handler_sync(step: SyncStep) -> Any:
    before = step.run("before", work, "before")
    both = step.parallel(lambda: branch_sync(step, "a"), lambda: branch_sync(step, "b"))
    return [before, *both, step.run("after", work, "after")]


OUTPUT = ["before", "a 1 a 2", "b 1 b 2", "after"]


async def finish(kind: str, *middleware: Any, choose: Any = None) -> tuple[Planner, Any]:
    calls.clear()
    app = App("case", middleware=middleware)
    app.function("f", on="case/start")(handler if kind == "async" else handler_sync)
    ask = ask_asgi(asgi(app))

    async def post(query: str, body: bytes) -> Reply:
        return await ask("POST", query=query, body=body)

    planner = Planner(post, "case-f", choose or (lambda due: due[0]))
    return planner, await planner.finish()


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("end", [0, -1], ids=["first due first", "last due first"])
async def test_every_hook_once_a_call(kind: str, end: int) -> None:
    planner, output = await finish(kind, Told, choose=lambda due: due[end])

    assert output == OUTPUT
    assert len(calls) == len(planner.replies) > 8
    for said in calls:
        assert said.count("before_memoization") == said.count("before_response") == 1
        found = [each for each in said if each in ONCE]
        assert found == [each for each in ONCE if each in found]  # in order, none twice
        if "before_execution" in said:
            new = [i for i, each in enumerate(said) if each.startswith(("step", "work", "reports"))]
            assert all(said.index("before_execution") < i for i in new)
            assert "after_execution" in said
    every = [each for said in calls for each in said]
    for name in ("before", "a 1", "b 1", "a 2", "b 2", "after"):
        assert every.count(f"step {name} {{") == every.count(f"output {name}") == 1
    assert every.count("output handler") == 1
    assert any({"reports a 1", "reports b 1"} <= set(said) for said in calls)


async def test_hooks_that_wait_do_not_change_the_result() -> None:
    _, output = await finish("async", Told, Slow)

    assert output == OUTPUT
    assert all(said.count("slow begin") <= 1 for said in calls)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_results_are_encrypted_and_read_again(kind: str) -> None:
    make = EncryptionMiddleware.factory("key")
    planner, sealed = await finish(kind, make, Told)

    assert set(sealed) == {"__ENCRYPTED__", "__STRATEGY__", "data"}
    for memo in planner.memos.values():
        assert memo is None or set(memo["data"]) == set(sealed)
    read = Input("run", 0, 4, [], {"x": {"data": sealed}})
    make().transform_input(read)
    assert read.steps["x"]["data"] == OUTPUT
