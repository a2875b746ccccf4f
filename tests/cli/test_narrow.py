"""What the commands print fits a terminal of any usual width, with and without colours."""

import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from stepbase.history import shown

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LONG = "laboratory-of-long-names-reconcile-the-ledger-of-all-merchants-at-the-end-of-the-quarter"
ERROR = '{"name": "RuntimeError", "message": "the bank answered 503: try later"}'


def _run(function: str, status: str = "Failed") -> dict[str, Any]:
    return {"run_id": "01M87J3S6Y3ACX2MEV3XY7A2ZQ", "function": function, "status": status,
            "event": "shop/order.placed", "created_at": NOON, "age_ms": 74_000.0, "steps": 10,
            "failed_attempts": 5, "error": ERROR, "waits": None, "ended_at": NOON,
            "started_at": NOON, "cause": "event", "event_id": "e", "parent_run": None,
            "original_run_id": None, "output": None}  # fmt: skip


def _printed(width: int, print_it: Any, *args: Any, colours: bool = True) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, no_color=not colours)
    print_it(console, *args)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("width", [80, 120])
def test_runs_fit_and_say_status_and_cause(width: int, colours: bool) -> None:
    rows = [_run("shop-checkout"), _run(LONG)]

    lines = _printed(width, shown.runs, rows, colours=colours)

    assert all(len(line) <= width for line in lines)
    for line in (lines[1], lines[3]):
        assert line.startswith("01M87J3S6Y3ACX2MEV3XY7A2ZQ  ") and "Failed" in line
        assert "1 min 14 s" in line and "10 (5✗)" in line
    assert "shop-checkout" in lines[1] and "laboratory" in lines[3] and "…" in lines[3]
    assert lines[2].strip() == "RuntimeError: the bank answered 503: try later"


def test_there_is_room_for_all_columns_on_a_wide_terminal() -> None:
    [head, line, _] = _printed(120, shown.runs, [_run("shop-checkout")])

    assert head.split()[:4] == ["run", "function", "status", "event"]
    assert "shop/order.placed" in line and "2026-11-24 12:00:00" in line


@pytest.mark.parametrize("width", [80, 120])
def test_a_trace_fits_and_says_one_error_once(width: int) -> None:
    steps = [("load-all-transactions-of-the-quarter-from-the-warehouse", "step", None),
             *(("transfer", "failed attempt", n) for n in range(3))]  # fmt: skip
    timeline = [
        {"at": NOON + timedelta(seconds=n), "what": what, "name": name, "status": "done" if attempt is None
         else "HTTP 206", "attempt": attempt or 0, "ms": 400.0, "op": "StepRun",
         "error": None if attempt is None else ERROR}
        for n, (name, what, attempt) in enumerate(steps)
    ]  # fmt: skip
    found = {"run": _run("shop-checkout"), "timeline": timeline, "waits": [], "invoked": []}

    lines = _printed(width, shown.trace, found, NOON)

    bars = lines[3:8]
    assert all(len(line) <= width for line in bars)
    assert "done" in bars[1] and "█" in bars[1] and "400 ms" in bars[1]
    assert sum("503" in line for line in lines) == 2  # of the attempts, and of the run
    assert "attempts 0, 1, 2 of transfer: RuntimeError: the bank answered 503: try later" in lines
