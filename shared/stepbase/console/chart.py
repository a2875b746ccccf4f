"""Small charts as numbers for SVG: columns for counts, a line for times. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stepbase.console import words

WIDTH, HEIGHT = 600.0, 90.0


@dataclass(frozen=True, slots=True)
class Column:
    """One minute: `x`, `width`, and the heights of its two parts from the bottom."""

    x: float
    width: float
    height: float
    bad: float
    said: str


@dataclass(frozen=True, slots=True)
class Columns:
    """A column chart; `most` is what its full height stands for."""

    columns: Sequence[Column]
    most: int
    said: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line chart: an SVG polyline and its dots (x, y, said); `most` is what its full height stands for."""

    points: str
    dots: Sequence[tuple[float, float, str]]
    most: float


def columns(slots: Sequence[datetime], counts: Sequence[float], bad: Sequence[float]) -> Columns:
    """Lay out one column a slot: `bad` of the `counts` at its foot."""
    most = max([*counts, 1.0])
    step = WIDTH / len(slots)
    made = [
        Column(
            x=round(i * step, 1),
            width=round(step * 0.8, 1),
            height=round(HEIGHT * count / most, 1),
            bad=round(HEIGHT * failed / most, 1),
            said=f"{slot:%H:%M}: {count:.0f} runs ended, {failed:.0f} failed",
        )
        for i, (slot, count, failed) in enumerate(zip(slots, counts, bad, strict=True))
    ]
    said = f"{sum(counts):.0f} runs ended in the last hour, {sum(bad):.0f} of them failed"
    return Columns(made, int(most), said)


def line(slots: Sequence[datetime], values: Sequence[float]) -> Line:
    """Lay out a line through the slots that have a value."""
    most = max([*values, 1.0])
    step = WIDTH / len(slots)
    dots = [
        (
            round((i + 0.4) * step, 1),
            round(HEIGHT * (1 - value / most), 1),
            f"{slot:%H:%M}: {words.duration(value)}",
        )
        for i, (slot, value) in enumerate(zip(slots, values, strict=True))
        if value
    ]
    return Line(" ".join(f"{x},{y}" for x, y, _ in dots), dots, most)
