"""Steps that the server does, in a lab: waits, signals, invokes, requests, AI calls, timeouts."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from stepbase import App, Event, EventData, NonRetriableError, Step, StepError, SyncStep
from stepbase.testing import Lab, SyncLab

app = App("shop")
crm = App("crm")


class Ordered(EventData, name="shop/ordered"):
    order_id: int


class Paid(EventData, name="shop/paid"):
    order_id: int
    cents: int


@app.function("collect", on=Ordered)
async def collect(event: Event[Ordered], step: Step) -> str:
    paid = await step.wait_for_event("payment", Paid, match="data.order_id", timeout="3d")
    return "reminder" if paid is None else f"{paid.data.cents} cents"


@app.function("late")
async def late(event: Event[dict[str, int]], step: Step) -> list[int]:
    await step.sleep("nap", "10s")
    found = [
        await step.wait_for_event(
            f"wait-{n}", Paid, match="data.order_id", timeout="1m", look_back="30s"
        )
        for n in range(2)
    ]
    return [paid.data.cents for paid in found if paid is not None]


@app.function("approve")
def approve(step: SyncStep) -> str:
    answer = step.wait_for_signal("answer", "approval", timeout="1d", returns=str)
    return "nobody" if answer is None else answer.data


@app.function("sum")
async def add(event: Event[dict[str, int]]) -> int:
    if event.data["n"] < 0:
        raise NonRetriableError("negative")
    return event.data["n"] + 1


@app.function("call", on="shop/call")
async def call(event: Event[dict[str, Any]], step: Step) -> Any:
    try:
        return await step.invoke("other", event.data["name"], {"n": event.data["n"]})
    except StepError as error:
        return f"caught {error.message}"


@app.function("ask", retries=1)
async def ask(step: Step) -> str:
    rate = await step.fetch("rate", "https://rates.example/usd")
    if rate.status != 200:
        return f"status {rate.status}"
    said = await step.ai.openai(
        "say", model="m", messages=[{"role": "user", "content": "?"}], auth_key="k"
    )
    return f"{rate.json()['usd']} {said['choices'][0]['message']['content']}"


@app.function("hurry")
async def hurry(step: Step) -> str:
    try:
        signal = await step.timeout("1h", step.wait_for_signal("s", "go", timeout="1d"))
    except TimeoutError:
        return "too late"
    return "in time" if signal is not None else "never"


def flaky(tries: list[int]) -> str:
    tries.append(1)
    raise ValueError("not yet")


@app.function("race", retries=1)
async def race(step: Step) -> str:
    won = await step.race(step.run("slow", flaky, TRIES), step.run("fast", lambda: "fast"))
    await step.sleep("nap", "1d")
    return won


@app.function("group", retries=1)
async def group(step: Step) -> str:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(step.run("slow", flaky, TRIES))
            tasks.create_task(step.invoke("gone", "crm-gone"))
    except* StepError:
        await step.sleep("nap", "1d")
    return "fast"


@app.function("race-sync", retries=1)
def race_sync(step: SyncStep) -> str:
    won = step.race(
        lambda: step.run("slow", flaky, TRIES), lambda: step.run("fast", lambda: "fast")
    )
    step.sleep("nap", "1d")
    return won


TRIES: list[int] = []


@crm.function("note")
async def note(event: Event[dict[str, int]]) -> str:
    return f"noted {event.data['n']}"


@crm.function("wake")
async def wake(step: Step) -> str | None:
    return await step.send_signal("wake", "approval", "yes")


async def test_an_event_ends_the_wait_for_it() -> None:
    async with Lab(app, always_replay=True) as lab:
        [run] = await lab.send(Ordered(order_id=7))
        assert (run.status, run.waits) == ("waiting", {"payment": "shop/paid"})

        await lab.send(Paid(order_id=8, cents=1))
        assert run.status == "waiting"
        await lab.send(Paid(order_id=7, cents=1250))

    assert (run.result, run.waits) == ("1250 cents", {})
    assert run.steps["payment"].data == {"order_id": 7, "cents": 1250}


async def test_a_wait_that_looks_back_sees_what_came_before_it() -> None:
    async with Lab(app, always_replay=True) as lab:
        await lab.send(Paid(order_id=7, cents=1))
        await lab.advance("25s")
        run = await lab.start(late, {"order_id": 7})
        await lab.send([Paid(order_id=8, cents=2), Paid(order_id=7, cents=3)])
        await lab.advance("10s")
        assert run.waits == {"wait-1": "shop/paid"}
        await lab.finish(run)

    assert run.result == [3]


async def test_time_ends_a_wait_with_nothing() -> None:
    async with Lab(app) as lab:
        began = lab.now
        run = await lab.finish(await lab.start(collect, Ordered(order_id=7)))

    assert (run.result, lab.now - began) == ("reminder", timedelta(days=3))


def test_a_signal_comes_from_the_test_or_from_another_function() -> None:
    with SyncLab(app, crm) as lab:
        first = lab.start(approve)
        assert lab.signal("approval", "no").id == first.id
        second = lab.start(approve)
        woken = lab.start(wake)
        third = lab.finish(lab.start(approve))

    assert [run.result for run in (first, second, third)] == ["no", "yes", "nobody"]
    assert woken.result == second.id


@pytest.mark.parametrize(
    ("name", "n", "result"),
    [("shop-sum", 1, 2), ("shop-sum", -1, "caught negative"), ("crm-note", 5, "noted 5")],
)
async def test_functions_of_the_lab_are_invoked(name: str, n: int, result: object) -> None:
    async with Lab(app, crm) as lab:
        [run] = await lab.send(Event("shop/call", {"name": name, "n": n}))

    assert run.result == result
    assert [each.function for each in run.invoked] == [name]


async def test_functions_of_others_are_faked_or_unknown() -> None:
    async with Lab(app) as lab:
        [run] = await lab.send(Event("shop/call", {"name": "crm-note", "n": 1}))
        assert run.result == "caught could not find function with ID: crm-note"

        lab.fake_step("other", lambda opts: opts["payload"]["data"]["n"] * 10)
        [run] = await lab.send(Event("shop/call", {"name": "crm-note", "n": 1}))
        assert run.result == 10


async def test_requests_and_ai_calls_are_faked() -> None:
    said = {"choices": [{"message": {"content": "hello"}}], "model": "m"}
    async with Lab(app, always_replay=True) as lab:
        lab.fake_step("rate", {"usd": 36})
        lab.fake_step("say", said)
        assert (await lab.start(ask)).result == "36 hello"

        lab.fake_step("rate", {"status_code": 503, "body": "away"})
        assert (await lab.start(ask)).result == "status 503"

        lab.fail_step("rate", ConnectionError("refused"), times=2)
        run = await lab.finish(await lab.start(ask))
        assert str(run.error) == "ConnectionError: refused"
        assert [(each.step, each.attempt) for each in run.attempts] == [
            ("rate", 0), ("rate", 1), (None, 0),
        ]  # fmt: skip


async def test_a_request_without_a_fake_fails_the_test() -> None:
    async with Lab(app) as lab:
        with pytest.raises(AssertionError, match=r'lab.fake_step\("rate", …\)'):
            await lab.start(ask)


@pytest.mark.parametrize(("after", "result"), [("30m", "in time"), ("2h", "too late")])
async def test_a_timeout_runs_on_the_labs_clock(after: str, result: str) -> None:
    async with Lab(app, always_replay=True) as lab:
        run = await lab.start(hurry)
        await lab.advance(after)
        if not run.has_ended:
            await lab.signal("go")

    assert run.result == result


@pytest.mark.parametrize(("function", "tries"), [(race, 1), (race_sync, 1), (group, 0)])
async def test_a_branch_that_nobody_waits_for_is_not_tried_again(function: Any, tries: int) -> None:
    TRIES.clear()
    async with Lab(app, crm) as lab:
        run = await lab.finish(await lab.start(function))

    assert (run.status, run.result, len(TRIES)) == ("completed", "fast", tries)
    assert "StepAbandoned" in str(run.steps["slow"])


@app.function("hasty")
async def hasty(step: Step) -> str:
    try:
        answer = await step.timeout("2m", step.fetch("rate", "https://rates.example"))
    except (StepError, TimeoutError) as error:
        return type(error).__name__
    return answer.body


@app.function("hasty-other")
async def hasty_other(step: Step) -> int:
    return await step.timeout("2m", step.invoke("other", "elsewhere-other", returns=int))


async def test_a_faked_step_of_the_server_that_races_a_sleep_wins_at_once() -> None:
    """It was done beside the sleep, and no further call came until that had ended."""
    async with Lab(app) as lab:
        lab.fake_step("rate", "36")
        lab.fake_step("other", 7)

        assert (await lab.start(hasty)).result == "36"
        assert (await lab.start(hasty_other)).result == 7

        lab.fake_step("rate", NonRetriableError("gone"))
        assert (await lab.start(hasty)).result == "StepError"
