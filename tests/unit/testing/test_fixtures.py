"""The fixtures of `stepbase.testing.fixtures`, in a pytest session as users have it; and labs without CEL."""

import os
import subprocess
import sys
from pathlib import Path

_CONFTEST = """
import pytest
from stepbase import App, Event, Step

pytest_plugins = ["stepbase.testing.fixtures"]


@pytest.fixture
def app() -> App:
    app = App("a")

    @app.function("f", on="go")
    async def f(step: Step) -> int:
        return await step.run("one", lambda: 1)

    return app
"""

_TESTS = """
import asyncio


def test_async(lab):
    [run] = asyncio.run(lab.send({"name": "go"}))
    assert run.result == 1


def test_plain(sync_lab):
    [run] = sync_lab.send({"name": "go"})
    assert run.result == 1
"""

_WITHOUT_CEL = """
import sys
sys.modules["cel"] = None
from stepbase import App, CancelOn, Event, EventData, Step
from stepbase.testing import SyncLab

class Paid(EventData, name="paid"):
    id: int

app = App("a")

@app.function("f", on=Paid, cancel_on=CancelOn("refunded", match="data.id"))
async def f(step: Step) -> None:
    await step.sleep("a", "1d")

with SyncLab(app) as lab:
    [run] = lab.send(Paid(id=7))
    lab.send({"name": "refunded", "data": {"id": 7}})
    assert run.status == "cancelled", run
app.function("g", on=Paid.where("event.data.id > 1"))(f.handler)
try:
    with SyncLab(app) as lab:
        lab.send(Paid(id=7))
except ModuleNotFoundError as error:
    print(error)
"""


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_fixtures_wrap_the_users_app(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_it.py").write_text(_TESTS)

    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path))

    assert "2 passed" in said


def test_a_plain_match_needs_no_cel_and_conditions_say_what_they_need() -> None:
    said = python("-c", _WITHOUT_CEL)

    assert "'event.data.id > 1' needs the engine's CEL library" in said
    assert "pip install 'stepbase[testing]'" in said
