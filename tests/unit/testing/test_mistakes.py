"""What a newcomer gets wrong, and what they are then told: what happened, and what to write instead."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from pydantic import BaseModel

from stepbase import App, DefinitionError, Event, EventData, Step, StepError, SyncStep
from stepbase.testing import Lab


class Asked(EventData, name="shop/asked"):
    name: str


class Told(EventData, name="shop/told"):
    name: str


class Plain(BaseModel):
    name: str


app = App("shop")


async def fetch(name: str) -> str:
    return name


@app.function("not-awaited", on="a/not-awaited")
async def not_awaited(step: Step) -> str:
    cast(Any, step).run("pay", fetch, "Ada")
    cast(Any, step).sleep("rest", "1d")
    return "paid"


@app.function("returned", on="a/returned")
async def returned(step: Step) -> Any:
    return {"paid": step.run("pay", fetch, "Ada")}


@app.function("used", on="a/used")
async def used(step: Step) -> str:
    return str(cast(Any, step).run("pay", fetch, "Ada").upper())


@app.function("added", on="a/added")
async def added(step: Step) -> Any:
    return cast(Any, step).run("pay", fetch, "Ada") + "!"


@app.function("not-awaited-later", on="a/not-awaited-later")
async def not_awaited_later(step: Step) -> str:
    cast(Any, step).run("pay", fetch, "Ada")
    return await step.run("note", fetch, "noted")


@app.function("coroutine", on="a/coroutine")
async def coroutine(step: Step) -> Any:
    return await step.run("pay", cast(Any, fetch("Ada")))


@app.function("value", on="a/value")
async def value(step: Step) -> Any:
    return await step.run("pay", cast(Any, "Ada"))


@app.function("durable", on="a/durable")
async def durable(step: Step) -> Any:
    return await step.run("pay", cast(Any, value))


@app.function("sync-value", on="a/sync-value")
def sync_value(step: SyncStep) -> Any:
    return step.run("pay", cast(Any, None))


@app.function("own-coroutine", on="a/own-coroutine")
async def own_coroutine() -> Any:
    return [fetch("Ada")]


SAYS = {
    "not-awaited": 'step "pay", "rest" was called and never awaited, so it did not happen: write `await',
    "not-awaited-later": 'step "pay" was called and never awaited',
    "used": "no attribute 'upper': step \"pay\" was called and never awaited",
    "added": "'coroutine' and 'str': step \"pay\" was called and never awaited",
    "returned": 'step "pay" was called and never awaited',
    "coroutine": "not the coroutine that calling one gives: write step.run('pay', fetch, …)",
    "value": "step.run takes a function, got 'Ada'",
    "durable": 'not the durable function "shop-value": to run that, write step.invoke',
    "sync-value": "step.run takes a function, got None",
    "own-coroutine": "$[0]: fetch(…) was called and not awaited: write await before it",
}


@pytest.mark.parametrize("name", SAYS)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.filterwarnings("ignore:coroutine 'fetch' was never awaited")
async def test_a_run_says_what_to_write_instead(name: str, checkpointing: bool) -> None:
    async with Lab(app, checkpointing=checkpointing) as lab:
        [run] = await lab.send(Event(f"a/{name}"))

        assert (run.status, len(run.attempts)) == ("failed", 1)
        assert run.error is not None and SAYS[name] in run.error.message


careful = App("careful")


async def fails() -> str:
    raise ValueError("no")


@careful.function("left-over", on="a/left-over", retries=0)
async def left_over(step: Step) -> str:
    """What is never begun because something else went wrong first is no mistake."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(step.run("late", fetch, "late"))
    except* ValueError:
        pass
    one, other = step.run("one", fetch, "one"), step.run("other", fetch, "other")
    return await step.race(one, other)


@careful.function("task", on="a/task")
async def task(step: Step) -> str:
    """A task is its handler's to await; one that it leaves is ended, as ever."""
    asyncio.get_running_loop().create_task(step.run("left", fetch, "left"))
    return "done"


@careful.function("called-off", on="a/called-off")
async def called_off(step: Step) -> str:
    """So is one that is cancelled before it begins, or that the handler closes itself."""
    asyncio.get_running_loop().create_task(step.run("left", fetch, "left")).cancel()
    step.run("closed", fetch, "closed").close()
    return "done"


async def after(step: Step, name: str, then: Awaitable[str]) -> str:
    """A helper as people write them: it awaits later what it was given."""
    await step.sleep(name, "1h")
    return await then


@careful.function("lost", on="a/lost")
async def lost(step: Step) -> str:
    """A branch that lost may hold a step that it was yet to await."""
    return await step.race(
        step.run("fast", fetch, "fast"), after(step, "wait", step.run("slow", fetch, "slow"))
    )


