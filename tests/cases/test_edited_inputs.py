"""A rerun may give a step other arguments than its handler does."""

from typing import Any

import pytest
from tests.cases.conftest import Call
from tests.support.sdk_calls import call_body, call_object, hashed

from stepbase import App, NonRetriableError, Step, SyncStep
from stepbase.protocol.call import decode_call
from stepbase.sdk import verbs
from stepbase.sdk.replay import Replay
from stepbase.supabase.call import UNTYPED, prepare
from stepbase.supabase.table import PreparedWrite

app = App("case")


def add(n: int, *, plus: int = 0) -> int:
    return n + plus


@app.function("async", on="case/start")
async def handler(step: Step) -> int:
    return await step.run("first", add, 1) + await step.run("edited", add, 2, plus=1)


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> int:
    return step.run("first", add, 1) + step.run("edited", add, 2, plus=1)


async def test_a_step_takes_the_arguments_of_the_rerun(call: Call, kind: str) -> None:
    memos = {hashed("first"): {"data": 1}, hashed("edited"): {"input": [40]}}

    reply = await call(call_body(steps=memos, stack=[hashed("first")]))

    assert (reply.op["op"], reply.op["displayName"], reply.op["data"]) == ("StepRun", "edited", 40)


def _rpc(memo: object) -> Any:
    body = call_object(steps={hashed("credit"): memo}, stack=[])
    prepared = prepare("run", "credit", {"p_id": 7}, "key", UNTYPED, None, None)
    verb = verbs.rpc(Replay(decode_call(body)), "credit", prepared, lambda *given: given)
    return next(verb).work


def test_an_sql_function_takes_its_arguments_by_name() -> None:
    called, step = _rpc({"input": [{"p_id": 8, "p_more": None}]})()

    assert called.args == {"p_id": 8, "p_more": None} and called.key == "key"
    assert step == hashed("credit")


@pytest.mark.parametrize("given", [[], [7], [{}, {}], ["p_id"]])
def test_other_arguments_of_an_sql_function_are_refused(given: list[object]) -> None:
    with pytest.raises(NonRetriableError, match='step "credit" calls credit: .* by name'):
        _rpc({"input": given})


def test_a_write_takes_no_other_arguments() -> None:
    write = PreparedWrite(
        function="insert into orders", args={}, returns=None, run_id="run", key=None, claims=None,
        timeout_ms=None, table="orders", action="insert",
    )  # fmt: skip

    with pytest.raises(NonRetriableError, match="run again from a step before it"):
        write.with_input([{}], 'step "w"')
