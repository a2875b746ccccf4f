"""Steps that run in the app: values, errors and their attempts, steps beside each other."""

import asyncio
from datetime import datetime

from tests.official.typescript.world import World, case


@case("step.run", "input of steps")
async def values_come_through(world: World) -> None:
    assert await world.output("values") == [
        {"a": [1, {"b": None}]},
        None,
        None,
        0,
        False,
        'ü "quoted" \n 漢字 🎈',
        [],
        1.5,
        5,
    ]


@case("step.run")
async def steps_run_once_in_order(world: World) -> None:
    k = world.key()

    assert await world.output("order", k=k) == "done"
    assert await world.notes(k) == ["a", "b", "c"]


@case("repeated step ids")
async def repeated_ids_are_numbered(world: World) -> None:
    assert await world.output("repeated") == [0, 1, 2, "after the sleep"]


@case("step.sleep", "step.sleep_until")
async def sleeps_last(world: World) -> None:
    k = world.key()
    until = await world.output("naps", k=k)
    begun, one, two = await world.noted(k, 3)

    assert one["at"] >= begun["at"] + 1000
    assert two["at"] >= datetime.fromisoformat(until).timestamp() * 1000


@case("default retries")
async def nothing_said_means_five_attempts(world: World) -> None:
    assert await world.output("default-retries") == 5


@case("retries")
async def attempts_are_counted(world: World) -> None:
    once, twice, always = world.key(), world.key(), world.key()
    failed = await world.run("no-retries", k=once)
    assert failed["status"] == "Failed" and failed["output"]["message"] == "no more"
    assert await world.notes(once) == [0]

    assert await world.output("fails-thrice", k=twice) == 2
    assert await world.notes(twice) == [[0, 3], [1, 3], [2, 3]]

    run = await world.run("fails-thrice", k=always, n="always")
    assert run["status"] == "Failed"
    assert (run["output"]["name"], run["output"]["message"]) == ("OutOfStock", "at attempt 2")
    assert len(await world.notes(always)) == 3


@case("retries", "checkpointing")
async def each_step_has_its_attempts(world: World) -> None:
    k = world.key()

    assert await world.output("step-fails-twice", k=k) == [1, 2, 0, 3]
    assert await world.notes(k) == [0, 1, 2]


@case("step error")
async def a_step_that_gave_up_is_caught(world: World) -> None:
    k = world.key()
    error, after = await world.output("step-gives-up", k=k)

    assert error == {
        "is": True,
        "name": "OutOfStock",
        "message": "card declined",
        "cause": "no funds",
    }
    assert after == "refunded"
    assert await world.notes(k) == [0, 1]


@case("step error")
async def a_step_that_gave_up_ends_the_run(world: World) -> None:
    k = world.key()
    run = await world.run("step-gives-up-uncaught", k=k)

    assert run["status"] == "Failed"
    assert (run["output"]["name"], run["output"]["message"]) == ("OutOfStock", "no more")
    assert await world.notes(k) == ["before", "charge", "charge"]


@case("NonRetriableError")
async def final_errors_are_not_tried_again(world: World) -> None:
    k, in_step = world.key(), world.key()
    run = await world.run("final", k=k)

    assert run["status"] == "Failed"
    assert run["output"]["message"] == "never again"
    assert run["output"]["cause"]["message"] == "why"
    assert await world.notes(k) == ["once"]
    error = await world.output("final-step", k=in_step)
    assert error["is"] and error["message"] == "never again"
    assert await world.notes(in_step) == ["once"]


@case("RetryAfterError")
async def an_error_says_when_to_try_again(world: World) -> None:
    k = world.key()

    assert await world.output("retries-later", k=k) == 1
    notes = await world.noted(k, 4)
    assert [note["what"] for note in notes] == ["step", "step", "function", "function"]
    assert notes[1]["at"] >= notes[0]["at"] + 1000
    # An instant is rounded to whole seconds by the SDK.
    assert notes[3]["at"] > notes[2]["at"]


@case("on failure")
async def a_handler_learns_of_the_failure(world: World) -> None:
    k = world.key()
    run = await world.run("with-handler", k=k)
    [note] = await world.noted(k)

    assert run["status"] == "Failed"
    assert note["what"] == ["OutOfStock", "sold out", "ts-with-handler", run["run_id"], {"k": k}]


@case("parallel", "planned steps")
async def steps_beside_each_other_run_at_once(world: World) -> None:
    assert await world.output("together", k=world.key()) == ["a", "b", None, "after"]


@case("parallel")
async def chains_beside_each_other_go_on_alone(world: World) -> None:
    assert await world.output("chains") == ["first", "a1 a2", "b1 b2", "c1 c2"]
    assert await world.output("many") == 435


@case("parallel", "step error")
async def all_settled_has_values_and_errors(world: World) -> None:
    k = world.key()
    good, bad, final = await world.output("settled", k=k)

    assert good == 1
    assert (bad["name"], bad["message"]) == ("OutOfStock", "no more")
    assert final["message"] == "never"
    assert await world.notes(k) == [0, 1]


@case("parallel")
async def a_promise_race_ends_with_its_first(world: World) -> None:
    k = world.key()
    event_id = await world.send("ts/promise-race", k=k)
    await world.noted(k)
    await world.open(k)

    assert (await world.engine.result(event_id))["output"] == "fast"


@case("race")
async def after_a_race_the_run_goes_on_with_its_winner(world: World) -> None:
    k = world.key()
    event_id = await world.send("ts/race", k=k)
    await world.noted(k)  # what comes after the race, while a loser goes on
    await world.open(k)
    await world.beat()  # the loser ends
    await world.open(f"{k} after")
    run = await world.engine.result(event_id)

    # The SDK asks for the losers until they have ended, and only then says what the function returned.
    assert run["output"] == ["fast", "after"]
    assert await world.notes(k) == ["after"]


@case("step.send_event")
async def events_are_sent_once(world: World) -> None:
    k = world.key()
    one, two = await world.output("sends", k=k)
    runs = [await world.engine.result(event_id) for event_id in (*one, *two)]

    assert (len(one), len(two)) == (1, 2)
    assert {run["status"] for run in runs} == {"Completed"}
    assert len(await world.notes(k)) == 3
    _, stored = await world.engine.request("GET", f"/v1/events/{two[1]}")
    assert stored["data"]["id"] == f"{k} three"


@case("sessions")
async def sessions_are_handed_on(world: World) -> None:
    sent = {"name": "ts/talks", "data": {}, "meta": {"sessions": {"chat": 1, "tenant": "a"}}}
    [event_id] = await world.send_all(sent)
    own, ids, invoked = (await world.engine.result(event_id))["output"]
    first, second = [(await world.engine.result(each))["output"] for each in ids]

    assert own == invoked == first["sessions"] == {"chat": "1", "tenant": "a"}
    assert second["event"]["meta"] == {"sessions": {"user": "7", "tenant": "a"}}


@case("big state")
async def memos_that_no_call_can_carry_are_fetched(world: World) -> None:
    assert await world.output("large", mib=1, count=6) == "small"


@case("big output")
async def results_have_a_limit(world: World) -> None:
    fits, too_large, large_step = await asyncio.gather(
        world.run("large", count=0, returned=3),
        world.run("large", count=0, returned=5),
        world.run("large", mib=5, count=1),
    )

    assert fits["output"] == "r" * (3 * 2**20)
    assert (too_large["status"], too_large["output"]["name"]) == ("Failed", "OutputTooLarge")
    assert large_step["status"] == "Failed"
    assert "4194304" in large_step["output"]["message"]
