"""What a person sees of the demo: on a terminal a bar that moves, elsewhere plain lines."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from stepbase import clock
from stepbase.demo.books import Standing
from stepbase.demo.fate import DELAYED_MERCHANT, merchants

_PLAIN_STEP = 0.2
_SHOWN_PROBLEMS = 30

_COLUMNS = (
    ("\nSold", "purchases"),
    ("\nAwarded", "awarded"),
    ("Too\nsmall", "too_small"),
    ("Refunded\nin time", "refunded_in_time"),
    ("Taken\nback", "taken_back"),
    ("Points\ndue", "due"),
    ("Points\nbooked", "booked"),
)
_LEGEND = (
    "Too small: the award rounds down to nothing, so there is no transaction.",
    "Refunded in time: before an award was posted. Taken back: posted, then reversed.",
)
_OK = "every wallet is right to the cent: nothing lost, doubled or left over"


class Terminal:
    """Tells the story line by line, each with the seconds since the beginning."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = clock.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._next_share = _PLAIN_STEP

    def title(self, text: str) -> None:
        """Print a headline."""
        self._console.print(Text(text, style="bold"))

    def say(self, text: str) -> None:
        """Print one line."""
        self._line(text, "")

    def shout(self, text: str) -> None:
        """Print one line that must be seen."""
        self._line(text, "bold yellow")

    def progress(self, standing: Standing, runs: int) -> None:
        """Show how things stand; `runs` is how many runs there will be."""
        if self._console.is_terminal:
            self._move(standing, runs)
        elif standing.ended >= self._next_share * runs:
            while standing.ended >= self._next_share * runs:
                self._next_share += _PLAIN_STEP
            self.say(f"{standing.ended:,} of {runs:,} runs have ended: {_summary(standing)}")

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def verdict(self, report: Mapping[str, Any]) -> None:
        """Print the table, and OK or what differs."""
        self._console.print(_table(report))
        for text in _LEGEND:
            self._console.print(Text(text, "dim"))
        totals = report["totals"]
        self._console.print(
            f"\n{totals['runs_completed']:,} award runs completed, {totals['runs_skipped']:,} of them "
            f"without an award because they saw the refund; {totals['runs_cancelled']:,} were cancelled "
            f"by a refund. {totals['customers']:,} customers' wallets compared.",
            highlight=False,
        )
        if report["ok"]:
            self._console.print(Text("OK", "bold green"), Text(_OK))
        else:
            self._differences(report)

    def _differences(self, report: Mapping[str, Any]) -> None:
        problems: Sequence[Mapping[str, str]] = report["problems"]
        for each in problems[:_SHOWN_PROBLEMS]:
            kind = Text(f"{each['kind']:>8}  ", "bold red")
            self._print(kind, f"{each['subject']}: {each['text']}")
        if len(problems) > _SHOWN_PROBLEMS:
            self._console.print(f"          … and {len(problems) - _SHOWN_PROBLEMS} more")
        counts = ", ".join(
            f"{report[kind]} {kind}" for kind in ("lost", "doubled", "stuck", "wrong")
        )
        self._console.print(Text(f"NOT OK: {counts}", "bold red"))

    def _line(self, text: str, style: str) -> None:
        self._print(Text(f"{clock.monotonic() - self._began:5.1f} s  ", "dim"), text, style)

    def _print(self, first: Text, text: str, style: str = "") -> None:
        """Print `first` and the text beside it; only a terminal has a width to keep to."""
        if not self._console.is_terminal:
            self._console.print(first, Text(text, style), sep="", soft_wrap=True)
            return
        grid = Table.grid()
        grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(first, Text(text, style))
        self._console.print(grid)

    def _move(self, standing: Standing, runs: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                BarColumn(bar_width=16),
                TextColumn("{task.completed:,}/{task.total:,} runs  {task.description}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=runs)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=standing.ended, description=_summary(standing))


def _summary(standing: Standing) -> str:
    parts = [
        f"{standing.awards:,} awards",
        f"{standing.waiting} wait",
        f"{standing.cancelled} cancelled",
        f"{standing.reversals} taken back",
    ]
    return " · ".join([*parts, f"{standing.failed} failed"] if standing.failed else parts)


def _table(report: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, show_edge=False, padding=(0, 1, 0, 0))
    totals = report["totals"]
    table.add_column("\nMerchant", "all")
    table.add_column("\nRate", justify="right")
    for title, name in _COLUMNS:
        table.add_column(title, f"{totals[name]:,}", justify="right", no_wrap=True)
    table.add_column("", _tick(report["ok"]))
    for merchant in merchants(0):
        row = report["merchants"].get(merchant.merchant_id)
        if row is not None:
            delays = " delays" if merchant.merchant_id == DELAYED_MERCHANT else ""
            table.add_row(
                f"{merchant.merchant_id}{delays}",
                f"{merchant.rate_bp / 100:.2f}%",
                *(f"{row[name]:,}" for _, name in _COLUMNS),
                _tick(row["due"] == row["booked"]),
            )
    return table


def _tick(is_right: bool) -> Text:
    return Text("✓", "green") if is_right else Text("✗", "bold red")
