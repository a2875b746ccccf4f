"""What starting an app costs, and what it calls itself. The face itself: `tests/repo/test_face.py`."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from stepbase.sdk.version import SDK, VERSION

ROOT = Path(__file__).parents[3]

UNTYPED = """
from stepbase import App, CancelOn, Cron, Event, Step, serve
app = App("a")
@app.function("f", on=["x/y", Cron("* * * * *")], cancel_on=CancelOn("x/z", match="data.id"))
async def f(event: Event[dict], step: Step) -> dict:
    return {}
main = serve(app)
"""
PLAIN = """
from stepbase import App, Step, serve
app = App("a")
@app.function("f", on="x/y")
async def f(step: Step) -> int:
    return 1
main = serve(app)
"""


def loaded(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout))


def test_an_app_without_typed_events_needs_no_library() -> None:
    top = {name.partition(".")[0] for name in loaded(UNTYPED)}

    assert not top & {"pydantic", "httpx", "supabase", "flask", "starlette", "asyncio"}


def test_options_and_sending_are_loaded_when_they_are_used() -> None:
    assert not loaded(PLAIN) & {"stepbase.sdk.options", "stepbase.sdk.sender"}


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION
    assert SDK == f"stepbase-py:v{VERSION}"
