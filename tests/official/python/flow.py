"""Flow control: what limits, spreads, drops, gathers and ends runs."""

import asyncio
import time
from collections import defaultdict
from datetime import timedelta
from typing import Any

import inngest
from tests.official.python.world import Data, Gate, World, case, completed, data_of, function, seen

Concurrency = inngest.Concurrency


class Crowd:
    """Counts the calls that are in it at once; nobody leaves before `together` came."""

    def __init__(self, together: int) -> None:
        self._full = Gate(together)
        self._now: defaultdict[str, int] = defaultdict(int)
        self.most: defaultdict[str, int] = defaultdict(int)

    async def join(self, *kinds: str) -> None:
        """Be in it for a while."""
        for kind in kinds:
            self._now[kind] += 1
            self.most[kind] = max(self.most[kind], self._now[kind])
        await self._full.passed()
        await asyncio.sleep(0.02)  # as if there were work; others may come in meanwhile
        for kind in kinds:
            self._now[kind] -= 1


limited_crowd, keyed_crowd, shared_crowd = Crowd(2), Crowd(2), Crowd(1)


async def results(world: World, *event_ids: str) -> list[Any]:
    """Return what the runs of events returned."""
    return [completed(await world.engine.result(each)) for each in event_ids]


@function("limited", concurrency=[Concurrency(limit=2)])
async def limited(ctx: inngest.Context) -> Any:
    async def work() -> None:
        await limited_crowd.join("all")

    await ctx.step.run("work", work)
    return data_of(ctx)["n"]


@case("concurrency")
async def calls_reach_the_limit_and_keep_to_it(world: World) -> None:
    ids = await world.send_all("py/limited", *({"n": n} for n in range(6)))

    assert await results(world, *ids) == list(range(6))
    assert limited_crowd.most == {"all": 2}


@function("keyed", concurrency=[Concurrency(limit=1, key="event.data.k"), Concurrency(limit=5)])
async def keyed(ctx: inngest.Context) -> Any:
    await keyed_crowd.join(str(data_of(ctx)["k"]), "all")


@case("concurrency key")
async def each_value_of_a_key_has_the_limit(world: World) -> None:
    ids = await world.send_all("py/keyed", *({"k": k} for k in "abababab"))

    await results(world, *ids)
    assert keyed_crowd.most == {"a": 1, "b": 1, "all": 2}


SHARED: Any = {"concurrency": [Concurrency(limit=1, key="'bank'", scope="account")]}
IN_ENV: Any = {"concurrency": [Concurrency(limit=1, key="'bank'", scope="env")]}


async def shared(ctx: inngest.Context) -> None:
    await shared_crowd.join("account")


async def in_env(ctx: inngest.Context) -> None:
    await shared_crowd.join("env")


for part in "ab":
    function(f"shared-{part}", inngest.TriggerEvent(event="py/shared"), **SHARED)(shared)
    function(f"in-env-{part}", inngest.TriggerEvent(event="py/in-env"), **IN_ENV)(in_env)


@case("concurrency scope")
async def functions_share_a_limit(world: World) -> None:
    for event in ("py/shared", "py/in-env"):
        for event_id in await world.send_all(event, {}, {}, {}, {}):
            runs = await world.engine.ended(event_id, 2)
            assert [run["status"] for run in runs] == ["Completed"] * 2

    assert shared_crowd.most == {"account": 1, "env": 1}


@function("throttled", throttle=inngest.Throttle(limit=2, period=timedelta(seconds=2), burst=1))
async def throttled(ctx: inngest.Context) -> float:
    return time.time()


@case("throttle")
async def a_throttle_spreads_starts(world: World) -> None:
    before = time.time()
    ids = await world.send_all("py/throttled", *({} for _ in range(5)))

    at = sorted(await results(world, *ids))

    # Three are free: limit and burst. Then there is one each period / limit.
    assert at[3] - before >= 1
    assert at[4] - before >= 2


@function(
    "throttled-by-key",
    throttle=inngest.Throttle(limit=1, period=timedelta(hours=1), key="event.data.k"),
)
async def throttled_by_key(ctx: inngest.Context) -> Any:
    return data_of(ctx)["n"]


@case("throttle")
async def a_throttle_has_a_key_and_a_burst(world: World) -> None:
    sent = [{"k": k, "n": n} for n in range(3) for k in "ab"]
    *free, last_a, last_b = await world.send_all("py/throttled-by-key", *sent)

    assert await results(world, *free) == [0, 0, 1, 1]
    assert await world.status(last_a) == await world.status(last_b) == "Scheduled"


