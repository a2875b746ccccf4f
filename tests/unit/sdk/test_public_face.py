"""What `import stepbase` gives, and what it must not load."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stepbase
from stepbase.sdk.version import VERSION

ROOT = Path(__file__).parents[3]

NAMES = """
App Batch CancelOn Concurrency Context Cron Debounce DefinitionError EngineOptions Event EventData
Function NonRetriableError Priority ProtocolError RateLimit RetryAfterError RpcCall SendError Singleton
Step StepError StepbaseError Suspend SyncStep Throttle Timeouts asgi serve
""".split()

HEAVY = "pydantic httpx supabase postgrest jwt cryptography flask starlette asyncio typing_extensions".split()


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(stepbase.__all__) == list(stepbase.__all__) == NAMES
    assert len(NAMES) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_documented(name: str) -> None:
    found = getattr(stepbase, name)

    assert found.__doc__, name
    assert name in dir(stepbase)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = stepbase.Nothing


def loaded(code: str) -> set[str]:
    """Return the top-level modules a fresh interpreter has after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_bare_import_loads_nothing_heavy() -> None:
    assert not loaded("import stepbase") & set(HEAVY)


def test_the_bare_import_loads_only_the_face() -> None:
    script = "import stepbase, sys; print([m for m in sys.modules if m.startswith('stepbase.')])"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )

    assert done.stdout.strip() == "[]"


def test_an_app_without_typed_events_needs_no_pydantic() -> None:
    code = """
from stepbase import App, CancelOn, Cron, Event, Step, serve
app = App("a")
@app.function("f", on=["x/y", Cron("* * * * *")], cancel_on=CancelOn("x/z", match="data.id"))
async def f(event: Event[dict], step: Step) -> dict:
    return {}
main = serve(app)
"""
    assert not loaded(code) & set(HEAVY)


def test_an_app_with_typed_events_needs_pydantic_and_nothing_else() -> None:
    code = """
from stepbase import App, EventData, serve
class Paid(EventData, name="order/paid"):
    order_id: int
app = App("a")
@app.function("f", on=Paid)
async def f() -> None: ...
main = serve(app)
"""
    assert loaded(code) & set(HEAVY) == {"pydantic", "typing_extensions"}


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
