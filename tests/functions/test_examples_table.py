"""What the function folders show: every step and every option, in something real.

The tables of docs/examples.md are made here, from the apps' definitions and their source, and fail on a
blank. A stale page is mended by the text that the failure shows.
"""

import ast
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields

import pytest
from tests.repo.tree import ROOT, parsed

from stepbase import App, Step
from stepbase.sdk.function import Function, Options
from stepbase.sdk.trigger import Cron, EventTrigger
from stepbase.testing import load_app

FOLDERS = ("currency", "orders", "reports", "onboarding")
PAGE = ROOT / "docs" / "examples.md"

STEPS = sorted(name for name in dir(Step) if not name.startswith("_"))
OPTIONS = [*(field.name for field in fields(Options)), "name", "on_failure", "middleware"]
TRIGGERS = ("event class", "where", "cron", "several")

NOT_SHOWN = {
    "patch": "for code that has changed while its runs were under way, which an example has not",
    "race": "what `timeout` is made of",
}

Cells = Mapping[str, list[str]]
"""By folder: the functions, without the app's name."""


@pytest.fixture(scope="module")
def apps() -> dict[str, App]:
    """The folders' apps."""
    return {name: load_app(ROOT / "functions" / name) for name in FOLDERS}


def options_of(function: Function) -> set[str]:
    """Return the options that a function does not leave at their default."""
    plain = Options()
    used = {
        field.name
        for field in fields(Options)
        if getattr(function.options, field.name) != getattr(plain, field.name)
    }
    if function.name != function.slug.partition("-")[2]:
        used.add("name")
    if function.on_failure is not None:
        used.add("on_failure")
    if function.middleware:
        used.add("middleware")
    return used


def triggers_of(function: Function) -> set[str]:
    """Return the kinds of triggers that start a function."""
    used = {"several"} if len(function.triggers) > 1 else set()
    for trigger in function.triggers:
        if isinstance(trigger, Cron):
            used.add("cron")
        elif isinstance(trigger, EventTrigger):
            used.add("where" if trigger.expression else "event class")
    return used


def steps_of(folder: str) -> dict[str, set[str]]:
    """Return, by Python function of a folder, the steps in it and in the functions of the folder it calls."""
    tree = parsed(ROOT / "functions" / folder / "main.py")
    own: dict[str, set[str]] = {}
    called: dict[str, set[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = list(ast.walk(node))
            own[node.name] = {
                each.attr
                for each in inside
                if isinstance(each, ast.Attribute)
                and isinstance(each.value, ast.Name)
                and each.value.id == "step"
            }
            called[node.name] = {
                each.func.id
                for each in inside
                if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
            }
    return {
        name: steps.union(*(own[other] for other in called[name] if other in own))
        for name, steps in own.items()
    }


def cells(apps: Mapping[str, App], used: Mapping[str, Mapping[str, set[str]]], what: str) -> Cells:
    """Return which functions of each folder use a step or an option."""
    return {
        folder: [
            slug.removeprefix(f"{folder}-")
            for slug in apps[folder].functions
            if what in used[folder][slug]
        ]
        for folder in FOLDERS
    }


def table(head: str, rows: Mapping[str, Cells]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {head} | {' | '.join(FOLDERS)} |", f"|---|{'---|' * len(FOLDERS)}"]
    for what, row in rows.items():
        shown = (", ".join(f"`{each}`" for each in row[folder]) for folder in FOLDERS)
        lines.append(f"| {what} | {' | '.join(shown)} |")
    return "\n".join(lines)


def steps_table(apps: Mapping[str, App]) -> dict[str, Cells]:
    used = {}
    for folder, app in apps.items():
        steps = steps_of(folder)
        used[folder] = {
            slug: steps[function.handler.__name__].union(
                steps[function.on_failure.handler.__name__] if function.on_failure else ()
            )
            for slug, function in app.functions.items()
        }
    return {f"`step.{step}`": cells(apps, used, step) for step in STEPS if step not in NOT_SHOWN}


def options_table(apps: Mapping[str, App]) -> dict[str, Cells]:
    used = {
        folder: {slug: options_of(function) for slug, function in app.functions.items()}
        for folder, app in apps.items()
    }
    return {f"`{option}`": cells(apps, used, option) for option in OPTIONS}


def triggers_table(apps: Mapping[str, App]) -> dict[str, Cells]:
    used = {
        folder: {slug: triggers_of(function) for slug, function in app.functions.items()}
        for folder, app in apps.items()
    }
    return {trigger: cells(apps, used, trigger) for trigger in TRIGGERS}


def blanks(rows: Mapping[str, Cells]) -> Iterable[str]:
    return [what for what, row in rows.items() if not any(row.values())]


def test_every_step_every_option_and_every_trigger_is_shown(apps: dict[str, App]) -> None:
    assert blanks(steps_table(apps)) == []
    assert blanks(options_table(apps)) == []
    assert blanks(triggers_table(apps)) == []


def test_what_is_not_shown_has_a_reason_and_is_there(apps: dict[str, App]) -> None:
    used = {step for folder in FOLDERS for steps in steps_of(folder).values() for step in steps}

    assert set(NOT_SHOWN) <= set(STEPS)
    assert not used & set(NOT_SHOWN), "it is shown after all: take it out of NOT_SHOWN"


def test_steps_and_options_are_all_there_are() -> None:
    """So that a new one cannot be forgotten here."""
    given = set(inspect.signature(App.function).parameters) - {"self", "function_id", "on"}

    assert set(OPTIONS) == given
    assert {"run", "rpc", "table", "sleep", "sleep_until", "wait_for_event", "invoke"} <= set(STEPS)
    assert {"send_event", "wait_for_signal", "send_signal", "fetch", "ai"} <= set(STEPS)


@pytest.mark.parametrize(
    ("head", "make"),
    [("step", steps_table), ("option", options_table), ("trigger", triggers_table)],
)
def test_the_page_shows_the_table(apps: dict[str, App], head: str, make: object) -> None:
    assert callable(make)
    text = table(head, make(apps))

    assert text in PAGE.read_text("utf-8"), f"docs/examples.md needs this table:\n\n{text}\n"
