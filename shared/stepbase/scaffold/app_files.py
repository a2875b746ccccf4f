"""The text of a new function folder's files. Pure.

What is written passes mypy's strict mode and ruff, and its test passes, in all variants
(`tests/scaffold/test_new.py`); so that is where a change of the public face shows.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from stepbase.scaffold.names import Starter, module


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new app is to have.

    Attributes:
        app: Its name.
        starter: The event that starts a function, if any.
        cron: The schedule that starts another, if any.
        is_sync: Whether handlers are plain functions.
        has_front_door: Whether an Edge Function passes calls on to it.
    """

    app: str
    starter: Starter | None
    cron: str | None
    is_sync: bool = False
    has_front_door: bool = False

    @property
    def step(self) -> str:
        """The class of the handlers' `step`."""
        return "SyncStep" if self.is_sync else "Step"


def main_py(wanted: Wanted) -> str:
    """Return `main.py`: the app with a function for each thing that starts one."""
    imports = {"App", "serve", wanted.step}
    parts = []
    if wanted.starter is not None:
        imports |= {"Event", "EventData"}
        parts.append(_on_event(wanted, wanted.starter))
    if wanted.cron is not None:
        imports.add("Cron")
        parts.append(_on_schedule(wanted, wanted.cron))
    # ruff's order: classes, then functions.
    names = ", ".join(sorted(imports, key=lambda name: (name.islower(), name)))
    return "\n\n\n".join(
        [
            f'"""The app "{wanted.app}": say here in a sentence what it is for."""\n\n'
            f'from stepbase import {names}\n\napp = App("{wanted.app}")',
            *parts,
            "main = serve(app)\n",
        ]
    )


def test_py(wanted: Wanted) -> str:
    """Return the test of what `main_py` returns."""
    starter, cron = wanted.starter, wanted.cron
    imports = ["from stepbase import Event"] if starter is not None else []
    imports.append("from stepbase.testing import SyncLab, load_app")
    parts = [
        f'"""The app "{wanted.app}", in memory: no server, no database, and no waiting."""\n\n'
        "from pathlib import Path\n\n" + "\n".join(imports) + "\n\n"
        f'FOLDER = Path(__file__).parents[1] / "functions" / "{wanted.app}"'
    ]
    if starter is not None:
        parts.append(
            _text(
                f'''
                def test_{starter.handler}_greets_by_name() -> None:
                    with SyncLab(load_app(FOLDER)) as lab:
                        [run] = lab.send(Event("{starter.name}", {{"name": "Ada"}}))
                        assert run.status == "sleeping"

                        lab.advance("1s")

                        assert run.result == "Hello Ada"
                        assert list(run.steps) == ["greeting", "a-moment"]


                def test_{starter.handler}_refuses_data_that_do_not_fit() -> None:
                    with SyncLab(load_app(FOLDER)) as lab:
                        [run] = lab.send(Event("{starter.name}", {{"title": "Ada"}}))

                        assert run.status == "failed"
                        assert run.error is not None and "name" in run.error.message
                '''
            )
        )
    if cron is not None:
        parts.append(
            _text(
                f'''
                def test_scheduled_reports() -> None:
                    with SyncLab(load_app(FOLDER)) as lab:
                        run = lab.start("{wanted.app}-scheduled")

                        assert run.result == 0
                        assert run.steps == {{"report": 0}}
                '''
            )
        )
    return "\n\n\n".join(parts) + "\n"


def requirements_txt(needed: Sequence[str]) -> str:
    """Return `requirements.txt`: what the folder needs, one requirement a line."""
    return (
        "# What this folder imports besides the packages that deploy copies beside main.py (stepbase).\n"
        "# Which versions are installed is written in functions/requirements.lock (stepbase deploy --lock).\n"
        + "".join(f"{line}\n" for line in sorted(needed))
    )


def compute_table(app: str) -> str:
    """Return the block of supabase/config.toml that deploys the app to Supabase Compute."""
    return _text(
        f"""
        [compute.{app}]
        runtime = "dockerfile"
        size = "2gb"
        exposure = "public"
        instances = 1
        source = "build/{app}"
        """
    )


def test_file(app: str) -> str:
    """Return the name of the file with an app's tests."""
    return f"test_{module(app)}.py"


def _on_event(wanted: Wanted, starter: Starter) -> str:
    define, wait = ("def", "") if wanted.is_sync else ("async def", "await ")
    return _text(
        f'''
        class {starter.model}(EventData, name="{starter.name}"):
            """What the event carries. Data that do not fit end the run, naming the field."""

            name: str


        def greeting(name: str) -> str:
            """Return the result of a step; whatever this raises, the step is tried again."""
            return f"Hello {{name}}"


        @app.function("{starter.function}", on={starter.model})
        {define} {starter.handler}(event: Event[{starter.model}], step: {wanted.step}) -> str:
            """Runs from the top at every call: what is to happen once goes into a step."""
            text = {wait}step.run("greeting", greeting, event.data.name)
            {wait}step.sleep("a-moment", "1s")
            return text
        '''
    )


def _on_schedule(wanted: Wanted, cron: str) -> str:
    define, wait = ("def", "") if wanted.is_sync else ("async def", "await ")
    return _text(
        f'''
        def report() -> int:
            """Return the result of a step; whatever this raises, the step is tried again."""
            return 0


        @app.function("scheduled", on=Cron("{cron}", tz="UTC"))
        {define} scheduled(step: {wanted.step}) -> int:
            """Starts at the schedule's times, by the clocks of the zone."""
            return {wait}step.run("report", report)
        '''
    )


def _text(text: str) -> str:
    return textwrap.dedent(text).strip("\n")