@function("rate-limited", rate_limit=inngest.RateLimit(limit=10, period=60_000, key="event.data.k"))
async def rate_limited(ctx: inngest.Context) -> Any:
    return data_of(ctx)["n"]


@case("rate limit")
async def a_rate_limit_drops_starts(world: World) -> None:
    sent = [{"k": k, "n": n} for n in range(4) for k in "ab"]
    ids = await world.send_all("py/rate-limited", *sent)

    # A tenth of the limit may be ahead of the rate.
    assert await results(world, *ids[:4]) == [0, 0, 1, 1]
    assert [await world.not_started(each) for each in ids[4:]] == [["rate_limited"]] * 4
    assert [await world.engine.runs_of(each) for each in ids[4:]] == [[]] * 4


@function("debounced", debounce=inngest.Debounce(period=1_000, key="event.data.k"))
async def debounced(ctx: inngest.Context) -> Any:
    seen[f"debounced {data_of(ctx)['k']}"].append(data_of(ctx)["n"])
    return time.time()


@case("debounce")
async def the_last_event_starts_a_debounced_function(world: World) -> None:
    before = time.time()
    sent = [{"k": k, "n": n} for n, k in enumerate("aaab")]
    *dropped, last, other = await world.send_all("py/debounced", *sent)

    at, _ = await results(world, last, other)
    assert at - before >= 1
    assert seen["debounced a"] == [2]
    assert seen["debounced b"] == [3]
    assert [await world.not_started(each) for each in dropped] == [["debounced"]] * 2


@function("put-off", debounce=inngest.Debounce(period=3_000, timeout=4_000))
async def put_off(ctx: inngest.Context) -> Any:
    seen["put off"].append(data_of(ctx)["n"])


@case("debounce")
async def a_debounce_is_not_put_off_for_ever(world: World) -> None:
    before, sent = time.time(), 0
    while "put off" not in seen:
        await world.send("py/put-off", {"n": sent})
        sent += 1
        await asyncio.sleep(0.2)

    assert time.time() - before >= 4
    assert seen["put off"][0] > 0


priority_gate = Gate()


@function(
    "priority",
    concurrency=[Concurrency(limit=1)],
    priority=inngest.Priority(run="event.data.p"),
)
async def priority(ctx: inngest.Context) -> Any:
    seen["priority"].append(data_of(ctx)["p"])
    await priority_gate.passed()


@case("priority")
async def what_has_priority_goes_first(world: World) -> None:
    first = await world.send("py/priority", {"p": 0})
    await world.until(lambda: priority_gate.arrived)
    ids = await world.send_all("py/priority", *({"p": p} for p in (0, 120, -120, 60)))
    priority_gate.open()

    await results(world, first, *ids)
    assert seen["priority"] == [0, 120, 60, 0, -120]


@function("batched", batch_events=inngest.Batch(max_size=3, timeout=60_000, key="event.data.k"))
async def batched(ctx: inngest.Context) -> Any:
    async def numbers() -> list[Any]:
        return [event.data["n"] for event in ctx.events]

    assert ctx.event == ctx.events[0]
    return await ctx.step.run("numbers", numbers)


@case("batch")
async def a_full_batch_starts_one_run(world: World) -> None:
    sent = [{"k": k, "n": n} for n in range(3) for k in "ab"]
    a, b, *others = await world.send_all("py/batched", *sent)

    assert await results(world, a, b) == [[0, 1, 2], [0, 1, 2]]
    assert [await world.not_started(each) for each in others] == [["batched"]] * 4


@function(
    "batched-for-a-second",
    batch_events=inngest.Batch(max_size=10, timeout=1_000, if_exp="event.data.n > 0"),
)
def batched_for_a_second(ctx: inngest.ContextSync) -> Any:
    return [[event.data["n"] for event in ctx.events], time.time()]


@case("batch", "sync functions")
async def a_batch_starts_after_its_time(world: World) -> None:
    before = time.time()
    first, alone, _ = await world.send_all(
        "py/batched-for-a-second", *({"n": n} for n in (1, 0, 2))
    )

    (numbers, at), (only, _) = await results(world, first, alone)
    assert numbers == [1, 2]
    assert at - before >= 1
    assert only == [0]


@function("idempotent", idempotency="event.data.order")
async def idempotent(ctx: inngest.Context) -> Any:
    return data_of(ctx)["n"]


@case("idempotency")
async def an_expression_starts_a_function_once(world: World) -> None:
    sent: list[Data] = [{"order": 1, "n": 1}, {"order": 1, "n": 2}, {"order": 2, "n": 3}]
    first, again, other = await world.send_all("py/idempotent", *sent)

    assert await results(world, first, other) == [1, 3]
    assert await world.not_started(again) == ["idempotent"]


