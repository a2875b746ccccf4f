"""A lab: fakes, attempts, parallel steps, other functions, both kinds of handlers."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stepbase import (
    App,
    Batch,
    CancelOn,
    Context,
    Cron,
    Event,
    EventData,
    FunctionFailed,
    NonRetriableError,
    RetryAfterError,
    Step,
    StepError,
    SyncStep,
)
from stepbase.testing import Lab, Run, SyncLab

app = App("shop")
other = App("mail")


class Paid(EventData, name="shop/paid"):
    cents: int


@dataclass
class Receipt:
    number: int
    at: datetime


def charge(cents: int) -> Receipt:
    return Receipt(cents, datetime(2030, 1, 1, tzinfo=UTC))


async def acharge(cents: int) -> Receipt:
    return charge(cents)


@app.function("buy", on=Paid, cancel_on=CancelOn("shop/closed"))
async def buy(event: Event[Paid], step: Step) -> Receipt:
    receipt = await step.run("charge", acharge, event.data.cents)
    await step.sleep("wait", "1h")
    await step.rpc("record", {"p_number": receipt.number}, key=f"buy:{receipt.number}", returns=int)
    return receipt


@app.function("buy-sync", on=Paid.where("event.data.cents > 1000"))
def buy_sync(event: Event[Paid], step: SyncStep) -> Receipt:
    return step.run("charge", charge, event.data.cents)


@app.function("wide", retries=1)
async def wide(step: Step) -> list[str]:
    order: list[str] = []

    async def branch(name: str) -> str:
        order.append(await step.run(name, lambda: name))
        return name

    await asyncio.gather(branch("a"), branch("b"), branch("c"))
    await step.run("after", lambda: None)
    return order


@app.function("late", on="shop/late", retries=2)
async def late(step: Step, ctx: Context) -> str:
    await step.send_event("tell", Event("mail/wanted", {"to": "ann"}))
    if ctx.attempt == 0:
        raise RetryAfterError("not yet", timedelta(minutes=7))
    return f"attempt {ctx.attempt}"


async def apologize(event: Event[FunctionFailed[Any]], step: Step) -> str:
    return await step.run("apologize", lambda: f"sorry for {event.data.error.message}")


@app.function("broken", on="shop/broken", on_failure=apologize)
async def broken(step: Step) -> None:
    raise NonRetriableError("the mess")


@app.function("nightly", on=Cron("0 3 * * *"))
async def nightly(event: Event[dict[str, Any]], step: Step) -> list[dict[str, Any]]:
    return await step.table("tidy", "orders").delete(status="old")


@other.function("send", on="mail/wanted")
async def send(event: Event[dict[str, str]], step: Step) -> str:
    return await step.run("mail", lambda: event.data["to"])


async def test_results_of_fakes_are_typed_as_the_steps_are() -> None:
    async with Lab(app, now=datetime(2029, 1, 1, tzinfo=UTC)) as lab:
        lab.fake_step("charge", {"number": 5, "at": "2030-02-01T00:00:00Z"})
        lab.fake_rpc("record", lambda p_number: p_number * 2)

        [run] = await lab.send(Paid(cents=100))
        assert run.sleeps == {"wait": datetime(2029, 1, 1, 1, tzinfo=UTC)}
        await lab.advance_to(datetime(2029, 1, 1, 1, tzinfo=UTC))

    receipt = Receipt(5, datetime(2030, 2, 1, tzinfo=UTC))
    assert run.result == run.steps["charge"] == receipt
    assert run.steps["record"] == 10
    assert run.output == {"number": 5, "at": "2030-02-01T00:00:00+00:00"}


async def test_without_a_fake_the_steps_own_code_runs() -> None:
    async with Lab(app) as lab:
        run = await lab.start(buy_sync, {"cents": 7})

    assert run.result == charge(7)
    assert lab.unused_fakes == []


def test_sync_labs_run_both_kinds_of_handlers() -> None:
    with SyncLab(app) as lab:
        lab.fake_rpc("record", 1)

        runs = lab.send(Paid(cents=2000))
        assert [run.status for run in runs] == ["sleeping", "completed"]
        lab.advance("1h")

    assert [run.result.number for run in runs] == [2000, 2000]


async def test_an_sql_function_without_a_fake_fails_the_test() -> None:
    async with Lab(app) as lab:
        await lab.send(Paid(cents=1))
        with pytest.raises(AssertionError, match=r'lab.fake_rpc\("record", …\)'):
            await lab.advance("1h")
        with pytest.raises(AssertionError, match=r'lab.fake_table\("orders", …\)'):
            await lab.start("nightly")


async def test_a_key_is_used_once() -> None:
    async with Lab(app) as lab:
        lab.fake_rpc("record", lambda p_number: p_number)
        lab.fake_step("charge", Receipt(1, lab.now))

        first = await lab.finish(await lab.start("buy", {"cents": 1}))
        second = await lab.finish(await lab.start("buy", {"cents": 1}))

    assert first.rpc_calls[0].args == second.rpc_calls[0].args == {"p_number": 1}
    assert [run.rpc_calls[0].is_replayed for run in (first, second)] == [False, True]


async def test_a_key_with_other_arguments_is_refused() -> None:
    twice = App("twice")

    @twice.function("f")
    async def f(event: Event[dict[str, int]], step: Step) -> Any:
        return await step.rpc("post", {"p_n": event.data["n"]}, key="same")

    async with Lab(twice) as lab:
        lab.fake_rpc("post", "posted")
        await lab.start(f, {"n": 1})
        run = await lab.start(f, {"n": 2})

    assert run.error is not None and "used with another p_n" in run.error.message


async def test_tables_are_faked_by_name() -> None:
    seen: list[dict[str, Any]] = []

    def orders(**given: Any) -> list[dict[str, Any]]:
        seen.append(given)
        return [{"id": 7}]

    async with Lab(app) as lab:
        lab.fake_table("orders", orders)
        run = await lab.start(nightly)

    assert run.event.name == "inngest/scheduled.timer"
    assert run.result == [{"id": 7}]
    assert (seen[0]["action"], run.rpc_calls[0].function) == ("delete", "delete from orders")


async def test_a_step_that_fails_is_tried_again_and_then_is_an_error() -> None:
    async with Lab(app) as lab:
        lab.fail_step("a", ValueError("no"), times=2)

        run = await lab.start(wide)
        assert run.status == "retrying"
        await lab.finish(run)

    assert run.status == "failed"
    assert str(run.error) == "ValueError: no"
    assert isinstance(run.steps["a"], StepError)
    assert [(each.step, each.attempt) for each in run.attempts][:2] == [("a", 0), ("a", 1)]


async def test_attempts_may_follow_at_once() -> None:
    async with Lab(app, retry_interval=0) as lab:
        lab.fail_step("a", ValueError("no"))
        run = await lab.start(wide)
        assert run.status == "completed"


async def test_parallel_steps_end_in_an_order_of_chance() -> None:
    orders = set()
    for seed in range(12):
        async with Lab(app, order=seed, always_replay=True) as lab:
            run = await lab.start(wide)
            assert list(run.steps)[:3] == run.result
            orders.add(tuple(run.result))
    async with Lab(app) as lab:
        assert (await lab.start(wide)).result == ["a", "b", "c"]

    assert len(orders) > 2


async def test_events_start_functions_of_all_apps_of_the_lab() -> None:
    async with Lab(app, other) as lab:
        began = lab.now
        [run] = await lab.send({"name": "shop/late"})
        [mailed] = [each for each in lab.runs if each.function == "mail-send"]
        await lab.finish(run)

    assert mailed.result == "ann"
    assert [(event.name, event.data) for event in run.events_sent] == [
        ("mail/wanted", {"to": "ann"})
    ]
    assert (run.result, lab.now - began) == ("attempt 1", timedelta(minutes=7))
    assert [each.step for each in run.attempts] == [None]
    assert {each.name for each in lab.events} >= {"shop/late", "mail/wanted"}


async def test_a_failure_handler_runs_when_its_function_has_failed() -> None:
    async with Lab(app) as lab:
        [run] = await lab.send({"name": "shop/broken"})
        handled = lab.runs[-1]
        again = await lab.send([{"name": "shop/broken"}, {"name": "shop/late"}])
        assert [each.function for each in again] == ["shop-broken", "shop-late"]

    assert lab.runs_of(broken)[0].id == run.id
    assert (run.status, handled.function) == ("failed", "shop-broken-failure")
    assert handled.result == "sorry for the mess"


async def test_events_of_an_app_reach_the_lab_from_anywhere_in_its_block() -> None:
    async with Lab(app, other) as lab:
        await app.send(Event("mail/wanted", {"to": "bob"}))
        await lab.advance("1s")

        [run] = lab.runs
        assert run.result == "bob"


async def test_an_event_takes_its_time_from_the_lab() -> None:
    """Also one that was made outside of its block, by the real clock."""
    lab = Lab(app)
    await lab.advance("1d")
    [run] = await lab.send(Event("shop/late"))
    assert run.event.ts == lab.now

    [run] = await lab.send(Event("shop/late", ts=lab.now + timedelta(hours=1)))
    assert run.status == "scheduled"
    await lab.advance("1h")
    assert run.status == "retrying"


async def test_a_run_is_cancelled_by_an_event_or_by_the_test() -> None:
    async with Lab(app) as lab:
        [first] = await lab.send(Paid(cents=1))
        await lab.send({"name": "shop/closed"})
        [second] = await lab.send(Paid(cents=1))
        await lab.cancel(second)

    assert [str(run.error) for run in (first, second)] == [
        "Cancelled: an event matched cancel_on",
        "Cancelled: cancelled by the test",
    ]


async def test_a_run_tells_its_story() -> None:
    async with Lab(app) as lab:
        [run] = await lab.send(Paid(cents=1))

    assert 'charge: done {"data": {"number": 1' in repr(run)
    assert "wait: sleeping until" in repr(run)
    with pytest.raises(AssertionError, match="there is no result: <run .* of shop-buy: sleeping"):
        run.result  # noqa: B018


async def test_what_cannot_end_says_so() -> None:
    async with Lab(app) as lab:
        [run] = await lab.send(Paid(cents=1))
        with pytest.raises(AssertionError, match="no run waits for the signal"):
            await lab.signal("go")
        with pytest.raises(AssertionError, match="'gone' names no functions of shop-buy, "):
            await lab.start("gone")
        assert isinstance(run, Run)


async def test_a_handler_that_goes_in_circles_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepbase.testing.story.MOST_CALLS", 50)
    round_and_round = App("round")

    @round_and_round.function("f", on="go")
    async def f(step: Step) -> None:
        await step.send_event("again", Event("go"))

    async with Lab(round_and_round) as lab:
        with pytest.raises(AssertionError, match="50 calls and no end"):
            await lab.send({"name": "go"})


async def test_a_fake_may_be_async_and_may_raise_what_it_returns() -> None:
    async def ask(cents: int) -> Receipt:
        await asyncio.sleep(0)
        return charge(cents + 1)

    async with Lab(app) as lab:
        lab.fake_step("charge", ask)
        run = await lab.start("buy-sync", {"cents": 1})
        assert run.result == charge(2)
        lab.fake_step("charge", NonRetriableError("no"))
        run = await lab.start("buy-sync", {"cents": 1})
        assert str(run.error) == "NonRetriableError: no"


async def test_a_batch_is_started_with_a_list_of_events() -> None:
    batch = App("batch")

    @batch.function("f", on=Paid, batch=Batch(max_size=10, timeout="5s"))
    async def f(events: list[Event[Paid]]) -> int:
        return sum(event.data.cents for event in events)

    async with Lab(batch) as lab:
        run = await lab.start(f, [Paid(cents=1), Paid(cents=2)])

    assert run.result == 3


async def test_state_that_is_too_large_for_a_call_is_fetched() -> None:
    large = App("large")

    @large.function("f")
    async def f(event: Event[dict[str, str]], step: Step) -> list[int]:
        parts = [await step.run("part", lambda: "x" * 2_000_000) for _ in range(3)]
        return [len(event.data["text"]), *map(len, parts)]

    async with Lab(large) as lab:
        run = await lab.start(f, {"text": "abc"})

    assert run.result == [3, 2_000_000, 2_000_000, 2_000_000]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_handlers_go_on_in_one_call_if_they_may(kind: str, checkpointing: bool) -> None:
    counted = App("counted")
    begun: list[str] = []

    @counted.function("async", retries=1)
    async def handler(step: Step) -> int:
        begun.append("async")
        first = await step.run("first", lambda: 1)
        second = await step.rpc("second", {"p_n": first}, returns=int)
        await step.sleep("nap", "1h")
        return await step.run("third", lambda: second + 1)

    @counted.function("sync", retries=1)
    def sync_handler(step: SyncStep) -> int:
        begun.append("sync")
        first = step.run("first", lambda: 1)
        second = step.rpc("second", {"p_n": first}, returns=int)
        step.sleep("nap", "1h")
        return step.run("third", lambda: second + 1)

    async with Lab(counted, checkpointing=checkpointing) as lab:
        lab.fake_rpc("second", lambda p_n: p_n + 1)
        lab.fail_rpc("second", ConnectionError("no"))
        run = await lab.start(kind)
        assert (run.status, list(run.steps)) == ("retrying", ["first"])
        await lab.finish(run)

    assert run.result == 3
    assert list(run.steps) == ["first", "second", "nap", "third"]
    assert begun == [kind] * (4 if checkpointing else 6)


async def test_later_uses_of_an_id_have_fakes_and_results_of_their_own() -> None:
    loop = App("loop")

    @loop.function("f")
    async def f(step: Step) -> list[int]:
        return [await step.run("n", lambda: 0, returns=int) for _ in range(3)]

    async with Lab(loop) as lab:
        lab.fake_step("n", 1)
        lab.fake_step("n:1", 2)
        run = await lab.start(f)

    assert run.steps == {"n": 1, "n:1": 2, "n:2": 1}
