"""Flow control: what decides when a run starts, waits or ends."""

import asyncio
import time
from typing import Any

from tests.official.typescript.world import World, case


async def send_numbers(world: World, function: str, numbers: list[int], **data: Any) -> list[str]:
    """Send one event after the other, with `data.n`; return the ids."""
    return [await world.send(f"ts/{function}", n=n, **data) for n in numbers]


async def started(world: World, event_id: str) -> list[str]:
    """Return the statuses of the runs that an event has started by now."""
    return [run["status"] for run in await world.engine.runs_of(event_id)]


@case("concurrency")
async def no_more_run_at_once(world: World) -> None:
    k = world.key()
    ids = await world.send_all(*({"name": "ts/limited", "data": {"k": k}} for _ in range(6)))
    for event_id in ids:
        assert (await world.engine.result(event_id))["status"] == "Completed"

    assert max(await world.notes(k)) == 2


@case("concurrency key")
async def each_value_has_its_limit(world: World) -> None:
    k = world.key()
    events = [{"name": "ts/by-key", "data": {"k": k, "tenant": t}} for t in ("a", "a", "b", "b")]
    outputs = [(await world.engine.result(i))["output"] for i in await world.send_all(*events)]

    assert outputs == ["a", "a", "b", "b"]
    assert max(await world.notes(k)) == 2
    assert await world.notes(f"{k} a") == await world.notes(f"{k} b") == [1, 1]


@case("concurrency", "concurrency key")
async def two_limits_hold_together(world: World) -> None:
    k = world.key()
    events = [{"name": "ts/two-limits", "data": {"k": k, "tenant": t}} for t in "abcd"]
    events += [{"name": "ts/two-limits", "data": {"k": f"{k} alone", "tenant": "e"}}] * 3
    for event_id in await world.send_all(*events):
        assert (await world.engine.result(event_id))["status"] == "Completed"

    assert max(await world.notes(k)) == 2
    assert await world.notes(f"{k} alone e") == [1, 1, 1]


@case("concurrency scope")
async def functions_share_a_limit(world: World) -> None:
    for scope in ("shared", "env"):
        k = world.key()
        [first] = await send_numbers(world, f"{scope}-one", [1], k=k)
        await world.noted(k)
        [second] = await send_numbers(world, f"{scope}-two", [2], k=k)
        await world.beat()
        assert await world.notes(k) == [1]

        await world.open(f"{k} 1")
        await world.open(f"{k} 2")
        assert [(await world.engine.result(i))["output"] for i in (first, second)] == [1, 2]
        assert await world.notes(k) == [1, 2]


@case("throttle")
async def starts_are_spread(world: World) -> None:
    k, sent = world.key(), time.time() * 1000
    ids = await send_numbers(world, "throttled", [1, 2, 3, 4], k=k)
    for event_id in ids:
        assert (await world.engine.result(event_id))["status"] == "Completed"
    at = [note["at"] for note in await world.noted(k, 4)]

    # From rest two start at once (limit and burst), then one each second.
    assert at[2] >= sent + 1000 and at[3] >= sent + 2000


@case("throttle")
async def a_burst_may_start_at_once(world: World) -> None:
    k, other = world.key(), world.key()
    ids = await send_numbers(world, "in-a-burst", [1, 2, 3, 4, 5], k=k)
    for event_id in ids[:4]:
        await world.engine.result(event_id)
    assert (await world.run("in-a-burst", k=other, n=1))["status"] == "Completed"
    await world.beat()

    assert sorted(await world.notes(k)) == [1, 2, 3, 4]
    await world.engine.request("DELETE", f"/v1/runs/{await world.run_id(ids[4])}")
    assert (await world.engine.result(ids[4]))["status"] == "Cancelled"
    assert len(await world.notes(k)) == 4


@case("rate limit")
async def starts_beyond_the_rate_are_dropped(world: World) -> None:
    k = world.key()
    first = [await world.send("ts/rated", k=k, who=f"{k} {who}", n=who) for who in "aab"]
    await world.engine.result(first[0])
    await world.engine.result(first[2])
    assert sorted(await world.notes(k)) == ["a", "b"]
    assert await started(world, first[1]) == []

    tens = world.key()
    ids = await send_numbers(world, "rated-in-tens", [1, 2, 3], k=tens)
    for event_id in ids[:2]:
        await world.engine.result(event_id)
    assert await started(world, ids[2]) == []


@case("idempotency")
async def a_value_starts_a_function_once(world: World) -> None:
    k = world.key()
    ids = [await world.send("ts/once", k=k, who=f"{k} {who}", n=who) for who in "aba"]
    for event_id in ids[:2]:
        await world.engine.result(event_id)

    assert sorted(await world.notes(k)) == ["a", "b"]
    assert await started(world, ids[2]) == []


@case("debounce")
async def the_last_event_starts_after_a_time_of_quiet(world: World) -> None:
    k, sent = world.key(), time.time() * 1000
    events = [
        {"name": "ts/debounced", "ts": 10**12 + n, "data": {"k": k, "who": f"{k} {who}", "n": n}}
        for n, who in enumerate("aaab")
    ]
    ids = await world.send_all(*events)
    for event_id in ids[2:]:
        await world.engine.ended(event_id)
    notes = await world.noted(k, 2)

    assert sorted(note["what"] for note in notes) == [2, 3]
    assert min(note["at"] for note in notes) >= sent + 1000


@case("debounce")
async def a_debounce_waits_no_longer_than_its_timeout(world: World) -> None:
    k = world.key()
    event_id = await world.send("ts/debounced-at-most", k=k, n=1)
    await world.engine.ended(event_id)

    assert await world.notes(k) == [1]


