"""The public face: which names there are, that each is explained, and what importing it costs."""

import ast
import inspect
import json
import subprocess
import sys

import pytest
from tests.repo.pages import blocks, pages

import stepbase

MOST_NAMES = 40

NAMES = {
    # declaring
    "App", "Function", "EventData", "Event", "Cron",
    # options
    "Batch", "CancelOn", "Checkpointing", "Concurrency", "Debounce", "EngineOptions", "Priority",
    "RateLimit", "Singleton",
    "Throttle", "Timeouts",
    # inside a handler
    "Context", "FunctionFailed", "Middleware", "Step", "SyncStep", "RpcCall",
    # errors
    "ApiError", "DefinitionError", "NonRetriableError", "RetryAfterError", "SendError",
    "StepError", "StepbaseError", "Suspend",
    # serving
    "accept_events", "asgi", "serve", "wsgi",
}  # fmt: skip

HEAVY = (
    "pydantic httpx supabase jwt cryptography asyncpg starlette uvicorn click asyncio aiohttp flask "
    "functions_framework cel rfc8785 rich"
).split()


def test_the_names_are_these() -> None:
    assert set(stepbase.__all__) == NAMES
    assert len(NAMES) <= MOST_NAMES
    assert stepbase.__all__ == sorted(stepbase.__all__)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_name_has_a_docstring_of_its_own(name: str) -> None:
    value = getattr(stepbase, name)

    assert vars(value).get("__doc__") or (inspect.isfunction(value) and value.__doc__), name
    text = inspect.getdoc(value) or ""
    assert text.split("\n")[0].strip().endswith((".", ":", ";")) or "\n" in text, text[:80]


def test_dir_and_unknown_names() -> None:
    assert NAMES <= set(dir(stepbase))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stepbase.nothing  # noqa: B018


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the modules it has then, but for what it had before."""
    script = (
        f"import sys, json; had = set(sys.modules)\n{code}\n"
        "print(json.dumps(sorted(set(sys.modules) - had)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-I", "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_import_stepbase_loads_nothing_heavy() -> None:
    loaded = loaded_by("import stepbase")

    assert loaded & set(HEAVY) == set()
    assert {name for name in loaded if name.startswith("stepbase.")} == set()


def test_an_untyped_app_loads_no_library() -> None:
    loaded = loaded_by("from stepbase import App, Event, Step, serve; App('a'); import json")

    assert loaded & set(HEAVY) == set()


def test_a_typed_app_loads_pydantic_and_nothing_else() -> None:
    loaded = loaded_by(
        "from stepbase import App, Event, EventData, Step, RpcCall, serve\n"
        "class Asked(EventData, name='a/b'):\n    n: int\n"
        "app = App('a')\n"
        "@app.function('f', on=Asked)\n"
        "async def f(event: Event[Asked], step: Step) -> int:\n    return event.data.n\n"
        "main = serve(app)\n"
        "import sys, json"
    )

    assert loaded & set(HEAVY) <= {"pydantic"}


def test_an_endpoint_for_events_loads_pydantic_and_nothing_else() -> None:
    loaded = loaded_by(
        "from stepbase import EventData, accept_events\n"
        "class Asked(EventData, name='a/b'):\n    n: int\n"
        "main = accept_events(Asked)\n"
        "import sys, json"
    )

    assert loaded & set(HEAVY) <= {"pydantic"}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_name_is_used_in_an_example_that_runs(name: str) -> None:
    # tests/repo/test_docs_examples.py runs every one of these blocks.
    examples = [b for page in pages() for b in blocks(page) if b.language == "python"]
    used = [
        block
        for block in examples
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Name) and node.id == name
    ]

    assert used, f"{name} occurs in no Python block of the docs"
