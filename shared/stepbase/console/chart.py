"""Small charts as numbers for SVG, with the labels of their axes and the same as a table. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stepbase.console import words

WIDTH, HEIGHT = 600.0, 90.0
_TIMES = 5


@dataclass(frozen=True, slots=True)
class Column:
    """One minute: `x`, `width`, and the heights of its two parts from the bottom."""

    x: float
    width: float
    height: float
    bad: float
    said: str


@dataclass(frozen=True, slots=True)
class Axes:
    """What stands around a chart, and what is read aloud instead of it.

    Attributes:
        most: What the full height stands for.
        levels: Labels of the vertical axis, from top to bottom.
        times: Labels of the horizontal one, from left to right, UTC.
        said: The chart in one sentence.
        columns_said: The heads of the table, without that of the minute.
        rows: Its rows, the newest first; minutes without anything are left out.
        legend: (class, name) of each colour.
    """

    most: float
    levels: Sequence[str]
    times: Sequence[str]
    said: str
    columns_said: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Columns:
    """A column chart."""

    columns: Sequence[Column]
    axes: Axes


@dataclass(frozen=True, slots=True)
class Line:
    """A line chart: SVG polylines, one for each stretch without a gap, and its dots (x, y, said)."""

    lines: Sequence[str]
    dots: Sequence[tuple[float, float, str]]
    axes: Axes


def columns(slots: Sequence[datetime], counts: Sequence[float], bad: Sequence[float]) -> Columns:
    """Lay out one column a slot: `bad` of the `counts` at its foot."""
    most = _round_up(max([*counts, 0.0]))
    step = WIDTH / len(slots)
    made = [
        Column(
            x=round(i * step, 1),
            width=round(step * 0.8, 1),
            height=_height(count, most),
            bad=_height(failed, most),
            said=f"{slot:%H:%M}: {count:.0f} runs ended, {failed:.0f} failed",
        )
        for i, (slot, count, failed) in enumerate(zip(slots, counts, bad, strict=True))
    ]
    rows = [
        (f"{slot:%H:%M}", f"{count:,.0f}", f"{failed:,.0f}")
        for slot, count, failed in zip(slots, counts, bad, strict=True)
        if count
    ]
    axes = Axes(
        most=most,
        levels=(f"{most:,.0f}", f"{most / 2:,.0f}", "0"),
        times=_times(slots),
        said=f"{sum(counts):,.0f} runs ended in the last hour, {sum(bad):,.0f} of them failed",
        columns_said=("Ended", "Failed"),
        rows=rows[::-1],
        legend=(("good", "ended"), ("bad", "failed")),
    )
    return Columns(made, axes)


def line(slots: Sequence[datetime], values: Sequence[float]) -> Line:
    """Lay out a line through the slots that have a value (milliseconds)."""
    most = _round_up_ms(max([*values, 0.0]))
    step = WIDTH / len(slots)
    dots, stretches = [], [[""]]
    for i, (slot, value) in enumerate(zip(slots, values, strict=True)):
        if not value:
            stretches.append([])
            continue
        x, y = round((i + 0.4) * step, 1), round(HEIGHT - _height(value, most), 1)
        dots.append((x, y, f"{slot:%H:%M}: {words.duration(value)}"))
        stretches[-1].append(f"{x},{y}")
    rows = [
        (f"{slot:%H:%M}", words.duration(value))
        for slot, value in zip(slots, values, strict=True)
        if value
    ]
    axes = Axes(
        most=most,
        levels=(_whole(most), _whole(most / 2), "0"),
        times=_times(slots),
        said=f"in the slowest minute of the last hour {words.duration(max([*values, 0.0]))}",
        columns_said=("95 of 100 within",),
        rows=rows[::-1],
        legend=(),
    )
    return Line([" ".join(each) for each in stretches if len(each) > 1], dots, axes)


def _height(value: float, most: float) -> float:
    """Return a height that is seen: of what there is at all, a little."""
    return round(max(HEIGHT * value / most, 1.5), 1) if value else 0.0


def _times(slots: Sequence[datetime]) -> list[str]:
    """Return the labels at the foot: the first slot, the last, and some between at equal distances."""
    last = len(slots) - 1
    return [f"{slots[round(last * i / (_TIMES - 1))]:%H:%M}" for i in range(_TIMES)]


def _round_up(value: float) -> float:
    """Return the next 2, 4, 10, 20, 40, 50, 100 … : it and its half are whole numbers."""
    power = 10.0 ** max(math.floor(math.log10(max(value, 1.0))), 0)
    return next(m * power for m in (1, 2, 4, 5, 10) if m * power >= value and m * power % 2 == 0)


def _whole(ms: float) -> str:
    return words.duration(ms).replace(".0 s", " s")


def _round_up_ms(value: float) -> float:
    """Return the next length of time that reads well: 10 ms, 1 s, 20 s, 1 min, 2 h …"""
    for size, steps in ((1, (10, 20, 50, 100, 200, 500)), (1_000, (1, 2, 4, 10, 20)),
                        (60_000, (1, 2, 4, 10, 20)), (3_600_000, (1, 2, 4, 12, 24))):  # fmt: skip
        for step in steps:
            if value <= step * size:
                return float(step * size)
    return math.ceil(value / 86_400_000 / 2) * 2 * 86_400_000.0
