"""How runs, events and one run's timeline look: coloured and to the terminal's width, or plain when piped."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stepbase.history import timeline
from stepbase.history.timeline import Line, clock, one_line, said, took

_STYLES = {
    "Completed": "green", "done": "green", "Failed": "red", "failed": "red", "Cancelled": "yellow",
    "cancelled": "yellow", "Running": "cyan", "asleep": "cyan", "waits": "cyan",
}  # fmt: skip
_BAR_STYLES = {"ran": "green", "waited": "cyan", "failed": "red"}
_LEAST_BAR, _MOST_BAR = 16, 60
_MOST_ATTEMPTS = 10
# What columns are cut down to where there is little room: a ULID, and what is not.
_ID, _SHORT = 26, 20

Cells = Sequence[Sequence[str]]


def runs(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print runs."""
    head = ("run", "function", "status", "event", "made (UTC)", "age", "steps", "")
    cells = [
        (
            row["run_id"],
            row["function"] or "(unknown)",
            row["status"],
            row["event"] or "(gone)",
            clock(row["created_at"]),
            took(row["age_ms"]),
            str(row["steps"]) + (f" ({row['failed_attempts']}✗)" if row["failed_attempts"] else ""),
            said(row["error"]) or row["waits"] or "",
        )
        for row in rows
    ]
    _table(console, head, cells, status_at=2, spare=("event", "made (UTC)", "steps"))


