"""What a run waits for: events, signals, other runs."""

from typing import Any

from tests.official.typescript.world import World, case


async def waiting(world: World, function: str, **data: Any) -> tuple[str, str]:
    """Start a run and wait until it waits; return its key and its event's id."""
    k = world.key()
    event_id = await world.send(f"ts/{function}", k=k, **data)
    await waits_now(world, event_id)
    return k, event_id


async def waits_now(world: World, event_id: str) -> None:
    """Wait until the run of an event waits."""
    run_id = await world.run_id(event_id)
    async with world.connection() as connection:
        while not await connection.fetchval(
            "select exists (select from stepbase.pauses where run_id = $1)", run_id
        ):
            await world.beat()


@case("step.wait_for_event", "wait condition")
async def an_event_ends_the_wait_of_whom_it_matches(world: World) -> None:
    k, event_id = await waiting(world, "waits")
    other, _ = await waiting(world, "waits")
    [paid] = await world.send_all({"name": "ts/paid", "id": f"{k} paid", "data": {"k": k, "n": 1}})
    run = await world.engine.result(event_id)

    assert run["output"] == ["ts/paid", f"{k} paid", {"k": k, "n": 1}]
    assert await world.engine.runs_of(paid) == []
    await world.send("ts/paid", k=other)


@case("wait condition")
async def a_condition_decides_which_event_ends_a_wait(world: World) -> None:
    k, event_id = await waiting(world, "waits-if", amount=5)
    for amount in (3, 7):
        await world.send("ts/paid", k=k, amount=amount)

    assert (await world.engine.result(event_id))["output"] == 7


@case("step.wait_for_event")
async def a_wait_ends_at_its_timeout(world: World) -> None:
    k = world.key()

    assert await world.output("waits-in-vain", k=k) is None
    notes = await world.noted(k, 2)
    assert notes[-1]["what"] == "ended"
    assert notes[-1]["at"] >= notes[0]["at"] + 1000


@case("step.wait_for_event", "parallel")
async def waits_beside_each_other_end_each_by_its_event(world: World) -> None:
    k, event_id = await waiting(world, "waits-for-two")
    await world.send("ts/right", k=k)
    await world.send("ts/left", k=k)

    assert (await world.engine.result(event_id))["output"] == ["ts/left", "ts/right"]


@case("step.invoke", "step.invoke by id")
async def invoked_functions_answer(world: World) -> None:
    own, referred, elsewhere, _ = await world.output("invokes", k=world.key())

    assert own == {"name": "inngest/function.invoked", "doubled": 42}
    assert referred["doubled"] == 4
    assert elsewhere == "plain"


@case("failing invoke")
async def what_goes_wrong_with_an_invoked_function_is_an_error(world: World) -> None:
    k = world.key()
    sulking, slow, unknown = await world.output("invokes-badly", k=k)

    assert sulking == {"name": "TypeError", "message": "I will not"}
    assert slow["name"] == "InngestInvokeTimeoutError"
    assert "ts-nobody" in unknown["message"]
    await world.open(k)
    # The invoked run goes on without the one that invoked it.
    assert [note["what"] for note in await world.noted(k, 3)] == [0, 1, "slow ends"]


@case("step.wait_for_signal", "step.send_signal")
async def a_signal_ends_the_wait_for_it(world: World) -> None:
    k, event_id = await waiting(world, "waits-for-signal", timeout="1h")
    sent = await world.output("sends-signal", k=k)
    run = await world.engine.result(event_id)

    assert sent == {"runId": run["run_id"]}
    assert run["output"] == {"signal": k, "data": {"n": 1}}


@case("step.send_signal")
async def a_signal_may_come_from_outside(world: World) -> None:
    k, event_id = await waiting(world, "waits-for-signal", timeout="1h")
    await world.ask("signal", {"signal": k, "data": "hello"})

    assert (await world.engine.result(event_id))["output"] == {"signal": k, "data": "hello"}
    lost = await world.run("sends-signal", k=k)
    assert lost["status"] == "Completed" and lost["output"] == {}


@case("step.wait_for_signal")
async def a_wait_for_a_signal_ends_at_its_timeout(world: World) -> None:
    assert await world.output("waits-for-signal", k=world.key(), timeout="1s") is None


@case("step.wait_for_signal")
async def two_runs_cannot_wait_for_one_signal(world: World) -> None:
    k, event_id = await waiting(world, "waits-for-signal", timeout="1h")
    second = await world.run("waits-for-signal", k=k, timeout="1h")

    assert second["status"] == "Failed"
    assert k in second["output"]["message"]
    await world.ask("signal", {"signal": k, "data": 1})
    assert (await world.engine.result(event_id))["output"]["data"] == 1


@case("step.wait_for_signal")
async def a_run_takes_over_a_signal(world: World) -> None:
    k, first = await waiting(world, "waits-for-signal", timeout="1h")
    second = await world.send("ts/waits-for-signal", k=k, timeout="1h", conflict="replace")
    await waits_now(world, second)
    await world.ask("signal", {"signal": k, "data": 2})

    assert (await world.engine.result(second))["output"]["data"] == 2
    # The first one waits on, for its timeout.
    await world.engine.request("DELETE", f"/v1/runs/{await world.run_id(first)}")
    assert (await world.engine.result(first))["status"] == "Cancelled"
