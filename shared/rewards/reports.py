"""What reports say, and of which days. Pure: time is an argument."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import TypeVar

from pydantic import BaseModel

T = TypeVar("T")

ZONE = "Asia/Bangkok"
"""The time zone whose days and nights the programme keeps."""

_SATURDAY = 5


class Sales(BaseModel):
    """What a merchant sold in some days: how many purchases, and cents."""

    purchases: int
    sold_cents: int
    refunded_cents: int


class DayFigures(Sales):
    """What a merchant's day came to.

    Attributes:
        awarded_points: Less what was taken back.
    """

    merchant_id: str
    day: date
    awarded_points: int


class Place(BaseModel):
    """A merchant's place among all in a week that began on a Monday."""

    week: date
    place: int
    merchant_id: str
    sold_cents: int


def days_to_report(today: date) -> list[date]:
    """Return the days that a weekday's report is about: the one before, on Mondays the weekend as well."""
    days = [today - timedelta(days=1)]
    while days[0].weekday() >= _SATURDAY:
        days.insert(0, days[0] - timedelta(days=1))
    return days


def last_week(today: date) -> date:
    """Return the Monday of the week before."""
    return today - timedelta(days=today.weekday() + 7)


def in_words(figures: DayFigures) -> str:
    """Return a day's figures as a sentence or two."""
    day = f"{figures.day:%A}, {figures.day.day} {figures.day:%B %Y}"
    if figures.purchases == 0:
        return f"{figures.merchant_id} sold nothing on {day}."
    text = (
        f"{figures.merchant_id} sold {cents(figures.sold_cents)} in {figures.purchases} "
        f"purchase{'s' if figures.purchases > 1 else ''} on {day}, "
        f"for which {figures.awarded_points:,} points were awarded."
    )
    if figures.refunded_cents:
        share = round(100 * figures.refunded_cents / figures.sold_cents)
        text += f" {cents(figures.refunded_cents)} of it, {share} %, were refunded."
    return text


def cents(amount: int) -> str:
    """Return an amount as people write it: 123456 is 1,234.56."""
    whole, part = divmod(abs(amount), 100)
    return f"{'-' if amount < 0 else ''}{whole:,}.{part:02}"


def ranking(week: date, sold: Iterable[tuple[str, int]]) -> list[Place]:
    """Return the places of merchants by what they sold; equal ones share one, and the next is left out."""
    ordered = sorted(sold, key=lambda each: (-each[1], each[0]))
    amounts = [amount for _, amount in ordered]
    return [
        Place(week=week, place=amounts.index(amount) + 1, merchant_id=merchant, sold_cents=amount)
        for merchant, amount in ordered
    ]


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Return the items in lists of at most `size`, in their order."""
    return [items[start : start + size] for start in range(0, len(items), size)]
