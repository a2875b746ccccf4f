"""The notebook and the snippets for the dashboard: their SQL says something, and the CLI takes them."""

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.conftest import Connect
from tests.monitor.fill import fill
from tests.repo.pages import blocks
from tests.repo.tree import ROOT
from tests.support import supabase_cli
from tests.support.management_api import REF, TOKEN, management_api

NOTEBOOK = ROOT / "supabase" / "notebooks" / "workflow-runs.json"
SNIPPETS = sorted((ROOT / "supabase" / "snippets").glob("*.sql"))
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["content"]["cells"]
QUERIES = [cell for cell in CELLS if cell["type"] == "database"]


@pytest.fixture
async def history(connect: Connect) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with a small history."""
    connection = await connect()
    await fill(connection)
    yield connection


async def test_every_cell_shows_something_and_charts_have_their_columns(
    history: asyncpg.Connection,
) -> None:
    """As service_role, which may look and no more."""
    await history.execute("set role service_role")
    assert len(QUERIES) == 11

    for cell in QUERIES:
        rows = await history.fetch(cell["sql"])
        assert rows, cell["title"]
        assert any(value is not None for value in rows[0].values()), cell["title"]
        if cell.get("view") == "chart":
            chart = cell["chart"]
            assert chart["x_column"] in rows[0], cell["title"]
            for series in chart["y_series"]:
                value = rows[0][series["column"]]
                assert isinstance(value, int | float | Decimal), (cell["title"], series)


async def test_the_cells_say_what_happened(history: asyncpg.Connection) -> None:
    said = {cell["title"]: await history.fetch(cell["sql"]) for cell in QUERIES}

    [now] = said["How it looks right now"]
    # 55 runs a minute apart, three that wait.
    assert 57 <= now["runs_last_hour"] <= 58
    assert tuple(now)[1:3] == (5, 1) and now["dead_events"] == 1
    failing = said["Functions that fail, last 24 hours"]
    assert [(row["function"], row["failed"]) for row in failing] == [
        ("currency-award", 4), ("currency-reverse", 1),
    ]  # fmt: skip
    assert failing[0]["last_error"] == "post_wallet_transaction: the wallet is closed (P0001)"
    steps = said["Steps with failed attempts, last 24 hours"]
    assert {row["step"] for row in steps} == {"post_wallet_transaction"}
    waiting = said["What live runs wait for, the next first"]
    assert sorted(row["waits_for"] for row in waiting) == ["event", "event", "sleep"]
    [stuck] = said["Events that started nothing, last 7 days"]
    assert stuck["why"] == "orders-follow-up rate_limited"


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
async def test_every_snippet_says_what_it_is_and_shows_something(
    history: asyncpg.Connection, path: Path
) -> None:
    text = path.read_text("utf-8")

    assert text.startswith("-- ") and text.endswith(";\n")
    rows = await history.fetch(text)
    assert rows and any(value is not None for value in rows[0].values())


def test_the_cli_pushes_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "supabase" / "notebooks").mkdir(parents=True)
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "shop"\n')
    (tmp_path / "supabase" / "notebooks" / NOTEBOOK.name).write_bytes(NOTEBOOK.read_bytes())
    with management_api() as api:
        profile = api.write_profile(tmp_path)
        for _ in range(2):  # the second time it is there already
            done = supabase_cli.run(
                "notebooks", "push", "workflow-runs", f"--remote={REF}", "--yes", cwd=tmp_path,
                environment={"SUPABASE_ACCESS_TOKEN": TOKEN, "SUPABASE_PROFILE": str(profile)},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr

    pushed = api.notebooks["workflow-runs"]
    assert pushed["content"]["cells"] == CELLS
    assert pushed["description"] == json.loads(NOTEBOOK.read_text("utf-8"))["description"]


def test_the_cli_refuses_a_cell_of_another_form(tmp_path: Path) -> None:
    """So that the test above can fail."""
    folder = tmp_path / "supabase" / "notebooks"
    folder.mkdir(parents=True)
    (tmp_path / "supabase" / "config.toml").write_text('project_id = "shop"\n')
    broken = json.loads(NOTEBOOK.read_text("utf-8"))
    broken["content"]["cells"][0]["type"] = "markup"
    (folder / NOTEBOOK.name).write_text(json.dumps(broken))
    with management_api() as api:
        done = supabase_cli.run(
            "notebooks", "push", "workflow-runs", f"--remote={REF}", "--yes", cwd=tmp_path,
            environment={
                "SUPABASE_ACCESS_TOKEN": TOKEN,
                "SUPABASE_PROFILE": str(api.write_profile(tmp_path)),
            },
        )  # fmt: skip

    assert done.returncode != 0 and not api.notebooks


async def test_the_results_on_the_page_are_those_of_the_history(
    history: asyncpg.Connection,
) -> None:
    shown = "\n".join(
        block.text for block in blocks(ROOT / "docs" / "monitoring.md") if block.language == "text"
    )
    for sql in (
        "select function, failed, ended, failed_percent from stepbase.failing_functions",
        "select function, step, failed_attempts, runs, still_live from stepbase.failing_steps",
        "select function, step, count, median_ms, p95_ms, retried from stepbase.slow_steps",
        "select function, step, waits_for, what from stepbase.waiting_runs order by since",
    ):
        assert as_text(await history.fetch(sql)) in shown, as_text(await history.fetch(sql))


async def test_what_to_watch_is_asked_of_the_history(history: asyncpg.Connection) -> None:
    """Every statement of the table of alarms gives one number."""
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    asked = re.findall(r"^\| `(select [^`]+)` \|", page, re.MULTILINE)
    await history.execute("set role service_role")
    values = {sql: await history.fetchval(sql) for sql in asked}

    assert len(values) == 8
    assert all(isinstance(value, int | Decimal) for value in values.values()), values
    assert values["select dead from stepbase.outbox_health"] == 1


def as_text(rows: list[asyncpg.Record]) -> str:
    """Write rows as the page shows them."""
    cells = [
        list(rows[0].keys()),
        *([str(v if v is not None else "") for v in row] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
    return "\n".join(lines) + "\n"
