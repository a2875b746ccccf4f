"""Functions made up at random, many at once: each ends with every step's result, each step ran once."""

import random
from typing import Any

import pytest
from tests.engine.conftest import StartEngine
from tests.support.programs import Interpreter, child, expected, made_up
from tests.support.stub_host import Answer, StubHost, ops


@pytest.mark.parametrize("max_calls", [64, 3])
async def test_every_program_ends_with_each_of_its_steps_once(
    start_engine: StartEngine, host: StubHost, max_calls: int
) -> None:
    chance = random.Random(max_calls)
    programs = [made_up(chance) for _ in range(40)]
    interpreter = Interpreter()

    def handler(call: dict[str, Any]) -> Answer:
        found = interpreter.answer(call, host.requests[-1][0]["x-inngest-step-id"])
        if found is not None:
            return ops(*found)
        return Answer(200, {"memos": call["steps"], "stack": call["ctx"]["stack"]["stack"]})

    host.handlers["app-f"] = handler
    host.handlers["app-child"] = lambda call: Answer(200, child(call))
    async with (
        start_engine(max_calls=max_calls, retry_interval=0.01) as (client, _),
        start_engine(max_calls=max_calls, retry_interval=0.01) as (other, _),
    ):
        functions = host.function("app-f", retries=1), host.function("app-child", triggers=[])
        await client.register(host.registration(*functions))
        ids = []
        for i in range(0, len(programs), 10):
            sender = (client, other)[i // 10 % 2]
            ids += await sender.send(
                *({"name": "app/f", "data": {"program": p}} for p in programs[i : i + 10])
            )
        for event_id, program in zip(ids, programs, strict=True):
            run = await client.result(event_id)
            assert run["status"] == "Completed", (program, run["output"])
            assert run["output"]["memos"] == expected(program)
            assert sorted(run["output"]["stack"]) == sorted(expected(program))

    assert set(interpreter.ran.values()) == {1}
