"""The decision table, row by row, and what holds for every reply there can be."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stepbase.engine.decide import decide
from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.opening import State
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.reply import FunctionError, NoAnswer, Ops, Output

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
FRESH = State(
    attempt=0,
    max_attempts=3,
    known=frozenset(),
    state_bytes=0,
    outage=0.0,
    now=NOW,
    chance=0.5,
)
LAST = replace(FRESH, attempt=2)
ERROR = {"name": "ValueError", "message": "no", "stack": "at line 1", "private": 1}


def ops(*listed: Op, no_retry: bool = False, retry_after: str | None = None) -> Ops:
    return Ops(listed, no_retry, retry_after, 2)


def ran(hashed: str = "a", data: object = 1) -> Op:
    return Op(Opcode.STEP_RUN, hashed, display_name=hashed, data=data)


def failing(opcode: Opcode = Opcode.STEP_ERROR, hashed: str = "a") -> Op:
    return Op(opcode, hashed, display_name=hashed, error=ERROR)


def sleep(until: object, hashed: str = "z", *, as_name: bool = False) -> Op:
    if as_name:
        return Op(Opcode.SLEEP, hashed, name=str(until))
    return Op(Opcode.SLEEP, hashed, opts={"duration": until})


def error_of(settlement: Settlement) -> dict[str, object]:
    assert settlement.error is not None
    error: dict[str, object] = json.loads(settlement.error)
    return error


def memos(settlement: Settlement) -> dict[str, tuple[str, object]]:
    return {s.hash: (s.status, json.loads(s.memo)) for s in settlement.steps}


# --- the function returned ---------------------------------------------------------------------


def test_an_output_completes_the_run_verbatim() -> None:
    settled = decide(FRESH, Output('{"a": 1.0}', 2))

    assert settled == Settlement(Verdict.END, status="Completed", output='{"a": 1.0}', version=2)


def test_an_output_over_four_mebibytes_fails_the_run_and_says_what_to_do() -> None:
    settled = decide(FRESH, Output('"' + "x" * names.MAX_STEP_OUTPUT_BYTES + '"'))

    assert (settled.verdict, settled.status) == (Verdict.END, "Failed")
    assert error_of(settled)["message"] == (
        "the function returned 4194306 bytes, 4194304 are allowed: "
        "store the result and return a reference"
    )


def test_sizes_are_bytes_and_not_characters() -> None:
    text = '"' + "ä" * (names.MAX_STEP_OUTPUT_BYTES // 2) + '"'

    settled = decide(FRESH, Output(text))

    assert settled.status == "Failed"


def test_run_complete_completes_the_run_and_keeps_the_steps_before_it() -> None:
    settled = decide(FRESH, ops(ran("a"), Op(Opcode.RUN_COMPLETE, "done", data={"x": 1})))

    assert (settled.verdict, settled.status, settled.output) == (
        Verdict.END, "Completed", '{"x":1}',
    )  # fmt: skip
    assert memos(settled) == {"a": ("done", {"data": 1})}


# --- errors outside steps ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 400, 401, 404, 500, 503])
def test_a_function_error_is_tried_again_with_the_next_attempt(status: int) -> None:
    settled = decide(FRESH, FunctionError(ERROR, status))

    assert (settled.verdict, settled.attempt, settled.delay) == (Verdict.TIMER, 1, 30.0)
    assert settled.failed is not None
    assert (settled.failed.hash, settled.failed.attempt, settled.failed.http_status) == (
        None, 0, status,
    )  # fmt: skip


def test_the_last_function_error_fails_the_run_with_that_error() -> None:
    settled = decide(LAST, FunctionError(ERROR, 500))

    assert (settled.verdict, settled.status) == (Verdict.END, "Failed")
    assert error_of(settled) == ERROR


def test_no_retry_fails_the_run_at_the_first_attempt() -> None:
    settled = decide(FRESH, FunctionError(ERROR, 400, no_retry=True))

    assert (settled.verdict, settled.status, error_of(settled)) == (Verdict.END, "Failed", ERROR)


def test_an_error_reply_does_not_choose_the_execution_version() -> None:
    """Vector `scenario-fnerr.json`: the call after a 500 still says -1."""
    assert decide(FRESH, FunctionError(ERROR, 500, version=2)).version is None


@pytest.mark.parametrize(
    ("header", "delay"),
    [
        ("5", 5.0),
        ("0", 1.0),
        ("-3", 1.0),
        ("999999999", 86_400.0),
        ("inf", 86_400.0),
        ("2026-11-24T06:00:42Z", 42.0),
        ("Tue, 24 Nov 2026 06:01:00 GMT", 60.0),
        ("2020-01-01T00:00:00Z", 1.0),
        ("soon", 30.0),
        ("", 30.0),
        ("nan", 30.0),
    ],
)
def test_retry_after_moves_the_next_attempt_between_a_second_and_a_day(
    header: str, delay: float
) -> None:
    settled = decide(FRESH, FunctionError(ERROR, 500, retry_after=header))

    assert (settled.verdict, settled.attempt, settled.delay) == (Verdict.TIMER, 1, delay)


def test_a_fixed_retry_interval_replaces_the_schedule_but_not_retry_after() -> None:
    state = replace(FRESH, retry_interval=0.25)

    assert decide(state, FunctionError(ERROR, 500)).delay == 0.25
    assert decide(state, FunctionError(ERROR, 500, retry_after="7")).delay == 7.0


# --- no answer ---------------------------------------------------------------------------------


def test_an_outage_costs_no_attempt_and_asks_again_ever_more_slowly() -> None:
    away = NoAnswer("refused", is_outage=True)

    first, later = decide(FRESH, away), decide(replace(FRESH, outage=40.0), away)

    assert (first.verdict, first.attempt, first.delay) == (Verdict.TIMER, 0, 1.0)
    assert (later.attempt, later.delay) == (0, 10.0)
    assert first.is_outage and not first.was_called
    assert decide(replace(FRESH, outage=3000.0), away).delay == 30.0


def test_of_an_outage_only_the_first_try_is_recorded() -> None:
    """Ten thousand waiting runs would write more than a million rows in an hour."""
    away = NoAnswer("refused", is_outage=True)

    assert decide(FRESH, away).failed is not None
    assert decide(replace(FRESH, outage=0.5), away).failed is None
    assert decide(replace(FRESH, outage=3600.0), away).failed is not None


def test_after_an_hour_an_outage_costs_attempts_one_by_one() -> None:
    away = NoAnswer("refused", is_outage=True)

    first = decide(replace(FRESH, outage=3600.0), away)
    last = decide(replace(LAST, outage=9999.0), away)

    assert (first.verdict, first.attempt) == (Verdict.TIMER, 1)
    assert first.is_outage, "the outage goes on: the next attempt is not free for another hour"
    assert (last.verdict, last.status) == (Verdict.END, "Failed")
    assert error_of(last) == {"name": "NoAnswer", "message": "refused"}


def test_an_answer_that_is_no_sdks_costs_an_attempt() -> None:
    settled = decide(FRESH, NoAnswer("a login page", is_outage=False, status=200))

    assert (settled.verdict, settled.attempt, settled.is_outage) == (Verdict.TIMER, 1, False)
    assert not settled.was_called


# --- steps -------------------------------------------------------------------------------------


def test_a_step_is_kept_and_the_run_goes_on_at_attempt_zero() -> None:
    settled = decide(replace(FRESH, attempt=1), ops(ran("a", {"v": 1})))

    assert (settled.verdict, settled.attempt, settled.version) == (Verdict.CONTINUE, 0, 2)
    assert memos(settled) == {"a": ("done", {"data": {"v": 1}})}
    assert settled.steps[0].attempt == 1


def test_several_finished_steps_are_all_kept_in_order() -> None:
    settled = decide(FRESH, ops(ran("b"), ran("a"), ran("b", 2)))

    assert [step.hash for step in settled.steps] == ["b", "a"]


def test_a_step_reported_twice_in_one_reply_keeps_its_first_result() -> None:
    settled = decide(FRESH, ops(ran("a", 1), ran("a", 2)))

    assert settled.verdict is Verdict.CONTINUE
    assert [step.memo for step in settled.steps] == ['{"data":1}']


def test_a_step_that_finished_and_failed_in_one_reply_keeps_its_first_result() -> None:
    settled = decide(FRESH, ops(ran("a", 1), failing(Opcode.STEP_FAILED, "a")))

    assert [(step.hash, step.memo) for step in settled.steps] == [("a", '{"data":1}')]


@pytest.mark.parametrize(
    ("data", "memo", "status"),
    [
        ({"data": {"v": 1}}, {"data": {"v": 1}}, "done"),
        ({"v": 1}, {"v": 1}, "done"),
        ({"error": {"name": "E"}}, {"error": {"name": "E"}}, "failed"),
    ],
)
def test_the_legacy_step_opcode_brings_its_memo_ready_made(
    data: object, memo: object, status: str
) -> None:
    settled = decide(FRESH, ops(Op(Opcode.STEP, "s", data=data)))

    assert memos(settled) == {"s": (status, memo)}


@pytest.mark.parametrize(
    "again",
    [
        ran("a", 2),
        failing(Opcode.STEP_FAILED, "a"),
        failing(Opcode.STEP_ERROR, "a"),
        sleep("1h", "a"),
        sleep("0s", "a"),
    ],
    ids=lambda op: f"{op.op}",
)
def test_a_stored_step_reported_again_uses_up_attempts_and_ends_with_a_clear_error(
    again: Op,
) -> None:
    known = frozenset({"a"})

    first = decide(replace(FRESH, known=known), ops(again))
    last = decide(replace(LAST, known=known), ops(again))

    assert (first.verdict, first.attempt) == (Verdict.TIMER, 1)
    assert (last.verdict, last.status) == (Verdict.END, "Failed")
    assert error_of(last)["name"] == "NoProgress"
    assert "reported the stored step 'a' again" in str(error_of(last)["message"])


@pytest.mark.parametrize(
    "listed", [(), (Op(Opcode.NONE, ""),), (Op(Opcode.DISCOVERY_REQUEST, "d"),)]
)
def test_a_reply_that_asks_for_nothing_uses_up_attempts_and_ends(listed: tuple[Op, ...]) -> None:
    first, last = decide(FRESH, ops(*listed)), decide(LAST, ops(*listed))

    assert (first.verdict, first.attempt) == (Verdict.TIMER, 1)
    assert (last.verdict, last.status) == (Verdict.END, "Failed")
    assert error_of(last)["message"] == (
        "the function neither finished nor went on: it asked for nothing. "
        "Step ids must be the same at every call."
    )


def test_a_step_error_is_tried_again_and_keeps_finished_steps() -> None:
    settled = decide(FRESH, ops(ran("a"), failing(hashed="b")))

    assert (settled.verdict, settled.attempt) == (Verdict.TIMER, 1)
    assert memos(settled) == {"a": ("done", {"data": 1})}
    assert settled.failed is not None and settled.failed.hash == "b"


def test_a_step_errors_retry_after_is_obeyed() -> None:
    assert decide(FRESH, ops(failing(), retry_after="9")).delay == 9.0


@pytest.mark.parametrize(
    ("state", "reply"),
    [
        (LAST, ops(failing())),
        (FRESH, ops(failing(), no_retry=True)),
        (FRESH, ops(failing(Opcode.STEP_FAILED))),
    ],
    ids=["exhausted", "no-retry", "StepFailed"],
)
def test_a_final_step_error_becomes_a_memo_that_the_handler_may_catch(
    state: State, reply: Ops
) -> None:
    settled = decide(state, reply)

    assert (settled.verdict, settled.attempt) == (Verdict.CONTINUE, 0)
    assert memos(settled) == {
        "a": (
            "failed",
            {"error": {"name": "ValueError", "message": "no", "stack": "at line 1"}},
        )
    }


def test_a_step_error_without_an_error_ends_the_run() -> None:
    settled = decide(FRESH, ops(Op(Opcode.STEP_ERROR, "a", display_name="pay")))

    assert (settled.verdict, settled.status) == (Verdict.END, "Failed")
    assert error_of(settled)["message"] == "StepError for 'pay' came without an error"


# --- sleep -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("1500ms", 1.5)])
@pytest.mark.parametrize("as_name", [False, True])
def test_a_sleep_is_a_timer_in_the_databases_time(text: str, seconds: float, as_name: bool) -> None:
    settled = decide(FRESH, ops(sleep(text, as_name=as_name)))

    assert (settled.verdict, settled.kind, settled.step) == (Verdict.TIMER, "sleep", "z")
    assert (settled.due, settled.delay) == (None, seconds)
    assert memos(settled) == {"z": ("sleeping", None)}


@pytest.mark.parametrize("text", ["2026-11-24T06:00:30Z", "2026-11-24T07:00:30+01:00"])
def test_a_sleep_until_is_a_timer_at_that_instant(text: str) -> None:
    settled = decide(FRESH, ops(sleep(text, as_name=True)))

    assert (settled.verdict, settled.due) == (Verdict.TIMER, NOW + timedelta(seconds=30))


@pytest.mark.parametrize("text", ["0s", "2020-01-01T00:00:00Z"])
def test_a_sleep_that_is_over_goes_on_at_once(text: str) -> None:
    settled = decide(FRESH, ops(sleep(text)))

    assert settled.verdict is Verdict.CONTINUE
    assert memos(settled) == {"z": ("done", None)}


@pytest.mark.parametrize(
    "text", ["banana", "", "5", 5, ["1h"], "1" * 40 + "d", "9" * 400 + "w", "-5s"]
)
def test_a_sleep_that_cannot_be_read_ends_the_run_and_shows_the_form(text: object) -> None:
    settled = decide(FRESH, ops(sleep(text)))

    assert (settled.verdict, settled.status) == (Verdict.END, "Failed")
    assert 'expected a duration like "2h" or an ISO 8601 time' in str(error_of(settled)["message"])


@pytest.mark.parametrize("text", ["367d", "2028-01-01T00:00:00Z"])
def test_a_sleep_over_366_days_ends_the_run(text: str) -> None:
    message = str(error_of(decide(FRESH, ops(sleep(text))))["message"])

    assert "days, 366 are allowed" in message


# --- limits and what is not supported -----------------------------------------------------------


def test_a_step_result_over_four_mebibytes_ends_the_run_and_names_the_step() -> None:
    settled = decide(FRESH, ops(ran("a", "x" * names.MAX_STEP_OUTPUT_BYTES)))

    assert settled.status == "Failed"
    assert str(error_of(settled)["message"]).startswith("step 'a' returned 41943")


def test_a_run_has_at_most_a_thousand_steps() -> None:
    full = replace(FRESH, known=frozenset(str(i) for i in range(names.MAX_STEPS)))

    settled = decide(full, ops(ran("one-more")))

    assert error_of(settled)["message"] == (
        "a run has at most 1000 steps: split the work over several functions"
    )


@pytest.mark.parametrize("op", [sleep("1h"), failing(Opcode.STEP_FAILED)])
def test_the_thousand_steps_count_sleeps_and_failures_too(op: Op) -> None:
    full = replace(FRESH, known=frozenset(str(i) for i in range(names.MAX_STEPS)))

    assert decide(full, ops(op)).status == "Failed"


def test_all_results_of_a_run_have_at_most_32_mebibytes() -> None:
    settled = decide(replace(FRESH, state_bytes=names.MAX_STATE_BYTES), ops(ran()))

    assert "exceed 33554432 bytes" in str(error_of(settled)["message"])


@pytest.mark.parametrize(
    "opcode",
    [
        Opcode.SYNC_RUN_COMPLETE,
        Opcode.DEFER_ADD,
        Opcode.DEFER_ABORT,
    ],
)
def test_an_opcode_of_a_later_part_ends_the_run_and_says_what_works(opcode: Opcode) -> None:
    message = str(error_of(decide(FRESH, ops(Op(opcode, "x", display_name="later"))))["message"])

    assert message.startswith(f"opcode {opcode} (step 'later') is not supported by this engine")
    assert "use the steps it knows" in message


def test_two_wishes_at_once_open_a_group_and_park_the_call() -> None:
    settled = decide(FRESH, ops(sleep("1h", "a"), sleep("1h", "b")))

    assert (settled.verdict, settled.planning) == (Verdict.PARK, 1)
    assert [(item.hash, item.kind, item.delay) for item in settled.items] == [
        ("a", "wait", 3600.0),
        ("b", "wait", 3600.0),
    ]
    assert {row.status for row in settled.steps} == {"sleeping"}


def test_steps_that_are_open_already_are_not_opened_again() -> None:
    waiting = replace(FRESH, open=frozenset({"a", "b"}))

    settled = decide(waiting, ops(sleep("1h", "a"), sleep("1h", "b")))

    assert (settled.verdict, settled.items, settled.steps) == (Verdict.PARK, (), ())


def test_a_call_for_one_planned_step_is_done_with_its_outcome() -> None:
    targeted = replace(FRESH, target="a", open=frozenset({"a", "b"}))

    assert decide(targeted, ops(ran("a", 1))).verdict is Verdict.DONE


def test_a_failed_attempt_of_a_planned_step_is_repeated_for_that_step() -> None:
    targeted = replace(FRESH, target="a", open=frozenset({"a"}))
    failed = Op(Opcode.STEP_ERROR, "a", error={"name": "E", "message": "no"})

    settled = decide(targeted, ops(failed))

    assert (settled.verdict, settled.kind, settled.step) == (Verdict.TIMER, "step", "a")


def test_a_reply_that_breaks_the_protocol_ends_the_run_with_what_was_wrong() -> None:
    settled = decide(FRESH, ProtocolError("op [0] has the unknown opcode 'Bogus'"))

    assert error_of(settled) == {
        "name": "ProtocolError",
        "message": "op [0] has the unknown opcode 'Bogus'",
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
@pytest.mark.parametrize("opcode", [Opcode.STEP_RUN, Opcode.STEP, Opcode.RUN_COMPLETE])
def test_a_value_that_json_cannot_hold_ends_the_run(opcode: Opcode, value: object) -> None:
    settled = decide(FRESH, ops(Op(opcode, "a", data=value)))

    assert (settled.verdict, settled.status) == (Verdict.END, "Failed")
    assert error_of(settled)["name"] == "ProtocolError"


def test_a_step_whose_supabase_is_away_uses_no_attempt_for_an_hour() -> None:
    away = replace(ops(failing()), is_outage=True)

    first = decide(LAST, away)
    later = decide(replace(LAST, outage=3600.0), away)

    assert (first.verdict, first.attempt, first.is_outage) == (Verdict.TIMER, LAST.attempt, True)
    assert (later.verdict, later.steps[0].status) == (Verdict.CONTINUE, "failed")
