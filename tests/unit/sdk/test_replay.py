"""The state of one call."""

from typing import Any

import pytest
from tests.support.sdk_calls import call_object, hashed

from stepbase import NonRetriableError, StepError
from stepbase.protocol.call import decode_call
from stepbase.protocol.op import Opcode
from stepbase.sdk.replay import MISSING, Decision, NewStep, Place, Replay, StepOp


def replay(**options: Any) -> Replay:
    return Replay(decode_call(call_object(**options)))


def test_uses_of_an_id_are_numbered_and_hashed() -> None:
    found = [replay_.reach("a") for replay_ in [replay()] for _ in range(3)]

    assert [place.index for place in found] == [0, 1, 2]
    assert [place.hashed for place in found] == [hashed("a", i) for i in range(3)]


def test_numbers_skip_what_is_taken() -> None:
    one = replay()

    places = [one.reach(step_id) for step_id in ("a:1", "a", "a", "a:1", "a")]

    assert [place.hashed for place in places] == [
        hashed("a:1"),
        hashed("a"),
        hashed("a:2"),
        hashed("a:1:1"),
        hashed("a:3"),
    ]
    assert len({place.hashed for place in places}) == 5


def test_memos_are_recalled_as_what_they_are() -> None:
    steps = {
        hashed("data"): {"data": 1},
        hashed("bare"): {"name": "x", "data": {}},
        hashed("null"): None,
        hashed("input"): {"input": [1]},
    }
    one = replay(steps=steps)

    assert one.recall(one.reach("data")) == 1
    assert one.recall(one.reach("bare")) == {"name": "x", "data": {}}
    assert one.recall(one.reach("null")) is None
    assert one.recall(one.reach("input")) is MISSING
    assert one.recall(one.reach("other")) is MISSING


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"name": "ValueError", "message": "m", "stack": "s"}, ("ValueError", "m", "s", None)),
        ({"cause": {"name": "x"}}, ("Error", "", None, {"name": "x"})),
        ({"name": 7, "message": None}, ("Error", "", None, None)),
    ],
)
def test_a_failed_step_raises_its_error(error: dict[str, Any], expected: tuple[Any, ...]) -> None:
    one = replay(steps={hashed("a"): {"error": error}})

    with pytest.raises(StepError) as caught:
        one.recall(one.reach("a"))

    found = caught.value
    assert (found.name, found.message, found.stack, found.cause) == expected


def test_code_is_replayed_until_every_memo_was_asked_for() -> None:
    one = replay(steps={hashed("a"): {"data": 1}, hashed("b"): {"data": 2}})

    assert one.is_replaying
    one.recall(one.reach("a"))
    assert one.is_replaying
    one.recall(one.reach("b"))
    assert not one.is_replaying


RUN, REPORT, PARK = Decision.RUN, Decision.REPORT, Decision.PARK


def new_step(place: Place, opcode: Opcode) -> NewStep:
    work = work_of_a_step if opcode is Opcode.STEP_RUN else None
    return NewStep(place, opcode, place.step_id, work)


def work_of_a_step() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("options", "opcode", "decision"),
    [
        ({}, Opcode.STEP_RUN, RUN),
        ({}, Opcode.SLEEP, REPORT),
        ({"is_planning": True}, Opcode.STEP_RUN, REPORT),
        ({"is_planning": True}, Opcode.SLEEP, REPORT),
        ({"step_id": hashed("a")}, Opcode.STEP_RUN, RUN),
        ({"step_id": hashed("a"), "is_planning": True}, Opcode.STEP_RUN, RUN),
        ({"step_id": hashed("a")}, Opcode.SLEEP, REPORT),
        ({"step_id": hashed("b")}, Opcode.STEP_RUN, PARK),
        ({"step_id": hashed("b")}, Opcode.SLEEP, PARK),
    ],
)
def test_what_is_decided_about_an_unfinished_step(
    options: dict[str, Any], opcode: Opcode, decision: Decision
) -> None:
    one = replay(**options)
    step = new_step(one.reach("a"), opcode)

    assert one.decide([step])[0] is decision
    assert (one.passed_over == step.place) == (decision is PARK)


def test_nothing_happens_after_the_ops_are_known() -> None:
    one = replay()
    place = one.reach("a")
    one.report(StepOp(place, Opcode.SLEEP, "soon"))

    assert one.decide([new_step(one.reach("b"), Opcode.STEP_RUN)]) == (PARK, None)
    assert one.passed_over is None
    assert [op.place for op in one.ops] == [Place("a", 0, hashed("a"))]


@pytest.mark.parametrize(
    ("attempt", "max_attempts", "is_last"),
    [(0, 1, True), (2, 4, False), (3, 4, True), (9, None, False)],
)
def test_the_last_attempt_is_known(attempt: int, max_attempts: int | None, is_last: bool) -> None:
    assert replay(attempt=attempt, max_attempts=max_attempts).is_last_attempt is is_last


def test_an_id_must_be_text() -> None:
    with pytest.raises(NonRetriableError, match="non-empty text"):
        replay().reach(7)  # type: ignore[arg-type]  # wrong on purpose
