"""Branches of plain handlers run one after the other, anew at every call, and yet keep their order."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.sdk_calls import Reply, call_body, hashed
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, SyncStep, asgi

app = App("rows")


def do(step: SyncStep, *names: str) -> Callable[[], list[str]]:
    return lambda: [step.run(name, str, name) for name in names]


async def call(name: str, *done: str, **options: Any) -> Reply:
    step_id = options.pop("target", "step")
    steps = options.pop("steps", {hashed(each): {"data": each} for each in done})
    return await ask_asgi(asgi(app))(
        "POST", query=f"fnId=rows-{name}&stepId={step_id}", body=call_body(steps=steps, **options)
    )


def shown(reply: Reply) -> list[str]:
    assert reply.status == 206, reply.content
    return [f"{op['op']} {op['displayName']}" for op in reply.body]


@pytest.fixture(autouse=True)
def _dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")


@app.function("nested")
def nested(step: SyncStep) -> list[str]:
    return step.race(lambda: step.race(do(step, "a1"), do(step, "a2")), do(step, "b"))


@app.function("clean-up")
def clean_up(step: SyncStep) -> Any:
    def careful() -> list[str]:
        try:
            return do(step, "a")()
        finally:
            do(step, "tidy")()
            step.parallel(do(step, "tidy more"))

    def in_a_group() -> list[str]:
        try:
            return step.parallel(do(step, "c"), do(step, "d"))[0]
        finally:
            do(step, "tidy c")()

    return step.parallel(careful, do(step, "b"), in_a_group)


@app.function("swallows")
def swallows(step: SyncStep) -> Any:
    def greedy() -> list[str]:
        try:
            return do(step, "a")()
        except BaseException:
            return ["made up"]

    return step.parallel(greedy, do(step, "b"))


@app.function("again")
def again(step: SyncStep) -> list[list[str]]:
    return [step.race(do(step, "a1", "a2"), do(step, "b")) for _ in range(2)]


@app.function("shared")
def shared(step: SyncStep) -> Any:
    return step.parallel(do(step, "mail", "note"), do(step, "mail", "note"))


@app.function("same")
def same(step: SyncStep) -> Any:
    return step.parallel(do(step, "mail"), do(step, "mail")) + step.parallel(do(step, "mail"))


@app.function("no-branches")
def no_branches(step: SyncStep) -> Any:
    return step.parallel()


async def test_a_race_within_a_branch_ends_it_with_its_winner() -> None:
    assert (await call("nested", "a1")).body == ["a1"]
    assert (await call("nested", "a1", "b")).body == ["a1"]
    assert (await call("nested", "a1", "b", "a2")).body == ["a1"]
    assert (await call("nested", "b", "a1")).body == ["b"]


async def test_clean_up_in_a_branch_that_waits_comes_later() -> None:
    first = await call("clean-up")
    second = await call("clean-up", "a", "d", "c")

    assert shown(first) == [f"StepPlanned {name}" for name in "abcd"]
    assert shown(second) == [f"StepPlanned {name}" for name in ("tidy", "b", "tidy c")]


async def test_a_branch_that_swallows_the_suspension_waits_all_the_same() -> None:
    assert shown(await call("swallows", "b")) == ["StepRun a"]
    assert (await call("swallows", "b", "a")).body == [["a"], ["b"]]


async def test_what_a_loser_reaches_later_names_no_step_of_others() -> None:
    for done in (["b"], ["b", "a1"], ["b", "a1", "a2"]):
        reply = await call("again", *done)
        assert [op["id"] for op in reply.body] == [hashed("a1", 1), hashed("b", 1)]

    late = await call("again", "b", "a1", "a1:1")

    assert [op["id"] for op in late.body] == [hashed("a2"), hashed("b", 1)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_an_id_that_branches_share_is_refused_unless_they_begin_with_it(
    order: tuple[int, int],
) -> None:
    reply = await call("shared", steps={hashed("mail", n): {"data": n} for n in order})

    assert (reply.status, reply.body["code"]) == (500, "step_id_shared")
    assert reply.headers["x-inngest-no-retry"] == "true"
    assert "Give each branch ids of its own" in reply.body["message"]


async def test_branches_may_begin_with_one_id_and_use_it_one_after_the_other() -> None:
    memos = {hashed("mail", n): {"data": n} for n in range(3)}

    assert (await call("same", steps=memos)).body == [[0], [1], [2]]
    assert (await call("no-branches")).body == []
