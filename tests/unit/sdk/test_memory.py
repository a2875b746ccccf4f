"""Calls with much state leave nothing behind."""

from bench import sdk


def test_a_hundred_calls_with_much_state_leave_no_growth() -> None:
    assert sdk.memory_ratio() <= 1.05