@function("single", singleton=inngest.Singleton(mode="skip", key="event.data.k"))
async def single(ctx: inngest.Context) -> Any:
    await ctx.step.wait_for_event("wait", event="py/single.now", timeout=60_000)
    return data_of(ctx)["n"]


@case("singleton")
async def a_second_run_is_skipped(world: World) -> None:
    first = await world.send("py/single", {"k": "a", "n": 1})
    await world.waits(await world.started(first), "wait")
    second = await world.send("py/single", {"k": "a", "n": 2})
    other = await world.send("py/single", {"k": "b", "n": 3})
    await world.waits(await world.started(other), "wait")

    assert (await world.engine.result(second))["status"] == "Skipped"
    await world.send("py/single.now")
    assert await results(world, first, other) == [1, 3]
    third = await world.send("py/single", {"k": "a", "n": 4})
    await world.waits(await world.started(third), "wait")
    await world.send("py/single.now")
    assert await results(world, third) == [4]


@function("newest", singleton=inngest.Singleton(mode="cancel"))
async def newest(ctx: inngest.Context) -> Any:
    await ctx.step.wait_for_event("wait", event="py/newest.now", timeout=60_000)
    return data_of(ctx)["n"]


@case("singleton cancel")
async def the_newer_run_cancels_the_older(world: World) -> None:
    first = await world.send("py/newest", {"n": 1})
    await world.waits(await world.started(first), "wait")
    second = await world.send("py/newest", {"n": 2})

    assert (await world.engine.result(first))["status"] == "Cancelled"
    await world.waits(await world.started(second), "wait")
    await world.send("py/newest.now")
    assert await results(world, second) == [2]


@function(
    "cancellable",
    cancel=[
        inngest.Cancel(event="py/cancel", if_exp="event.data.id == async.data.id"),
        inngest.Cancel(event="py/cancel.soon", timeout=timedelta(seconds=1)),
    ],
)
async def cancellable(ctx: inngest.Context) -> Any:
    await ctx.step.wait_for_event("wait", event="py/cancellable.now", timeout=60_000)
    return data_of(ctx)["id"]


@case("cancel on", "cancel on condition", "cancel on timeout")
async def events_cancel_the_runs_they_fit(world: World) -> None:
    ids = await world.send_all("py/cancellable", *({"id": n} for n in range(2)))
    for each in ids:
        await world.waits(await world.started(each), "wait")

    await world.send("py/cancel", {"id": 0})
    assert (await world.engine.result(ids[0]))["status"] == "Cancelled"
    assert await world.status(ids[1]) == "Running"

    await asyncio.sleep(1)  # until the second condition is over
    await world.send("py/cancel.soon")
    await world.send("py/cancellable.now")
    assert await results(world, ids[1]) == [1]


@function("cancelled-soon", cancel=[inngest.Cancel(event="py/cancel.it", timeout=60_000)])
def cancelled_soon(ctx: inngest.ContextSync) -> None:
    ctx.step.sleep("long", timedelta(hours=1))


@case("cancel on timeout", "sync functions")
async def an_event_in_time_cancels(world: World) -> None:
    event_id = await world.send("py/cancelled-soon")
    await world.waits(await world.started(event_id), "sleep")
    await world.send("py/cancel.it")

    assert (await world.engine.result(event_id))["status"] == "Cancelled"


start_gate = Gate()


@function(
    "start-soon",
    concurrency=[Concurrency(limit=1)],
    timeouts=inngest.Timeouts(start=timedelta(seconds=3)),
)
async def start_soon(ctx: inngest.Context) -> Any:
    await start_gate.passed()
    return data_of(ctx)["n"]


@case("timeout start")
async def a_run_that_waits_too_long_is_cancelled(world: World) -> None:
    first = await world.send("py/start-soon", {"n": 1})
    await world.until(lambda: start_gate.arrived)
    before = time.time()
    second = await world.send("py/start-soon", {"n": 2})

    assert (await world.engine.result(second))["status"] == "Cancelled"
    assert time.time() - before >= 3
    start_gate.open()
    assert await results(world, first) == [1]


@function("finish-soon", timeouts=inngest.Timeouts(finish=timedelta(seconds=1)))
async def finish_soon(ctx: inngest.Context) -> Any:
    await ctx.step.sleep("long", timedelta(hours=1))


@case("timeout finish")
async def a_run_that_takes_too_long_is_cancelled(world: World) -> None:
    before = time.time()

    assert (await world.run("py/finish-soon"))["status"] == "Cancelled"
    assert time.time() - before >= 1
