"""Every fenced block of the docs is run by a test that is named here, or is marked as output; nothing else.

`python -m tests.repo.test_docs_blocks` prints which test runs which block. Commands that need an account, a
download or the very run of the tests they would start are excused one by one, with the reason (`excuses`).
"""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from mkdocs.utils.yaml import yaml_load
from tests.deploy import test_docs as of_deploy
from tests.repo import test_docs_commands as of_commands
from tests.repo import test_docs_examples as of_examples
from tests.repo import test_docs_monitoring as of_monitoring
from tests.repo.pages import Block, blocks, pages, prose
from tests.repo.tree import MIGRATIONS, ROOT, assert_none, shown
from tests.support import debian

from stepbase.deploy import dotenv
from stepbase.deploy.target import port_of
from stepbase.scaffold import rpc_settings

HERE = "tests/repo/test_docs_blocks.py"
COMMANDS = "tests/repo/test_docs_commands.py"
EXAMPLES = "tests/repo/test_docs_examples.py"

OF_PAGE = {
    # What a page's commands are typed by, and its code where that is not EXAMPLES.
    "docs/command-line.md": "tests/cli/test_docs.py",
    "docs/deploy.md": "tests/deploy/test_docs.py",
    "docs/monitoring.md": "tests/repo/test_docs_monitoring.py",
    "docs/moving-from-inngest.md": "tests/interop/test_moving.py",
    "docs/troubleshooting.md": "tests/cli/test_troubleshooting.py",
    **dict.fromkeys(
        (
            "docs/operating.md",
            "docs/projects.md",
            "docs/quickstart.md",
            "docs/relays.md",
            "docs/signed-in-users.md",
        ),
        COMMANDS,
    ),
}

LOOKED_AT = {
    # Blocks that are no code and no output: settings and pictures, each with what looks at it.
    ("docs/deploy.md", "ini"): "test_settings_are_read_as_they_stand",
    ("docs/deploy.md", "toml"): "test_the_compute_block_is_the_one_of_the_project",
    ("docs/deploy.md", "text"): "test_caddy_takes_its_settings",
    ("docs/engine.md", "text"): "test_the_picture_of_the_engine_names_what_there_is",
    ("docs/house-tour.md", "text"): "test_the_tree_is_the_repositorys",
    ("docs/operating.md", "json"): "test_the_body_of_a_cancellation_is_one",
    ("docs/operating.md", "yaml"): "test_the_settings_of_prometheus_are_yaml",
    ("docs/supabase.md", "toml"): "test_the_table_of_typed_calls_is_read",
}


def runner_of(block: Block) -> str | None:
    """Return the test that runs a block, "output" for what one prints, or None."""
    if {"shows": "output"} in block.notes:
        return "output"
    if (block.page, block.language) in LOOKED_AT:
        return f"{HERE}::{LOOKED_AT[block.page, block.language]}"
    if block.language == "bash":
        return OF_PAGE.get(block.page, COMMANDS)
    if block.language in ("python", "sql", "js"):
        is_elsewhere = block.page in of_examples.ELSEWHERE
        return OF_PAGE[block.page] if is_elsewhere else EXAMPLES
    return None


def everything() -> Iterator[Block]:
    for page in pages():
        yield from blocks(page)


def excuses() -> dict[str, str]:
    """Return what excuses a command from being run, by its beginning."""
    account = dict.fromkeys(of_deploy.NEEDS_AN_ACCOUNT, "needs an account")
    return {
        **of_commands.NOT_RUN,
        **account,
        of_monitoring.PUSHES: "tests/monitor/test_notebook.py does it, with a stand-in for the account",
    }


def test_every_block_is_run_or_is_output() -> None:
    found = list(everything())

    assert len(found) > 180
    assert_none(f"{block.where}: {block.language}" for block in found if runner_of(block) is None)


def test_no_block_hides_in_a_list_or_behind_spaces() -> None:
    hidden = re.compile(r"^[ >]+```|^ *~~~|\n\n    \S", re.MULTILINE)

    assert_none(
        f"{shown(page)}: {found.group()!r}"
        for page in pages()
        for found in hidden.finditer(prose(page))
    )


def test_what_is_output_has_no_code() -> None:
    assert_none(
        block.where
        for block in everything()
        if runner_of(block) == "output" and block.language != "text"
    )


def test_the_tests_that_are_named_look_at_these_pages() -> None:
    for name in sorted({runner_of(block) or "" for block in everything()} - {"output"}):
        file, _, test = name.partition("::")
        text = (ROOT / file).read_text("utf-8")
        assert not test or f"def {test}(" in text, name
    for page, file in OF_PAGE.items():
        text = (ROOT / file).read_text("utf-8")
        constant = Path(page).stem.replace("-", "_").upper()
        assert Path(page).name in text or constant in text, (page, file)
    assert_none(
        f"{page} has no {language} block"
        for page, language in LOOKED_AT
        if not any((b.page, b.language) == (page, language) for b in everything())
    )