@careful.function("late", on="a/late")
async def late(step: Step) -> str:
    """So may one whose time is over."""
    try:
        return await step.timeout("1m", after(step, "wait", step.run("slow", fetch, "slow")))
    except TimeoutError:
        return "late"


@careful.function("in-turn", on="a/in-turn", retries=0)
async def in_turn(step: Step) -> str:
    """So may those that stood in line for a semaphore when another failed."""
    one_by_one = asyncio.Semaphore(1)

    async def limited(work: Awaitable[str]) -> str:
        async with one_by_one:
            return await work

    works = [step.run("no", fails), step.run("b", fetch, "b"), step.run("c", fetch, "c")]
    try:
        return "".join(await asyncio.gather(*map(limited, works)))
    except StepError:
        return "caught"


async def test_steps_that_others_have_put_aside_are_no_mistake() -> None:
    async with Lab(careful) as lab:
        for name in ("left-over", "task", "called-off", "lost", "late", "in-turn"):
            [run] = await lab.send(Event(f"a/{name}"))
            await lab.advance("5m")
            assert run.status == "completed", run


slow = App("slow")


@slow.function("asleep", on="a/asleep")
async def asleep(step: Step) -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    await step.run("work", lambda: None)


@slow.function("blocked", on="a/blocked")
async def blocked(step: Step) -> None:
    time.sleep(0.02)
    await step.run("work", lambda: None)


async def rest() -> None:
    await asyncio.sleep(0.001)


@slow.function("in-a-step", on="a/in-a-step")
async def in_a_step(step: Step) -> None:
    await asyncio.sleep(0)
    await step.run("work", rest)
    await step.run("plain", time.sleep, 0.02)


@pytest.fixture
async def lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr("stepbase.sdk.turns.BLOCKED_SECONDS", 0.015)
    async with Lab(slow) as found:
        yield found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("asleep", 'pause the run by step.sleep("id", "1h")'),
        ("blocked", "plain function for step.run, which runs in a thread"),
        ("in-a-step", None),
    ],
)
async def test_waiting_outside_of_steps_is_told(
    lab: Lab, name: str, says: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    await lab.send(Event(f"a/{name}"))

    told = [each.getMessage() for each in caplog.records if each.name == "stepbase.sdk.turns"]
    assert all(says is not None and says in each for each in told), told
    assert bool(told) == (says is not None)


def _twice() -> None:
    twice = App("twice")
    twice.function("one", on=Asked)(_on_asked)
    twice.function("one", on=Told)(_on_asked)


async def _on_asked(step: Step) -> None: ...


async def _data(event: Asked) -> None: ...


async def _batch(events: list[Asked]) -> None: ...


async def _no_class(event: Event[Plain]) -> None: ...


async def _two(event: Event[Asked | Told]) -> None: ...


DEFINED: dict[str, tuple[Callable[[], object], str]] = {
    "no id": (lambda: App("x").function(cast(Any, _on_asked)), 'write @app.function("id", on=…)'),
    "an id twice": (_twice, f"at {__file__}:"),
    "its data": (lambda: App("x").function("f", on=Asked)(_data), "write `event: Event[Asked]`"),
    "its data, invoked": (lambda: App("x").function("f")(_data), "write `event: Event[Asked]`"),
    "its batch": (lambda: App("x").function("f", on=Asked)(_batch), "`events: list[Event[Asked]]`"),
    "no event class": (
        lambda: App("x").function("f", on="a/b")(_no_class),
        'make it one, `class Plain(EventData, name="…")`, and write on=Plain',
    ),
    "invoked with two": (lambda: App("x").function("f")(_two), "with data of one class"),
}


@pytest.mark.parametrize("name", DEFINED)
def test_a_definition_says_what_to_write_instead(name: str) -> None:
    define, says = DEFINED[name]

    with pytest.raises(DefinitionError) as refused:
        define()

    assert says in str(refused.value)


invoked = App("invoked")


@invoked.function("typed")
async def typed(event: Event[Asked]) -> str:
    return event.data.name


@invoked.function("plain")
async def plain(event: Event[Plain]) -> str:
    return event.data.name


@invoked.function("caller", on="a/called")
async def caller(event: Event[dict[str, Any]], step: Step) -> list[str]:
    other = await step.invoke("plain", plain, {"name": "Grace"})
    return [await step.invoke("typed", typed, Asked(name="Ada")), other]


async def test_a_function_that_is_only_invoked_has_typed_data() -> None:
    async with Lab(invoked) as lab:
        [run] = await lab.send(Event("a/called"))
        bad = await lab.start(typed, {"title": "Ada"})

        assert run.result == ["Ada", "Grace"]
        assert bad.error is not None and "does not fit Asked: data.name" in bad.error.message
