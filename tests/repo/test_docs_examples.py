"""Every Python and SQL block of the docs runs, and gives what the page says.

The blocks of a page run in order, in one module and one database of their own; functions run in process,
their SQL calls through a real gateway. Some pages run on the real stack (test_docs_commands.py).
"""

import ast
import inspect
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from tests.repo.pages import Block, as_json, blocks, pages
from tests.repo.tree import ROOT, parsed, shown
from tests.support import mini_server
from tests.support.fake_api import Received, fake_api
from tests.support.gateway import running_gateway
from tests.support.mini_server import Run
from tests.support.sdk_calls import Reply, event
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, asgi
from stepbase.sdk import background, http
from stepbase.sdk.trigger import EventTrigger
from stepbase.supabase import client

ELSEWHERE = (
    "docs/moving-from-inngest.md",  # tests/interop/test_moving.py
    "docs/quickstart.md",  # test_docs_commands.py
    "docs/signed-in-users.md",  # test_docs_commands.py
)
WITH_EXAMPLES = [
    page
    for page in pages()
    if shown(page) not in ELSEWHERE and any(b.language in ("python", "sql") for b in blocks(page))
]


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module that a page's Python blocks are the content of."""
    made = ModuleType("docs_page")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that accepts every event, and knows of no run."""

    def accept(request: Received) -> tuple[int, Any]:
        if request.path == "/v1/signals":
            return 404, {"error": "No signal found", "status": 404}
        if request.method == "GET":
            return 200, {"data": []}
        return 200, {"ids": [f"id-{i}" for i, _ in enumerate(request.body)], "status": 200}

    with fake_api(accept) as api:
        monkeypatch.setenv("INNGEST_DEV", "1")
        monkeypatch.setenv("INNGEST_BASE_URL", api.url)
        yield


@pytest.fixture
async def loops() -> AsyncIterator[None]:
    """Close what the SDK keeps open between calls."""
    yield
    await http.aclose()
    http.close()
    background.stop()
    client.close()
    await client.aclose()


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=shown)
@pytest.mark.usefixtures("events", "loops")
async def test_examples_run(
    page: Path, module: ModuleType, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [block for block in blocks(page) if block.language in ("python", "sql")]
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.support.django_settings")
    connection = await asyncpg.connect(database)
    with ExitStack() as stack:
        if {block.language for block in found} == {"python", "sql"}:
            gateway = stack.enter_context(running_gateway(database))
            monkeypatch.setenv("SUPABASE_URL", gateway.url)
            monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
        for block in found:
            if block.language == "sql":
                await run_sql(connection, block)
                continue
            exec(_imports_of_its_file(block), module.__dict__)
            exec(compile(_on_its_line(block), block.page, "exec"), module.__dict__)
            for note in block.notes:
                await run_function(module, block, note)
            await run_tests(module, block)
    await connection.close()


def _imports_of_its_file(block: Block) -> str:
    """Return what an excerpt leaves out: the imports of the file that its first line names."""
    named = re.match(r"# (\S+\.py)\n", block.text)
    if named is None:
        return ""
    body = parsed(ROOT / named[1]).body
    return "\n".join(
        ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)
    )


def _on_its_line(block: Block) -> str:
    """Put a block where tracebacks name the page's own lines."""
    return "\n" * (block.line - 1) + block.text


async def run_tests(module: ModuleType, block: Block) -> None:
    """Run the tests that a block defines."""
    for name in re.findall(r"^(?:async )?def (test_\w+)", block.text, re.MULTILINE):
        running = getattr(module, name)()
        if inspect.isawaitable(running):
            await running


async def run_sql(connection: asyncpg.Connection, block: Block) -> None:
    wanted = {key: value for note in block.notes for key, value in note.items()}
    if "belongs_to" in wanted:
        await connection.execute("select stepbase.outbox_claim($1, true)", wanted["belongs_to"])
    if "raises" in wanted:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await connection.execute(block.text)
        assert caught.value.sqlstate == wanted["raises"], (block.where, caught.value)
        return
    if "rows" not in wanted:
        await connection.execute(block.text)
        return
    *before, last = [part for part in block.text.split(";\n") if part.strip()]
    for statement in before:
        await connection.execute(statement)
    rows = await connection.fetch(last)
    assert [[as_json(value) for value in row] for row in rows] == wanted["rows"], block.where


async def run_function(module: ModuleType, block: Block, note: dict[str, Any]) -> None:
    app = _app_with(module, note["run"])
    ask = ask_asgi(asgi(app))

    async def post(query: str, body: bytes) -> Reply:
        return await ask("POST", query=query, body=body)

    run: Run = await mini_server.finish(
        post, note["run"], _event_for(app, note), answers=note.get("answers")
    )

    where = f"{block.where}: {run.error or run.output!r}"
    if "ops" in note:
        assert run.shown == note["ops"], where
    if "fails" in note:
        assert run.error is not None and run.error["name"] == note["fails"], where
    else:
        assert run.error is None and run.output == note["gives"], where


def _event_for(app: App, note: dict[str, Any]) -> dict[str, Any]:
    """Return the event the note tells of: by default of the name that the function's first trigger has."""
    function = app.find(note["run"])
    assert function is not None
    names = [each.name for each in function.triggers if isinstance(each, EventTrigger)]
    return event(**{"name": names[0], "data": note.get("data", {}), **note.get("event", {})})


def _app_with(module: ModuleType, slug: str) -> App:
    for value in vars(module).values():
        if isinstance(value, App) and value.find(slug) is not None:
            return value
    raise AssertionError(f"no app of this page has the function {slug!r}")
