"""What a wait for an event opens: its timer, or first a look at what came before."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from stepbase.engine.decide import decide
from stepbase.engine.effects import NewItem, Settlement, Verdict
from stepbase.engine.opening import State
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.reply import Ops

FRESH = State(0, 4, frozenset(), 0, 0.0, datetime(2026, 11, 24, 6, tzinfo=UTC), 0.0)


def waiting(state: State = FRESH, **opts: object) -> Settlement:
    """What becomes of a reply that waits for an event."""
    op = Op(Opcode.WAIT_FOR_EVENT, "w", name="app/go", opts={"timeout": "2h", **opts})
    return decide(state, Ops((op,), False, None, 2))


def test_a_wait_that_looks_back_begins_with_a_look() -> None:
    settled = waiting(lookBack="90s")

    assert (settled.verdict, settled.items) == (Verdict.PARK, (NewItem("w", "look"),))
    [pause] = settled.pauses
    assert (pause.look_back, pause.expires) == (90, 7200)


def test_without_it_a_wait_begins_with_its_timer() -> None:
    settled = waiting()

    assert settled.items == (NewItem("w", "wait", delay=7200),)
    assert settled.pauses[0].look_back is None


def test_a_function_says_it_for_the_waits_that_do_not() -> None:
    state = replace(FRESH, look_back=60.0)

    own, its = waiting(state, lookBack="1s"), waiting(state)

    assert [each.pauses[0].look_back for each in (own, its)] == [1, 60]


def test_what_can_never_come_is_not_looked_for() -> None:
    settled = waiting(FRESH, **{"lookBack": "1h", "if": "1 == 2"})

    assert (settled.pauses, settled.items) == ((), (NewItem("w", "wait", delay=7200),))


@pytest.mark.parametrize("wrong", ["soon", "0s", "25h", 60, True, ["1h"]])
def test_a_look_back_that_is_none_ends_the_run(wrong: object) -> None:
    settled = waiting(lookBack=wrong)

    assert settled.status == "Failed"
    assert "expected a duration of at most 24 hours" in (settled.error or "")


@pytest.mark.parametrize("opcode", [Opcode.GATEWAY, Opcode.AI_GATEWAY])
def test_a_request_that_is_not_made_at_once_gets_an_item_of_its_own(opcode: Opcode) -> None:
    settled = decide(FRESH, Ops((Op(opcode, "g"), Op(Opcode.STEP_PLANNED, "p")), False, None, 2))

    assert settled.items == (NewItem("g", "gateway"), NewItem("p", "step"))


def test_a_request_that_fails_is_tried_again_by_its_own_item() -> None:
    state = replace(FRESH, target="g", is_request=True, is_main=False, open=frozenset({"g"}))
    failing = Op(Opcode.STEP_ERROR, "g", error={"name": "GatewayError", "message": "m"})

    settled = decide(state, Ops((failing,), False, None, 2))

    assert (settled.verdict, settled.kind, settled.step) == (Verdict.TIMER, "gateway", "g")


def tried(state: State = FRESH, **opts: object) -> Settlement:
    """What becomes of a planned step whose first attempt was in the call that found it."""
    error = {"name": "E", "message": "no"}
    op = Op(Opcode.STEP_PLANNED, "p", display_name="p", opts=opts, error=error)
    return decide(state, Ops((op,), False, None, 2))


def test_a_step_that_was_tried_waits_for_its_next_attempt() -> None:
    settled = tried()

    assert (settled.verdict, settled.items) == (Verdict.PARK, (NewItem("p", "step", delay=15),))
    [row], [failed] = settled.steps, settled.tried
    assert (row.status, row.attempt) == ("planned", 1)
    assert (failed.hash, failed.attempt) == ("p", 0)
    assert json.loads(failed.error) == {"name": "E", "message": "no"}


@pytest.mark.parametrize(
    ("state", "opts", "delay"),
    [
        (FRESH, {"retryAfter": "60"}, 60),
        (FRESH, {"retryAfter": 60}, 15),
        (replace(FRESH, retry_interval=0.0), {}, 0),
        (replace(FRESH, retry_delay=2.0), {}, 2),
    ],
)
def test_its_pause_is_that_of_any_attempt(
    state: State, opts: dict[str, object], delay: float
) -> None:
    assert tried(state, **opts).items == (NewItem("p", "step", delay=delay),)


def test_a_step_that_has_one_attempt_only_has_failed() -> None:
    settled = tried(replace(FRESH, max_attempts=1))

    assert (settled.verdict, settled.items) == (Verdict.CONTINUE, ())
    [row] = settled.steps
    assert (row.status, json.loads(row.memo)) == (
        "failed",
        {"error": {"name": "E", "message": "no"}},
    )
    assert len(settled.tried) == 1


def test_a_step_that_was_not_tried_begins_with_its_first_attempt() -> None:
    state = replace(FRESH, attempt=2)
    op = Op(Opcode.STEP_PLANNED, "p", display_name="p")

    settled = decide(state, Ops((op,), False, None, 2))

    assert (settled.items, settled.steps[0].attempt) == ((NewItem("p", "step"),), 0)