def events(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print events."""
    head = ("event", "name", "sender's id", "received (UTC)", "started", "")
    cells = [
        (
            row["id"],
            row["name"],
            row["event_id"] or "",
            clock(row["received_at"]),
            row["started"] or "nothing",
            _why_nothing(row),
        )
        for row in rows
    ]
    _table(console, head, cells, spare=("sender's id", "received (UTC)"))


def _why_nothing(row: Mapping[str, Any]) -> str:
    if row["not_started"]:
        return f"not started: {row['not_started']}"
    if row["started"]:
        return ""
    return "no function has it as trigger, or no condition holds: compare stepbase functions"


def functions(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print functions, with `triggers` in words."""
    head = ("function", "state", "live", "failed", "median", "95 %", "last run (UTC)", "starts")
    cells = [
        (
            row["slug"],
            "paused" if row["paused_at"] else "on",
            str(row["live"]),
            f"{row['failed']} of {row['ended']}",
            took(row["p50_ms"]),
            took(row["p95_ms"]),
            clock(row["last_at"]),
            " · ".join(row["triggers"]),
        )
        for row in rows
    ]
    _table(console, head, cells, spare=("last run (UTC)", "median"))


def apps(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print apps."""
    head = ("app", "serve URL", "SDK", "functions", "last sync (UTC)", "last change (UTC)", "")
    cells = [
        (
            row["name"],
            row["url"],
            " on ".join(filter(None, [row["sdk"], row["framework"]])),
            str(row["functions"]),
            clock(row["synced_at"]),
            f"{clock(row['changed_at'])}: {row['last_change']}",
            f"sync failed: {row['error']} {row['remedy']}" if row["error"] else "",
        )
        for row in rows
    ]
    _table(console, head, cells, spare=("SDK", "last sync (UTC)"))


def news(console: Console, row: Mapping[str, Any]) -> None:
    """Print one thing that has happened, as `tail` returns them."""
    line = Text.assemble(
        (f"{row['at']:%H:%M:%S}", "dim"),
        f"  {row['what']:<9}",
        style=_STYLES.get(str(row["what"]).capitalize(), ""),
    )
    line.append(f"  {row['name'] or '(unknown)'}  {row['id']}", "")
    if row["text"]:
        line.append(f"  {one_line(row['text'], 300)}", "dim")
    console.print(line, highlight=False, soft_wrap=True)


def trace(console: Console, found: Mapping[str, Any], now: datetime) -> None:
    """Print a run: what it is, a line for each thing that happened, how it ended and what it called."""
    run = found["run"]
    shown = timeline.build(found, now)
    for text in _head(run):
        console.print(text, highlight=False, soft_wrap=True)
    console.print()
    if console.is_terminal:
        console.print(_bars(shown, console.width), highlight=False)
        for error in _errors(shown, run["error"])[:_MOST_ATTEMPTS]:
            console.print(Text(error, "red dim"), highlight=False, soft_wrap=True)
    else:
        _plain(console, ("step", "status", "at", "took", "note"), [_cells(x) for x in shown.lines])
    for text in _tail(found):
        console.print(text, highlight=False, soft_wrap=True)


def _head(run: Mapping[str, Any]) -> list[Text]:
    spent = took(run["age_ms"])
    first = Text.assemble(
        (run["run_id"], "bold"),
        f"  {run['function'] or '(unknown function)'}  ",
        (run["status"], _STYLES.get(run["status"], "")),
        f" after {spent}" if run["ended_at"] else f" for {spent}",
    )
    about = (
        f"made {clock(run['created_at'])} UTC by {run['cause']} {run['event'] or '(event gone)'}"
    )
    lines = [first, Text(one_line(f"{about}, id {run['event_id'] or '?'}", 300))]
    if run["parent_run"]:
        lines.append(Text(f"called by a step of run {run['parent_run']}"))
    if run["original_run_id"]:
        lines.append(Text(f"a repetition of run {run['original_run_id']}"))
    return lines


def _tail(found: Mapping[str, Any]) -> list[Text]:
    run = found["run"]
    lines = [
        Text(
            f"called {child['run_id']}  {child['function']}  {child['status']}  {took(child['age_ms'])}"
        )
        for child in found["invoked"]
    ]
    for i, text in enumerate(timeline.causes(run["error"])):
        lines.append(Text(f"{'  because of ' if i else 'error: '}{text}", "red"))
    if run["output"] is not None:
        lines.append(Text(f"output: {one_line(run['output'], 300)}"))
    if run["ended_at"] is None and run["waits"]:
        lines.append(Text(f"now: {run['waits']}"))
    return [Text(), *lines] if lines else []


def _errors(shown: timeline.Timeline, last: str | None) -> list[str]:
    """Say what attempts failed of, those of a step with the same error in one line.

    Of the code between steps, the error that the run ended with is said at the end.
    """
    said_of: dict[tuple[str, str], list[str]] = {}
    for line in shown.lines:
        if line.kind == "failed":
            number, _, step = line.name.strip().removeprefix("attempt ").partition(" of ")
            said_of.setdefault((step, line.note), []).append(number)
    return [
        f"attempt{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} of {step}: {note}"
        for (step, note), numbers in said_of.items()
        if step != "(between steps)" or note != said(last)
    ]


def _cells(line: Line) -> tuple[str, ...]:
    spent = took(line.ms) if line.kind != "failed" else ""
    return (line.name, line.status, f"+{took(line.at)}", spent, line.note)


def _named(line: Line, most: int) -> str:
    indent = len(line.name) - len(line.name.lstrip())
    return " " * indent + _cut(line.name.strip(), most - indent)


def _bars(shown: timeline.Timeline, width: int) -> Table:
    """Draw the lines; errors of attempts are said below, where there is room."""
    names = max(_SHORT, width // 3)
    cells = [
        (_named(line, names), *_cells(line)[1:4], "" if line.kind == "failed" else line.note)
        for line in shown.lines
    ]
    taken = sum(max((len(row[i]) for row in cells), default=0) + 2 for i in range(4))
    longest = max((len(row[4]) for row in cells), default=0)
    notes = min(longest, max(0, width - taken - _LEAST_BAR - 4))
    room = max(_LEAST_BAR, min(_MOST_BAR, width - taken - notes - 3))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for i, (name, style) in enumerate((("step", ""), ("status", ""), ("at", "dim"), ("took", ""))):
        least = max((len(row[i]) for row in cells), default=0)
        table.add_column(
            name,
            style=style,
            no_wrap=True,
            min_width=least,
            justify="right" if name == "at" else "left",
        )
    table.add_column(f"0 … {took(shown.total)}", no_wrap=True, min_width=room)
    table.add_column("", no_wrap=True, overflow="ellipsis", style="dim", max_width=notes or None)
    for line, row in zip(shown.lines, cells, strict=True):
        table.add_row(
            Text(row[0]),
            Text(row[1], _STYLES.get(row[1], "red" if line.kind == "failed" else "")),
            row[2],
            row[3],
            Text(shown.bar(line, room), _BAR_STYLES[line.kind]),
            Text(row[4]),
        )
    return table


def _table(
    console: Console,
    head: Sequence[str],
    cells: Cells,
    *,
    status_at: int | None = None,
    spare: Sequence[str] = (),
) -> None:
    """Write columns; on a terminal the last one, which may be long, goes into lines of its own.

    Where there is little room the columns `spare` are left out, the first ones first; then names are cut.
    """
    flat = [[one_line(cell, 300) for cell in row] for row in cells]
    if not console.is_terminal:
        _plain(console, head, flat)
        return
    kept, widths = _fitted([list(head)[:-1], *(row[:-1] for row in flat)], spare, console.width)
    console.print(Text(_row(head, kept, widths), "dim"), no_wrap=True, overflow="ellipsis")
    for row in flat:
        text = Text(_row(row, kept, widths))
        if status_at is not None:
            text.highlight_words([row[status_at]], _STYLES.get(row[status_at], ""))
        console.print(text, no_wrap=True, overflow="ellipsis", highlight=False)
        if row[-1]:
            console.print(
                Padding(Text(row[-1], "dim"), (0, 0, 0, 2), expand=False), highlight=False
            )


def _fitted(rows: Cells, spare: Sequence[str], room: int) -> tuple[list[int], list[int]]:
    """Return which columns are shown in so many characters, and how wide each is."""
    kept, widths = list(range(len(rows[0]))), _widths(rows)

    def over(wanted: Sequence[int]) -> int:
        return sum(wanted[i] for i in kept) + 2 * (len(kept) - 1) - room

    least = [width if width <= _SHORT else _SHORT for width in widths]
    least[0] = min(widths[0], _ID)
    for name in spare:
        if over(least) > 0:
            kept.remove(rows[0].index(name))
    while over(widths) > 0 and any(widths[i] > least[i] for i in kept):
        widest = max((i for i in kept if widths[i] > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return kept, widths


def _row(row: Sequence[str], kept: Sequence[int], widths: Sequence[int]) -> str:
    return _joined([_cut(row[i], widths[i]) for i in kept], [widths[i] for i in kept]).rstrip()


def _cut(text: str, most: int) -> str:
    """Shorten a name in its middle: many names begin alike, and many end alike."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def _plain(console: Console, head: Sequence[str], cells: Cells) -> None:
    """Write columns of text: nothing is cut off, so other programs can read it."""
    rows = [list(head), *(list(row) for row in cells)]
    widths = _widths(rows)
    for row in rows:
        console.print(_joined(row, widths).rstrip(), highlight=False, markup=False, soft_wrap=True)


def _widths(rows: Cells) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _joined(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
