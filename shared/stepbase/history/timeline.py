"""A run as lines with bars to scale: from the rows of the views to what a terminal draws. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

_OPEN: Final = {"sleeping": "asleep", "waiting": "waits", "invoking": "waits", "planned": "planned"}
_MARKS: Final = {"ran": "█", "waited": "░", "failed": "✗"}
_MAX_CAUSES = 5
_WAITS = ("Sleep", "WaitForEvent", "WaitForSignal", "InvokeFunction")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a timeline.

    Attributes:
        name: The step, or a failed attempt of one (indented).
        status: done, failed, asleep, waits, planned, cancelled, or the attempt's HTTP status.
        at: Milliseconds after the run was made.
        ms: How long it took, or None while it goes on.
        kind: ran, waited or failed: how its bar looks.
        note: What else there is to say: an error, or until when it waits.
    """

    name: str
    status: str
    at: float
    ms: float | None
    kind: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lines of a run, and how long it took or has been going on (milliseconds)."""

    lines: Sequence[Line]
    total: float

    def bar(self, line: Line, width: int) -> str:
        """Return a line's bar: where in the run it was, to scale; at least one character."""
        scale = width / max(self.total, 1e-9)
        first = min(width - 1, max(0, math.floor(line.at * scale)))
        length = self.total - line.at if line.ms is None else line.ms
        last = min(width, max(first + 1, math.ceil((line.at + length) * scale)))
        if line.kind == "failed":
            last = first + 1
        return (" " * first + _MARKS[line.kind] * (last - first)).ljust(width)


def build(trace: Mapping[str, Any], now: datetime) -> Timeline:
    """Turn what `reads.trace` returns into lines, in the order in which things began."""
    run = trace["run"]
    begin: datetime = run["created_at"]
    waits = {wait["step"]: wait for wait in trace["waits"]}
    lines = []
    if run["started_at"] is not None and _ms(begin, run["started_at"]) >= 1:
        lines.append(Line("(queued)", "", 0.0, _ms(begin, run["started_at"]), "waited"))
    for row in trace["timeline"]:
        at = _ms(begin, row["at"])
        if row["what"] == "step":
            lines.append(_step(row, at, waits.get(row["name"])))
        elif row["what"] == "failed attempt":
            title = f"  attempt {row['attempt']} of {row['name']}"
            lines.append(
                Line(title, row["status"] or "no answer", at, 0.0, "failed", said(row["error"]))
            )
    for wait in trace["waits"]:
        if wait["waits_for"] in ("turn", "retry", "call") and wait["step"] is None:
            since = max(_ms(begin, wait["since"]), *(line.at for line in lines), 0.0)
            lines.append(Line("(next call)", "", since, None, "waited", _waiting(wait)))
    total = run["age_ms"] if run["ended_at"] is not None else _ms(begin, now)
    return Timeline(lines, max(total, *(line.at + (line.ms or 0) for line in lines), 1e-9))


def _step(row: Mapping[str, Any], at: float, wait: Mapping[str, Any] | None) -> Line:
    status = _OPEN.get(row["status"], row["status"])
    is_wait = status == "planned" or row["op"] in _WAITS
    note = "" if wait is None else _waiting(wait)
    if row["attempt"]:
        note = ", ".join(filter(None, [f"at attempt {row['attempt']}", note]))
    name = row["name"] or "(report lost)"
    return Line(name, status, at, row["ms"], "waited" if is_wait else "ran", note)


def _waiting(wait: Mapping[str, Any]) -> str:
    words = {
        "turn": "ready: an engine, a limit or a pause holds it back",
        "retry": f"try {wait['attempt']} is next",
        "call": "to be called",
        "event": f"for {wait['what'] or 'an event'}",
        "signal": f"for signal {wait['what'] or ''}".rstrip(),
        "invoke": f"for function {wait['what'] or ''}".rstrip(),
    }.get(wait["waits_for"], "")
    until = f"until {clock(wait['until'])}" if wait["until"] is not None else ""
    return " ".join(filter(None, [words, until]))


def causes(error: str | None) -> list[str]:
    """Return an error and what caused it, the outermost first, each as "Name: message"."""
    found: list[str] = []
    each = _loaded(error)
    while isinstance(each, dict) and len(found) < _MAX_CAUSES:
        name, message = str(each.get("name") or "Error"), str(each.get("message") or "")
        found.append(one_line(f"{name}: {message}" if message else name, 400))
        each = each.get("cause")
    return found


def said(error: str | None) -> str:
    """Return an error as one short line."""
    return next(iter(causes(error)), "")


def _loaded(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return {"name": "Error", "message": text}


def one_line(text: str, most: int) -> str:
    """Return a text without line breaks, control characters and what is too much."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def took(ms: float | None) -> str:
    """Write a span for people: 4 ms, 1.5 s, 2 min 5 s, 3 h 20 min, 7 d 2 h."""
    if ms is None:
        return ""
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f} s"
    seconds = round(ms / 1000)
    for unit, size, part, part_size in (
        ("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1),
    ):  # fmt: skip
        if seconds >= size:
            rest = seconds % size // part_size
            return f"{seconds // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds} s"


def clock(at: datetime | None) -> str:
    """Write a moment, in UTC as everywhere."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def _ms(begin: datetime, at: datetime) -> float:
    return (at - begin).total_seconds() * 1000
