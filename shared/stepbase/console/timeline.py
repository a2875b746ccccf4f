"""A run drawn to scale: one line a step, parallel ones side by side. Pure.

Positions are in thousandths of the run's length, which the page draws as SVG.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stepbase.console import words

_WHOLE = 1000.0
_LEAST = 3.0
_TICKS = 5
# Milliseconds, and how many of that unit are one step of a scale.
_STEPS = (
    (0.001, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    (1, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    (1_000, (1, 2, 5, 10, 15, 30)),
    (60_000, (1, 2, 5, 10, 15, 30)),
    (3_600_000, (1, 2, 4, 6, 12)),
    (86_400_000, (1,)),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt of a step, at a place on its line."""

    at: datetime
    x: float
    attempt: int
    id: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the drawing.

    Attributes:
        hash: The step's, or "" for the run's own lines.
        kind: ``"queued"``, ``"code"``, ``"step"``, ``"sleep"``, ``"wait"``, ``"invoke"`` or ``"request"``.
        status: As the step's, or the run's.
        x: Where it begins, and `width` how long it is, in thousandths.
        said: How long it took or what it waits for.
        failures: Its failed attempts.
        lead: Where what it waited before it ran is drawn, and how long that is, in thousandths.
        waited: The same in words: since the step before it ended, its failed attempts included.
    """

    hash: str
    name: str
    kind: str
    status: str
    x: float
    width: float
    said: str
    began: datetime
    ended: datetime | None
    failures: Sequence[Failure] = ()
    lead: tuple[float, float] = (0.0, 0.0)
    waited: str = ""
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """How many attempts there were, if it is something that is attempted; else 0."""
        is_tried = bool(self.hash) and self.kind in ("step", "request")
        return len(self.failures) + (self.status == "done") if is_tried else 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """The drawing: bars from top to bottom, and the scale above them."""

    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]
    took: timedelta


def draw(
    run: Mapping[str, object],
    steps: Sequence[Mapping[str, object]],
    failures: Sequence[Mapping[str, object]],
    now: datetime,
) -> Timeline:
    """Lay out a run.

    Args:
        run: `created_at`, `started_at`, `ended_at`, `status`.
        steps: Rows of `stepbase.get_trace`.
        failures: Rows of `stepbase.get_attempts`; those without a step belong to the code between steps.
        now: The end of what has not ended.
    """
    begin = _instant(run["created_at"])
    ended = run["ended_at"]
    end = ended if isinstance(ended, datetime) else now
    scale = _Scale(begin, max(end, begin + timedelta(milliseconds=1)))
    bars: list[Bar] = []
    started = run["started_at"]
    if isinstance(started, datetime):
        bars.append(_queued(scale, begin, started))
    floor = started if isinstance(started, datetime) else begin
    ends = sorted(each for row in steps if isinstance(each := row["ended_at"], datetime))
    lines = [_step(scale, each, failures, now, _ready(each, ends, floor)) for each in steps]
    between = [each for each in failures if each["hash"] is None]
    if between:
        lines.append(_between(scale, between))
    bars += sorted(lines, key=lambda bar: bar.began)
    return Timeline(bars, scale.ticks(), scale.end - scale.begin)


@dataclass(frozen=True, slots=True)
class _Scale:
    begin: datetime
    end: datetime

    def x(self, at: datetime) -> float:
        share = (at - self.begin) / (self.end - self.begin)
        return round(min(max(share, 0.0), 1.0) * _WHOLE, 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return some four to six places with times that read well."""
        whole = (self.end - self.begin).total_seconds() * 1_000
        step = _step_of_scale(whole / _TICKS)
        return [
            (round(_WHOLE * i * step / whole, 1), words.duration(i * step).replace(".0 s", " s"))
            for i in range(int(whole // step) + 1)
        ]

    def span(self, begin: datetime, end: datetime) -> tuple[float, float]:
        """Return where a span begins and how long it is; never too short to be seen."""
        x, until = self.x(begin), self.x(end)
        width = max(until - x, _LEAST)
        return min(x, _WHOLE - width), round(width, 1)


def _step_of_scale(least: float) -> float:
    """Return the next length of time (ms) that divides a scale well."""
    for unit, counts in _STEPS:
        for count in counts:
            if unit * count >= least:
                return float(unit * count)
    day = 86_400_000
    power = 10 ** math.floor(math.log10(least / day))
    return float(day * power * next(n for n in (1, 2, 5, 10) if n * power * day >= least))


def _instant(value: object) -> datetime:
    assert isinstance(value, datetime), f"expected an instant, got {value!r}"
    return value


def _queued(scale: _Scale, begin: datetime, started: datetime) -> Bar:
    x, width = scale.span(begin, started)
    said = words.between(started - begin)
    return Bar("", "in the queue", "queued", "done", x, width, said, begin, started)


def _between(scale: _Scale, failures: Sequence[Mapping[str, object]]) -> Bar:
    marks = _marks(scale, failures)
    x, width = scale.span(marks[0].at, marks[-1].at)
    return Bar(
        "", "code between steps", "code", "failed", x, width, "", marks[0].at, marks[-1].at, marks
    )


def _step(
    scale: _Scale,
    step: Mapping[str, object],
    failures: Sequence[Mapping[str, object]],
    now: datetime,
    ready: datetime,
) -> Bar:
    began = _instant(step["started_at"])
    ended = step["ended_at"] if isinstance(step["ended_at"], datetime) else None
    x, width = scale.span(began, ended or now)
    from_x = min(scale.x(ready), x)
    own = [each for each in failures if each["hash"] == step["hash"]]
    return Bar(
        hash=str(step["hash"]),
        name=str(step["name"]),
        kind=_kind(str(step["op"])),
        status=str(step["status"]),
        x=x,
        width=width,
        said=words.between((ended or now) - began) if ended else _waits_for(step),
        began=began,
        ended=ended,
        failures=_marks(scale, own),
        lead=(from_x, round(x - from_x, 1)),
        waited=words.between(began - ready) if began > ready else "",
        more=step,
    )


def _ready(step: Mapping[str, object], ends: Sequence[datetime], floor: datetime) -> datetime:
    """Return since when a step could have run: the end of the step before it, or the start of the run."""
    began = _instant(step["started_at"])
    before = bisect.bisect_left(ends, began) - 1
    return min(max(ends[before], floor) if before >= 0 else floor, began)


def _marks(scale: _Scale, failures: Sequence[Mapping[str, object]]) -> list[Failure]:
    marks = []
    for each in failures:
        at, attempt, row = _instant(each["at"]), each["attempt"], each["id"]
        assert isinstance(attempt, int) and isinstance(row, int), "columns of integers"
        marks.append(Failure(at, scale.x(at), attempt, row))
    return marks


def _kind(op: str) -> str:
    if op in ("WaitForEvent", "WaitForSignal"):
        return "wait"
    return {
        "Sleep": "sleep",
        "InvokeFunction": "invoke",
        "Gateway": "request",
        "AIGateway": "request",
    }.get(op, "step")


def _waits_for(step: Mapping[str, object]) -> str:
    """Say what an open step waits for."""
    due = step["due_at"]
    until = f" until {due:%d %b %H:%M:%S} UTC" if isinstance(due, datetime) else ""
    if step["is_leased"]:
        return "being called"
    if step["event_name"]:
        return f"waits for {step['event_name']}{until}"
    if step["status"] == "sleeping":
        return f"asleep{until}"
    if step["status"] == "invoking":
        return f"waits for the function it invoked{until}"
    return f"next attempt{until}" if until else "is planned"
