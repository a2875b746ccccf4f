"""Errors on their way out."""

from datetime import UTC, datetime, timedelta

import pytest

from stepbase import NonRetriableError, RetryAfterError, StepError
from stepbase.sdk import typed
from stepbase.sdk.fault import CodedError, clean, error_object, function_fault, step_fault


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_the_error_object_has_what_the_wire_has() -> None:
    error = error_object(raised(ValueError("boom")))

    assert {k: error[k] for k in ("code", "name", "message")} == {
        "code": "unknown",
        "name": "ValueError",
        "message": "boom",
    }
    assert "in raised" in str(error["stack"])


def test_causes_are_sent_five_deep() -> None:
    error: Exception = ValueError("0")
    for i in range(1, 9):
        outer = ValueError(str(i))
        outer.__cause__ = error
        error = outer

    shown = error_object(error)
    depth = 0
    while "cause" in shown:
        shown = shown["cause"]  # type: ignore[assignment]  # an error object again
        depth += 1

    assert depth == 5


def test_a_step_error_is_final_for_the_function_but_not_for_a_step() -> None:
    error = raised(StepError("ValueError", "boom", "the stack", {"name": "KeyError"}))

    fault = function_fault(error)

    assert fault.no_retry
    assert fault.error == {
        "code": "step_errored",
        "name": "ValueError",
        "message": "boom",
        "stack": "the stack",
        "cause": {"name": "KeyError"},
    }
    assert not step_fault(error).no_retry


def test_a_non_retriable_error_is_final_everywhere() -> None:
    error = raised(NonRetriableError("no"))

    assert function_fault(error).no_retry
    assert step_fault(error).no_retry
    assert step_fault(error).error["code"] == "non_retriable_error"


def test_a_final_error_of_ours_shows_itself_as_what_users_catch() -> None:
    shown = step_fault(raised(CodedError("too deep", "step_nested"))).error

    assert (shown["name"], shown["code"]) == ("NonRetriableError", "step_nested")
    assert str(shown["stack"]).endswith("stepbase.errors.NonRetriableError: too deep\n")


def test_a_stack_without_code_of_users_is_short() -> None:
    with pytest.raises(CodedError) as caught:
        typed.encode(object(), typed.UNTYPED, "it")
    of_ours = caught.tb.tb_next
    assert of_ours is not None and of_ours.tb_next is not None

    stack = str(step_fault(caught.value.with_traceback(of_ours)).error["stack"])

    assert (
        stack.count("File ") == 1
    )  # where it was raised; how that was reached tells users nothing


@pytest.mark.parametrize(
    ("when", "header"),
    [
        (0, "0"),
        (2.1, "3"),
        (timedelta(hours=1), "3600"),
        (datetime(2030, 1, 31, 12, 0, 0, 123456, tzinfo=UTC), "2030-01-31T12:00:00.123Z"),
    ],
)
def test_retry_after_is_seconds_or_a_moment(
    when: datetime | timedelta | float, header: str
) -> None:
    assert step_fault(RetryAfterError("later", when)).retry_after == header


@pytest.mark.parametrize("when", [-1, timedelta(seconds=-1), datetime(2030, 1, 1)])  # noqa: DTZ001  # the point
def test_retry_after_must_make_sense(when: datetime | timedelta | float) -> None:
    with pytest.raises(ValueError, match="RetryAfterError"):
        RetryAfterError("later", when)


def test_text_is_cleaned_of_what_no_database_takes() -> None:
    assert clean("a\x00\ud800ü") == "a\\x00\\ud800ü"