@case("priority")
async def the_higher_priority_goes_first(world: World) -> None:
    k = world.key()
    ids = await send_numbers(world, "by-priority", [1], k=k)
    await world.noted(k)
    ids += await send_numbers(world, "by-priority", [-100, 0, 100], k=k)
    for n in (-100, 0, 1, 100):
        await world.open(f"{k} {n}")
    for event_id in ids:
        await world.engine.result(event_id)

    assert await world.notes(k) == [1, 100, 0, -100]


@case("batch")
async def a_full_batch_is_one_run(world: World) -> None:
    k = world.key()
    ids = [await world.send("ts/batched", who=k, n=n) for n in (1, 2)]
    alone = await world.send("ts/batched", who=k, n=100)
    ids.append(await world.send("ts/batched", who=f"{k} other", n=3))
    ids.append(await world.send("ts/batched", who=k, n=4))
    [batch] = await world.engine.ended(ids[0])

    assert (await world.engine.result(alone))["output"] == [100, [100]]
    assert batch["output"] == [1, [1, 2, 4]]
    assert await started(world, ids[2]) == []


@case("batch")
async def a_batch_waits_no_longer_than_its_timeout(world: World) -> None:
    events = [{"name": "ts/batched-in-time", "data": {"n": n}} for n in (1, 2, 3)]
    [batch] = await world.engine.ended((await world.send_all(*events))[0])

    assert batch["output"] == [1, 2, 3]


@case("singleton")
async def a_singleton_skips_others(world: World) -> None:
    k = world.key()
    first = await world.send("ts/alone-or-skipped", k=k, who=k, n=1)
    await world.noted(k)
    second = await world.send("ts/alone-or-skipped", k=k, who=k, n=2)
    other = await world.send("ts/alone-or-skipped", k=k, who=f"{k} other", n=3)
    for n in (1, 2, 3):
        await world.open(f"{k} {n}")

    assert (await world.engine.result(first))["output"] == 1
    assert (await world.engine.result(second))["status"] == "Skipped"
    assert (await world.engine.result(other))["output"] == 3
    assert await world.output("alone-or-skipped", k=k, who=k, n=1) == 1


@case("singleton cancel")
async def a_singleton_gives_way_to_the_newer(world: World) -> None:
    k = world.key()
    first = await world.send("ts/alone-or-cancels", k=k, who=k, n=1)
    await world.noted(k)
    second = await world.send("ts/alone-or-cancels", k=k, who=k, n=2)
    await world.noted(k, 2)
    for n in (1, 2):
        await world.open(f"{k} {n}")

    assert (await world.engine.result(first))["status"] == "Cancelled"
    assert (await world.engine.result(second))["output"] == 2


async def begun(world: World, function: str, **data: Any) -> tuple[str, str]:
    """Start a run that notes that it has begun; return its key and its event's id."""
    k = world.key()
    event_id = await world.send(f"ts/{function}", k=k, **data)
    await world.noted(k)
    return k, event_id


@case("cancel on", "cancel on match")
async def an_event_cancels_the_runs_it_matches(world: World) -> None:
    k, first = await begun(world, "cancelled-by-match")
    other, second = await begun(world, "cancelled-by-match")
    await world.send("ts/stop", k=k)
    run = await world.engine.result(first)

    assert run["status"] == "Cancelled" and run["output"]["name"] == "Cancelled"
    assert await started(world, second) == ["Running"]
    await world.send("ts/stop", k=other)
    assert (await world.engine.result(second))["status"] == "Cancelled"


@case("cancel on condition")
async def a_condition_decides_whom_an_event_cancels(world: World) -> None:
    k, event_id = await begun(world, "cancelled-if", n=2)
    await world.send("ts/stop.if", k=k, n=2)
    await world.beat()
    assert await started(world, event_id) == ["Running"]

    await world.send("ts/stop.if", k=k, n=3)
    assert (await world.engine.result(event_id))["status"] == "Cancelled"


@case("cancel on timeout")
async def after_its_timeout_an_event_cancels_no_more(world: World) -> None:
    k = world.key()
    event_id = await world.send("ts/cancelled-in-time", k=k)
    await world.noted(k)
    await world.send("ts/stop.soon", k=k)
    await world.beat()
    await world.send("ts/go", k=k)

    assert (await world.engine.result(event_id))["output"] == "not cancelled"


@case("timeout finish")
async def a_run_that_takes_too_long_is_cancelled(world: World) -> None:
    run = await world.run("ends-in-time", k=world.key())

    assert run["status"] == "Cancelled"


@case("timeout start")
async def a_run_that_waits_too_long_is_cancelled(world: World) -> None:
    k = world.key()
    ids = await send_numbers(world, "starts-in-time", [1, 2], k=k)
    assert (await world.engine.result(ids[1]))["status"] == "Cancelled"
    await world.open(f"{k} 1")

    assert (await world.engine.result(ids[0]))["output"] == 1
    assert await world.notes(k) == [1]


@case("cancel of a run")
async def a_run_is_cancelled_by_the_api(world: World) -> None:
    _, event_id = await begun(world, "sleeps")
    run_id = await world.run_id(event_id)

    assert (await world.engine.request("DELETE", f"/v1/runs/{run_id}"))[0] == 204
    assert (await world.engine.result(event_id))["status"] == "Cancelled"


@case("concurrency of runs")
async def whole_runs_are_limited(world: World) -> None:
    k = world.key()
    ids = await send_numbers(world, "whole-runs", [1, 2], k=k)
    runs = await asyncio.gather(*(world.engine.result(event_id) for event_id in ids))

    assert [run["status"] for run in runs] == ["Completed", "Completed"]
    assert await world.notes(k) == ["1 begins", "1 ends", "2 begins", "2 ends"]
