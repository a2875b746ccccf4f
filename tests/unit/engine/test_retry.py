"""When to try again: the wire's schedule, outages, and what Retry-After may say."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.engine import retry

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(0, 15), (1, 30), (2, 60), (3, 120), (4, 300), (5, 600), (6, 1200), (7, 2400), (8, 3600)]
    + [(9, 7200), (10, 7200), (20, 7200)],
)
def test_the_schedule_is_inngests_with_up_to_thirty_seconds_of_chance(
    attempt: int, seconds: int
) -> None:
    assert retry.backoff(attempt, 0.0) == seconds
    assert retry.backoff(attempt, 0.5) == seconds + 15


@given(st.integers(0, 30), st.floats(0, 1, exclude_max=True))
def test_the_jitter_is_at_most_thirty_seconds(attempt: int, chance: float) -> None:
    assert 0 <= retry.backoff(attempt, chance) - retry.backoff(attempt, 0.0) <= 30


@given(st.floats(0, 1e6))
def test_a_silent_host_is_asked_between_every_second_and_every_half_minute(elapsed: float) -> None:
    assert 1 <= retry.outage_delay(elapsed) <= 30


@pytest.mark.parametrize("elapsed", [0.0, 1.0, 4.0, 10.0])
def test_a_host_back_after_seconds_is_asked_within_seconds(elapsed: float) -> None:
    assert retry.outage_delay(elapsed) <= max(1.0, elapsed / 4)


@given(
    st.none()
    | st.text(max_size=30)
    | st.from_regex(r"[-+]?\d{1,5}(\.\d)?(e\d{1,3})?", fullmatch=True)
)
def test_any_header_gives_a_time_within_a_day_or_none(header: str | None) -> None:
    seconds = retry.retry_after(header, NOW)

    assert seconds is None or 1 <= seconds <= 86_400


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (" 7 ", 7.0),
        ("7.5", 7.5),
        ("Tue, 24 Nov 2026 06:00:09 GMT", 9.0),
        ("Tue, 24 Nov 2026 07:00:09 +0100", 9.0),
        ("Tue, 24 Nov 2026 06:00:09 -0000", 9.0),
        ("2026-11-24T06:00:09Z", 9.0),
        ("2026-11-24T06:00:09.500Z", 9.5),
        ("2026-11-24T06:00:09", 9.0),
        ("2026-11-24T08:00:09+02:00", 9.0),
        ("9999-12-31T23:59:59Z", 86_400.0),
        ("0001-01-01T00:00:00+14:00", 1.0),
    ],
)
def test_every_form_of_retry_after_is_read(header: str, seconds: float) -> None:
    assert retry.retry_after(header, NOW) == seconds


@given(st.text(max_size=30))
def test_any_text_is_an_instant_or_none(text: str) -> None:
    instant = retry.parse_instant(text)

    assert instant is None or instant.tzinfo is not None