def test_examples_leave_out_no_page_that_nobody_runs() -> None:
    assert_none(page for page in of_examples.ELSEWHERE if page not in OF_PAGE)


# -- what is neither code nor output -------------------------------------------------------------------


def texts(page: str, language: str) -> list[str]:
    return [b.text for b in blocks(ROOT / page) if b.language == language and b.notes == []]


def test_settings_are_read_as_they_stand() -> None:
    project, cloud = (dotenv.parse(text, "page") for text in texts("docs/deploy.md", "ini"))

    source = "".join(p.read_text("utf-8") for p in (ROOT / "shared/stepbase/deploy").glob("*.py"))
    source += (ROOT / "shared/stepbase/config.py").read_text("utf-8")
    assert len(project) == 5 and len(cloud) == 3
    assert_none(name for name in {**project, **cloud} if name not in source)


def test_the_compute_block_is_the_one_of_the_project() -> None:
    [text] = texts("docs/deploy.md", "toml")
    ours = tomllib.loads((ROOT / "supabase" / "config.toml").read_text("utf-8"))

    found = tomllib.loads(text)["compute"]
    assert found == {name: ours["compute"][name] for name in found}


def test_caddy_takes_its_settings(tmp_path: Path) -> None:
    [text] = texts("docs/deploy.md", "text")
    files = debian.fetched(tmp_path, "caddy")
    assert files is not None, "install caddy: apt-get install caddy"

    (tmp_path / "Caddyfile").write_text(text, "utf-8")

    done = subprocess.run(
        [files / "usr" / "bin" / "caddy", "adapt", "--config", tmp_path / "Caddyfile"],
        capture_output=True, text=True, timeout=30, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    assert done.returncode == 0 and "reverse_proxy" in done.stdout, done.stderr
    assert f"127.0.0.1:{port_of('currency')}" in done.stdout


def test_the_picture_of_the_engine_names_what_there_is() -> None:
    [text] = texts("docs/engine.md", "text")
    [tables] = re.findall(r"│ (events .*) │", text)
    made = "".join(path.read_text("utf-8") for path in MIGRATIONS.glob("*.sql"))
    engine = {path.stem for path in (ROOT / "shared/stepbase/engine").glob("*.py")}

    assert_none(t for t in tables.split() if f"create table stepbase.{t} " not in made)
    for module in ("intake", "executor", "relay", "worker", "listener", "scheduler", "sweeper"):
        assert module not in text or module in engine, module
    assert "intake" in text and "executor" in text


def test_the_tree_is_the_repositorys() -> None:
    [text] = texts("docs/house-tour.md", "text")
    parents: list[str] = []
    missing = []
    for line in text.splitlines():
        names = re.match(r"( *)((?:[\w./]+(?:/|\.sh)(?:  )?)+)", line)
        if names is None:
            continue  # goes on about the line before
        depth = len(names[1]) // 2
        for name in names[2].split():
            path = ROOT.joinpath(*parents[:depth], name)
            if not path.exists():
                missing.append(shown(path))
        parents = [*parents[:depth], names[2].split()[0]]

    assert len(text.splitlines()) > 15
    assert_none(missing)
    packages = [path for path in (ROOT / "shared" / "stepbase").iterdir() if path.is_dir()]
    assert_none(
        f"{shown(path)} is not in it"
        for path in packages
        if path.name[0] != "_" and f"{path.name}/" not in text
    )


def test_the_body_of_a_cancellation_is_one() -> None:
    [text] = texts("docs/operating.md", "json")
    body = json.loads(text)
    source = (ROOT / "shared/stepbase/engine/api/operations.py").read_text("utf-8")

    assert_none(name for name in body if f'"{name}"' not in source)
    assert datetime.fromisoformat(body["started_before"]).tzinfo is not None


def test_the_settings_of_prometheus_are_yaml() -> None:
    [text] = texts("docs/operating.md", "yaml")

    [job] = yaml_load(text)["scrape_configs"]
    assert (
        job["authorization"]["credentials_file"] and len(job["static_configs"][0]["targets"]) == 2
    )


def test_the_table_of_typed_calls_is_read(tmp_path: Path) -> None:
    [text] = texts("docs/supabase.md", "toml")
    (tmp_path / "pyproject.toml").write_text(text, "utf-8")

    settings = rpc_settings.read_settings(tmp_path)
    assert settings.exclude == ("internal_*",) and set(settings.returns) == {
        "pay_order",
        "find_rate",
    }


@pytest.mark.parametrize("command", sorted(excuses()))
def test_an_excuse_says_what_is_needed_or_who_does_it(command: str) -> None:
    reason = excuses()[command]

    named = re.findall(r"tests/[\w/]+\.py", reason)
    assert named or re.search(r"needs|account|clone|runs this test|CI|has been run", reason), reason
    assert_none(name for name in named if not (ROOT / name).exists())


if __name__ == "__main__":
    for each in everything():
        print(f"{each.where:40} {each.language:7} {runner_of(each) or 'NOBODY'}")
