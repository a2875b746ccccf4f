"""When a step ran: as the function says, else from the call that brought it."""

from datetime import timedelta
from typing import Any

import asyncpg
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase.protocol.ids import hash_step_id

A, B = hash_step_id("a"), hash_step_id("b")
_SECOND = 1_000_000_000
# By a clock that is years ahead: only differences count.
_BEGAN = 2_000_000_000 * _SECOND


async def _spans(database: str, run: dict[str, Any]) -> dict[str, tuple[timedelta, timedelta]]:
    connection = await asyncpg.connect(database)
    rows = await connection.fetch(
        "select s.hash, s.ended_at - s.started_at as took, s.started_at - r.created_at as after"
        " from stepbase.steps s join stepbase.runs r using (run_id) where run_id = $1",
        run["run_id"],
    )
    await connection.close()
    return {row["hash"]: (row["took"], row["after"]) for row in rows}


async def test_a_step_has_the_times_that_its_function_says(
    client: EngineClient, host: StubHost, database: str
) -> None:
    def answer(call: dict[str, Any]) -> Answer:
        if A in call["steps"]:
            return Answer(200, "done")
        first = step_run(A, 1) | {"timing": {"a": _BEGAN, "b": 2_000_000}}
        second = step_run(B, 2) | {"timing": {"a": _BEGAN + 3_000_000, "b": 1_000_000}}
        return ops(first, second)

    host.handlers["app-f"] = answer
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f", "data": {}})
    spans = await _spans(database, await client.result(event_id))

    assert (spans[A][0], spans[B][0]) == (timedelta(milliseconds=2), timedelta(milliseconds=1))
    assert spans[B][1] - spans[A][1] == timedelta(milliseconds=3)
    assert all(after >= timedelta(0) for _, after in spans.values())


async def test_no_step_begins_before_its_run(
    client: EngineClient, host: StubHost, database: str
) -> None:
    def answer(call: dict[str, Any]) -> Answer:
        if A in call["steps"]:
            return Answer(200, "done")
        return ops(step_run(A, 1) | {"timing": {"a": _BEGAN, "b": 3600 * _SECOND}})

    host.handlers["app-f"] = answer
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f", "data": {}})
    spans = await _spans(database, await client.result(event_id))

    assert spans[A][1] == timedelta(0)


async def test_times_of_another_form_are_passed_over(
    client: EngineClient, host: StubHost, database: str
) -> None:
    odd = iter([7, {"a": "x", "b": 1}, {"a": _BEGAN, "b": -1}, {"a": 1e30, "b": 1}, {}])

    def answer(call: dict[str, Any]) -> Answer:
        timing = next(odd, None)
        if timing is None:
            return Answer(200, "done")
        return ops(step_run(hash_step_id(str(len(call["steps"]))), 1) | {"timing": timing})

    host.handlers["app-f"] = answer
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f", "data": {}})
    run = await client.result(event_id)
    spans = await _spans(database, run)

    assert run["output"] == "done" and len(spans) == 5
    assert all(timedelta(0) <= took < timedelta(seconds=30) for took, _ in spans.values())
