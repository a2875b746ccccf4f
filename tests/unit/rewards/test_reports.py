"""What reports say, and of which days."""

from datetime import date

import pytest

from rewards.onboarding import welcome_bonus
from rewards.reports import (
    DayFigures,
    cents,
    days_to_report,
    in_batches,
    in_words,
    last_week,
    ranking,
)

_MONDAY = date(2027, 3, 1)


@pytest.mark.parametrize(
    ("today", "days"),
    [
        (date(2027, 3, 1), [date(2027, 2, 26), date(2027, 2, 27), date(2027, 2, 28)]),
        (date(2027, 3, 2), [date(2027, 3, 1)]),
        (date(2027, 3, 5), [date(2027, 3, 4)]),
        (date(2027, 3, 7), [date(2027, 3, 5), date(2027, 3, 6)]),
    ],
)
def test_a_report_is_about_the_days_since_the_last_one(today: date, days: list[date]) -> None:
    assert days_to_report(today) == days


@pytest.mark.parametrize("today", [date(2027, 3, 1), date(2027, 3, 4), date(2027, 3, 7)])
def test_last_week_began_on_the_monday_before_this_weeks(today: date) -> None:
    assert last_week(today) == date(2027, 2, 22)


def figures(purchases: int, sold: int, refunded: int = 0) -> DayFigures:
    return DayFigures(
        merchant_id="books", day=_MONDAY, purchases=purchases, sold_cents=sold,
        refunded_cents=refunded, awarded_points=1234,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (figures(0, 0), "books sold nothing on Monday, 1 March 2027."),
        (
            figures(1, 123456),
            "books sold 1,234.56 in 1 purchase on Monday, 1 March 2027, "
            "for which 1,234 points were awarded.",
        ),
        (
            figures(3, 3000, 1000),
            "books sold 30.00 in 3 purchases on Monday, 1 March 2027, "
            "for which 1,234 points were awarded. 10.00 of it, 33 %, were refunded.",
        ),
    ],
)
def test_a_day_in_words(day: DayFigures, words: str) -> None:
    assert in_words(day) == words


def test_a_day_of_free_purchases_that_were_refunded_has_words_too() -> None:
    assert "refunded" not in in_words(figures(2, 0, 0))


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0.00"), (5, "0.05"), (123456, "1,234.56"), (-250, "-2.50")]
)
def test_amounts_are_written_with_two_places(amount: int, text: str) -> None:
    assert cents(amount) == text


def test_equal_merchants_share_a_place() -> None:
    places = ranking(_MONDAY, [("a", 5), ("b", 9), ("c", 5), ("d", 1)])

    assert [(each.merchant_id, each.place) for each in places] == [
        ("b", 1), ("a", 2), ("c", 2), ("d", 4),
    ]  # fmt: skip


def test_batches_keep_the_order_and_leave_nothing_out() -> None:
    assert in_batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert in_batches([], 2) == []


@pytest.mark.parametrize(
    ("paid", "bonus"),
    [(0, 100), (1009, 100), (1010, 101), (9999, 999), (10_000, 1000), (10**9, 1000)],
)
def test_a_bonus_is_a_point_for_ten_cents_within_its_limits(paid: int, bonus: int) -> None:
    assert welcome_bonus(paid) == bonus
