"""The server in memory: what replies, events and time do to runs."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stepbase.engine import expr
from stepbase.engine.starts import Function
from stepbase.protocol import ids
from stepbase.protocol.event import EventIn
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.reply import FunctionError, NoAnswer, Ops, Output
from stepbase.protocol.sync import decode_function
from stepbase.testing.server import Server
from stepbase.testing.state import Leased, RunState

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def function(name: str, **more: Any) -> Function:
    """Return a function that the event of its own name starts, with one retry."""
    url = f"http://x/?fnId={name}&stepId=step"
    runtime = {"type": "http", "url": url}
    step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": 1}}
    raw = {"id": name, "triggers": [{"event": name}], "steps": {"step": step}, **more}
    return Function(ids.function_uuid(name, url), "app", 1, decode_function(raw))


def serve(*functions: Function) -> Server:
    return Server(functions, NOW, holds=expr.holds, check=expr.compile_expression)


def send(server: Server, name: str, **data: Any) -> list[RunState]:
    return [server.runs[each] for each in server.accept([EventIn(name, data)])]


def lease(server: Server) -> Leased:
    """Lease the only call that can be made."""
    [item] = server.ready()
    return server.lease(item)


def peek(server: Server) -> Leased:
    """Look at the only call that can be made; its reply will be lost."""
    call = lease(server)
    server.lose(call)
    return call


def answer(server: Server, *ops: Op, **more: Any) -> None:
    reply = Ops(ops, **{"no_retry": False, "retry_after": None, "version": 2, **more})
    assert server.settle(lease(server), reply) is not None


def op(code: Opcode, name: str, **fields: Any) -> Op:
    return Op(code, ids.hash_step_id(name), display_name=name, **fields)


def done(name: str, data: Any = None) -> Op:
    return op(Opcode.STEP_RUN, name, data=data)


def planned(name: str, **opts: Any) -> Op:
    return op(Opcode.STEP_PLANNED, name, opts=opts or None)


def sleep(name: str, until: str) -> Op:
    return op(Opcode.SLEEP, name, opts={"duration": until})


def wait(name: str, event: str, timeout: str, condition: str | None = None) -> Op:
    opts = {"event": event, "timeout": timeout, "if": condition}
    return op(Opcode.WAIT_FOR_EVENT, name, opts=opts)


def signal(name: str, wanted: str, conflict: str = "fail") -> Op:
    opts = {"signal": wanted, "timeout": "1h", "conflict": conflict}
    return op(Opcode.WAIT_FOR_SIGNAL, name, opts=opts)


def invoke(name: str, slug: str, **more: Any) -> Op:
    opts = {"function_id": slug, "payload": {"data": {"n": 1}}, **more}
    return op(Opcode.INVOKE_FUNCTION, name, opts=opts)


def error(name: str = "E") -> Mapping[str, object]:
    return {"name": name, "message": "no"}


def steps_of(call: Leased) -> dict[str, Any]:
    """Return a call's memos by the steps' names, as far as they are one letter."""
    known = {ids.hash_step_id(letter): letter for letter in "abcdefg"}
    return {known[hashed]: memo for hashed, memo in json.loads(call.body)["steps"].items()}


def test_steps_one_after_another() -> None:
    server = serve(function("f"))
    [run] = send(server, "f", n=7)

    first = json.loads(peek(server).body)
    assert (first["steps"], first["version"], first["event"]["data"]) == ({}, -1, {"n": 7})

    answer(server, done("a", 1))
    answer(server, done("b", [2]))
    call = lease(server)
    assert steps_of(call) == {"a": {"data": 1}, "b": {"data": [2]}}
    assert json.loads(call.body)["ctx"]["stack"]["stack"] == run.stack

    server.settle(call, Output('{"ok":true}', 2))
    assert (run.status, run.output) == ("Completed", '{"ok":true}')
    assert server.ready() == [] and server.next_due() is None


def test_a_call_that_was_leased_again_or_answered_counts_for_nothing() -> None:
    server = serve(function("f"))
    [run] = send(server, "f")

    lost, second = peek(server), lease(server)

    assert server.settle(lost, Output("1")) is None
    assert server.settle(second, Ops((done("a", 2),), False, None)) is not None
    assert server.settle(second, Output("3")) is None
    assert (run.status, [step.memo for step in run.steps.values()]) == ("Running", ['{"data":2}'])


def test_failed_attempts_come_again_in_time_and_count_per_step() -> None:
    server = serve(function("f"))
    [run] = send(server, "f")

    answer(server, op(Opcode.STEP_ERROR, "a", error=error()))
    assert server.ready() == [] and server.next_due() == NOW + timedelta(seconds=15)
    server.advance(NOW + timedelta(seconds=15))
    assert peek(server).attempt == 1
    answer(server, op(Opcode.STEP_ERROR, "a", error=error()))

    call = lease(server)
    assert (call.attempt, steps_of(call)) == (0, {"a": {"error": error()}})
    assert [each.attempt for each in run.attempts] == [0, 1]
    server.settle(call, FunctionError(error("Gone"), 500, no_retry=True))
    assert (run.status, run.error) == ("Failed", '{"name":"Gone","message":"no"}')


def test_retry_after_and_an_outage_choose_the_time() -> None:
    server = serve(function("f"))
    [run] = send(server, "f")

    answer(server, op(Opcode.STEP_ERROR, "a", error=error()), retry_after="3600")
    assert server.next_due() == NOW + HOUR
    server.advance(NOW + HOUR)
    server.settle(lease(server), NoAnswer("refused", is_outage=True))
    assert server.next_due() == NOW + HOUR + timedelta(seconds=1)
    server.advance(NOW + HOUR + timedelta(seconds=1))

    assert lease(server).attempt == 1
    assert run.status == "Running"


def test_a_sleep_takes_its_time() -> None:
    server = serve(function("f"))
    [run] = send(server, "f")

    answer(server, sleep("a", "2030-01-01T01:00:00.000Z"))
    server.advance(NOW + HOUR - timedelta(seconds=1))
    assert server.ready() == []
    server.advance(NOW + HOUR)

    assert steps_of(lease(server)) == {"a": None}
    assert run.steps[run.stack[0]].due == NOW + HOUR


def test_a_group_is_called_step_by_step_and_goes_on_when_all_are_done() -> None:
    server = serve(function("f"))
    [run] = send(server, "f")
    answer(server, planned("a"), planned("b"), sleep("c", "1h"))

    calls = {item.step: server.lease(item) for item in server.ready()}
    assert set(calls) == {ids.hash_step_id("a"), ids.hash_step_id("b")}
    for name in "ba":
        call = calls[ids.hash_step_id(name)]
        assert json.loads(call.body)["ctx"]["disable_immediate_execution"]
        server.settle(call, Ops((done(name, name),), False, None, 2))
    assert server.ready() == []
    server.advance(NOW + HOUR)

    call = lease(server)
    assert list(steps_of(call)) == ["b", "a", "c"]
    assert not json.loads(call.body)["ctx"]["disable_immediate_execution"]
    server.settle(call, Output("1"))
    assert run.status == "Completed"


def test_a_race_is_looked_at_after_each_step() -> None:
    server = serve(function("f"))
    [run] = send(server, "f")
    answer(server, planned("a", parallelMode="race"), planned("b", parallelMode="race"))
    first, second = (server.lease(item) for item in server.ready())

    server.settle(first, Ops((done("a"),), False, None, 2))
    call = lease(server)
    assert (call.step_id, list(steps_of(call))) == ("step", ["a"])
    server.settle(call, Output('"won"', 2))

    assert run.status == "Completed"
    assert server.settle(second, Ops((done("b"),), False, None, 2)) is None
    assert [step.status for step in run.steps.values()] == ["done", "cancelled"]


def test_a_wait_ends_with_its_event_or_with_null() -> None:
    server = serve(function("f"))
    [run] = send(server, "f", id=7)
    answer(server, wait("a", "paid", "1h", "event.data.id == async.data.id"))

    send(server, "paid", id=8)
    assert server.ready() == []
    send(server, "paid", id=7)
    answer(server, wait("b", "paid", "1h", "async.data.n > event.data.id"))
    send(server, "paid", n=7)
    server.advance(NOW + HOUR)

    memos = steps_of(lease(server))
    assert (memos["a"]["name"], memos["a"]["data"], memos["b"]) == ("paid", {"id": 7}, None)
    assert run.steps[run.stack[1]].awaits == "paid"


def test_a_wait_that_can_never_hold_or_is_over_at_once() -> None:
    server = serve(function("f"))
    send(server, "f", id=7)
    answer(server, wait("a", "paid", "0s"))
    answer(server, wait("b", "paid", "1h", "event.data.id == 8 && async.data.id == 7"))

    send(server, "paid", id=7)

    assert server.ready() == []
    server.advance(NOW + HOUR)
    assert steps_of(lease(server)) == {"a": None, "b": None}


def test_a_signal_wakes_one_run() -> None:
    server = serve(function("f"), function("g"))
    [run] = send(server, "f")
    answer(server, signal("a", "go"))
    [other] = send(server, "g")
    answer(server, signal("a", "go"))

    assert other.status == "Failed" and "waits for the signal" in (other.error or "")
    assert server.signal("stop", None) is None
    assert server.signal("go", [1]) == run.id
    assert server.signal("go", [1]) is None
    assert steps_of(lease(server)) == {"a": {"data": {"signal": "go", "data": [1]}}}


def test_a_signal_may_be_taken_over() -> None:
    server = serve(function("f"), function("g"))
    send(server, "f")
    answer(server, signal("a", "go"))
    [other] = send(server, "g")
    answer(server, signal("a", "go", conflict="replace"))

    assert server.signal("go", 1) == other.id


def test_an_invoked_function_gives_its_result_or_its_error() -> None:
    server = serve(function("f"), function("child", triggers=[]))
    [run] = send(server, "f")

    answer(server, invoke("a", "child"))
    call = lease(server)
    child = server.runs[call.run_id]
    assert (child.slug, child.event.parsed["name"]) == ("child", "inngest/function.invoked")
    server.settle(call, Output("[1]", 2))
    answer(server, invoke("b", "child"))
    server.settle(lease(server), FunctionError(error(), 500, no_retry=True))
    answer(server, invoke("c", "nobody"))

    memos = steps_of(lease(server))
    assert memos["a"] == {"data": [1]}
    assert memos["b"] == {"error": error()}
    assert "could not find function" in memos["c"]["error"]["message"]
    assert run.status == "Running"


def test_an_invoke_that_takes_too_long_fails_and_the_child_goes_on() -> None:
    server = serve(function("f"), function("child", triggers=[]))
    send(server, "f")
    answer(server, invoke("a", "child", timeout="1h"))
    answer(server, sleep("x", "1d"))  # of the child

    server.advance(NOW + HOUR)

    memo = steps_of(lease(server))["a"]
    assert memo["error"]["name"] == "InngestInvokeTimeoutError"
    assert [each.status for each in server.runs.values()] == ["Running", "Running"]


def test_cancel_on_compares_with_the_runs_own_event() -> None:
    cancel = [{"event": "refunded", "if": "event.data.id == async.data.id", "timeout": "1h"}]
    server = serve(function("f", cancel=cancel))
    [first], [second], [third] = (send(server, "f", id=each) for each in (1, "1", 2.0))

    send(server, "refunded", id=1)
    send(server, "refunded", id=2)

    assert [each.status for each in (first, second, third)] == [
        "Cancelled",
        "Scheduled",
        "Cancelled",
    ]
    server.advance(NOW + HOUR)
    send(server, "refunded", id="1")
    assert second.status == "Scheduled"


def test_an_event_does_not_cancel_the_run_it_starts() -> None:
    server = serve(function("f", cancel=[{"event": "f"}]))

    [first] = send(server, "f")
    [second] = send(server, "f")

    assert (first.status, second.status) == ("Cancelled", "Scheduled")


def test_events_start_functions_once_each_and_later_if_they_say_so() -> None:
    triggers = [{"event": "a/*"}, {"event": "a/b", "expression": "event.data.n > 1"}]
    server = serve(function("f", triggers=triggers))

    assert len(send(server, "a/b", n=2)) == 1
    assert send(server, "b/a") == []
    assert len(server.accept([EventIn("a/c", {}, id="x"), EventIn("a/c", {}, id="x")])) == 1
    server.advance(NOW + timedelta(hours=24))
    later = round((NOW + timedelta(hours=30)).timestamp() * 1000)
    assert len(server.accept([EventIn("a/c", {}, id="x", ts=later)])) == 1
    assert len(server.ready()) == 2
    server.advance(NOW + timedelta(hours=30))
    assert len(server.ready()) == 3


def test_timeouts_end_runs() -> None:
    server = serve(function("f", timeouts={"start": "1h", "finish": "2h"}))
    [slow] = send(server, "f")
    server.advance(NOW + HOUR)
    [fast] = send(server, "f")
    answer(server, sleep("a", "1d"))

    server.advance(NOW + 2 * HOUR)
    assert (slow.status, fast.status) == ("Cancelled", "Running")
    server.advance(NOW + 3 * HOUR)
    assert fast.status == "Cancelled" and "did not finish" in (fast.error or "")


def test_a_failed_run_starts_its_failure_handler_and_that_ends_it() -> None:
    condition = "event.data.function_id == 'f'"
    triggers = [{"event": "inngest/function.failed", "expression": condition}]
    server = serve(function("f"), function("f-failure", triggers=triggers), function("g"))
    send(server, "g")
    server.settle(lease(server), FunctionError(error(), 500, no_retry=True))
    assert server.ready() == []
    [run] = send(server, "f")

    server.settle(lease(server), FunctionError(error("Gone"), 500, no_retry=True))

    call = lease(server)
    data = json.loads(call.body)["event"]["data"]
    assert (data["run_id"], data["error"]["name"]) == (run.id, "Gone")
    server.settle(call, FunctionError(error(), 500, no_retry=True))
    assert server.ready() == []


def test_starting_one_function_asks_no_trigger() -> None:
    server = serve(function("f"), function("g"))

    run_id = server.start("g", EventIn("f", {"n": 1}))

    assert [each.id for each in server.runs.values()] == [run_id]
    with pytest.raises(KeyError):
        server.start("h", EventIn("f", {}))


def test_steps_are_saved_while_their_call_goes_on() -> None:
    server = Server(
        [function("f")], NOW, holds=expr.holds, check=expr.compile_expression, checkpointing=True
    )
    [run] = send(server, "f")
    gone, call = peek(server), lease(server)
    assert json.loads(call.body)["ctx"]["fn_id"]

    failed = op(Opcode.STEP_FAILED, "b", error=error())
    assert not server.save(run.id, "main", gone.gen, [done("a", 0)])
    assert server.save(run.id, "main", call.gen, [done("a", 1), failed])
    assert server.save(run.id, "main", 0, [done("a", 2), done("c", 3)])
    server.settle(call, Ops((done("c", 4), done("d", 5)), False, None, 2))

    assert steps_of(peek(server)) == {
        "a": {"data": 1}, "b": {"error": error()}, "c": {"data": 3}, "d": {"data": 5},
    }  # fmt: skip
    assert not server.save(run.id, "main", 0, [done("e")])


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="time does not go back"):
        serve().advance(NOW - HOUR)


def test_what_breaks_the_protocol_ends_the_run() -> None:
    server = serve(function("f"))
    [run] = send(server, "f")

    answer(server, op(Opcode.DEFER_ADD, "a"))

    assert run.status == "Failed" and "ProtocolError" in (run.error or "")
