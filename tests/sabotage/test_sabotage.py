"""Each switch makes its named test fail, by an assertion; without a switch they all pass."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.sabotage import patches

from stepbase.local import migrate

_ROOT = Path(__file__).parents[2]
_SECONDS = 120


def run_tests(report: Path, tests: list[str], switch: str | None) -> dict[str, str]:
    """Run tests in a process of their own; return pytest's outcome and its reason by test name."""
    environment = {k: v for k, v in os.environ.items() if k != "STEPBASE_SABOTAGE"}
    if switch is not None:
        environment["STEPBASE_SABOTAGE"] = switch
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *tests,
        ],
        cwd=_ROOT,
        env=environment,
        timeout=_SECONDS,
        capture_output=True,
        check=False,
    )
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = next(iter(case), None)
        outcomes[case.attrib["name"]] = (
            "passed" if outcome is None else f"{outcome.tag}: {outcome.get('message')}"
        )
    return outcomes


@pytest.mark.parametrize("switch", patches.PATCHES)
def test_the_switch_is_noticed(switch: str, tmp_path: Path) -> None:
    test = patches.PATCHES[switch].test

    outcomes = run_tests(tmp_path / "report.xml", [test], switch)

    [(name, outcome)] = outcomes.items()
    assert name == test.rpartition("::")[2]
    assert outcome.startswith(("failure: AssertionError", "failure: assert ")), outcome


def test_without_a_switch_all_of_them_pass(tmp_path: Path) -> None:
    tests = [patch.test for patch in patches.PATCHES.values()]

    outcomes = run_tests(tmp_path / "report.xml", tests, None)

    assert len(outcomes) == len(set(tests))
    assert set(outcomes.values()) == {"passed"}


@pytest.mark.parametrize("switch", patches.PATCHES)
def test_a_switch_changes_one_file(switch: str) -> None:
    files = migrate.read_folder(migrate.migrations_folder())

    changed = patches.apply(switch, files)

    assert sum(changed[name] != sql for name, sql in files.items()) == 1


def test_a_switch_whose_text_is_gone_is_an_error() -> None:
    with pytest.raises(LookupError, match="0 times, not once"):
        patches.apply("outbox_ack", {"1_outbox.sql": "select 1"})
    with pytest.raises(LookupError, match="there is no switch 'x'"):
        patches.apply("x", {})
