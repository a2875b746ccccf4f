"""The docs say what there is: links lead somewhere, and nothing a user meets goes unmentioned."""

import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.repo.pages import blocks, pages, prose
from tests.repo.tree import MIGRATIONS, ROOT, assert_none, files, shown

import stepbase
from stepbase import failpoint
from stepbase.cli.main import LazyGroup
from stepbase.cli.main import main as cli
from stepbase.errors import StepbaseError

_LINK = re.compile(r"\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_CITED_PATH = re.compile(r"\b(?:docs|tests|shared|supabase|functions|scripts|bench)/[\w./*-]*\w")
_CITED_SECTION = re.compile(r"docs/protocol\.md`?, (?P<section>[a-z]+)")

NOT_FOR_USERS = {
    "LocalError": "only the root of those that are listed",
    "StepbaseError": "only the root of those that are listed",
}

WRITTEN_BY_READERS = {block.file for page in pages() for block in blocks(page) if block.file}
"""Files that a page tells its reader to write."""

_MADE_BY_COMMANDS = re.compile(r"functions/(hello|mails)/.*|tests/test_(hello|mails)\.py")
"""Files that commands make in a reader's project."""


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for match in _LINK.finditer(prose(page)):
        target, _, fragment = match["target"].partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists():
            broken.append(f"{match['target']}: no such file")
        elif fragment and fragment not in {
            anchor(heading["text"]) for heading in _HEADING.finditer(prose(file))
        }:
            broken.append(f"{match['target']}: no such section")

    assert_none(broken)


def test_every_page_can_be_found() -> None:
    linked = {
        (page.parent / match["target"].partition("#")[0]).resolve()
        for page in pages()
        for match in _LINK.finditer(prose(page))
        if "://" not in match["target"]
    }

    assert_none(shown(page) for page in pages() if page not in linked and page.name != "README.md")


def docs() -> str:
    """Return all pages as one text."""
    return "\n".join(page.read_text("utf-8") for page in pages())


def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")


def test_every_command_is_mentioned_and_explains_itself() -> None:
    assert isinstance(cli, LazyGroup)
    text = docs()
    found = dict(commands(cli, "stepbase"))

    assert len(found) >= 7
    assert_none(
        [
            name
            for name, each in found.items()
            if not isinstance(each, click.Group) and name not in text
        ]
    )
    assert_none([name for name, command in found.items() if not command.help])


def errors() -> set[str]:
    """Return the names of every error class of the package."""
    for module in pkgutil.walk_packages(stepbase.__path__, "stepbase."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[str] = set()
    waiting = [StepbaseError]
    while waiting:
        kind = waiting.pop()
        found.add(kind.__name__)
        waiting += kind.__subclasses__()
    return {name for name in found if not name.startswith("_")}


def test_every_error_is_mentioned() -> None:
    text = docs()
    found = errors()

    assert_none(
        [name for name in sorted(found) if f"`{name}`" not in text and name not in NOT_FOR_USERS]
    )
    assert_none([name for name in NOT_FOR_USERS if name not in found])


def test_every_sqlstate_of_ours_is_explained_and_there_is_no_other() -> None:
    raised = {
        code
        for path in MIGRATIONS.glob("*.sql")
        for code in re.findall(r"errcode = '(SB\d{3})'", path.read_text("utf-8"))
    }
    page = (ROOT / "docs" / "supabase.md").read_text("utf-8")
    listed = set(re.findall(r"^\| (SB\d{3}) \|", page, re.MULTILINE))

    assert listed == raised
    head = next(MIGRATIONS.glob("*000100_schema.sql")).read_text("utf-8")
    assert set(re.findall(r"^--   (SB\d{3}) ", head, re.MULTILINE)) == raised


def test_every_view_and_table_is_mentioned() -> None:
    text = docs()
    made = {
        name
        for path in MIGRATIONS.glob("*.sql")
        for name in re.findall(
            r"^create (?:table|view) stepbase\.(\w+)", path.read_text("utf-8"), re.MULTILINE
        )
    }

    internal = {"schema_version", "relay_state"}  # one row each, for the engine alone
    assert_none(
        [
            name
            for name in sorted(made - internal)
            if f"`{name}`" not in text and f"stepbase.{name}" not in text
        ]
    )


def test_every_error_the_engine_ends_runs_with_is_explained() -> None:
    page = (ROOT / "docs" / "engine.md").read_text("utf-8")
    named = {
        name
        for path in (ROOT / "shared" / "stepbase" / "engine").glob("*.py")
        for name in re.findall(r'(?:"name": |_failed\(\s*)"(\w+)"', path.read_text("utf-8"))
    }

    assert len(named) >= 5
    assert_none(name for name in sorted(named) if name not in page)


def test_every_failpoint_has_its_row() -> None:
    page = (ROOT / "docs" / "engine.md").read_text("utf-8")

    assert_none(name for name in sorted(failpoint.NAMES) if f"`{name}`" not in page)


def test_every_variable_we_read_is_mentioned() -> None:
    text = docs()
    source = (ROOT / "shared" / "stepbase" / "config.py").read_text("utf-8")
    read = set(re.findall(r'"((?:INNGEST|SUPABASE|DATABASE|STEPBASE)_[A-Z_]+)"', source))

    assert len(read) > 10
    assert_none(name for name in sorted(read) if name not in text)


def test_every_public_name_is_mentioned() -> None:
    text = docs()

    assert_none([name for name in stepbase.__all__ if not re.search(rf"\b{name}\b", text)])


def citing() -> Iterator[tuple[Path, str]]:
    """Yield code and SQL that may cite files, with their text."""
    for path in files():
        if path.suffix in (".py", ".sql", ".toml", ".md") and not shown(path).startswith(
            ("tests/repo/", "tests/scaffold/")
        ):
            yield path, path.read_text("utf-8")


def test_cited_files_are_there() -> None:
    missing = []
    for path, text in citing():
        for match in _CITED_PATH.finditer(text):
            cited = match.group()
            is_of_another_place = (
                text[max(0, match.start() - 1)] in "/<"
                or "…" in text[match.end() : match.end() + 1]
            )
            is_made = cited in WRITTEN_BY_READERS or _MADE_BY_COMMANDS.fullmatch(cited)
            if is_of_another_place or is_made or not Path(cited).suffix:
                continue
            # Inside the package, folders of the package are written without it.
            if not any(ROOT.glob(cited)) and not any((ROOT / "shared" / "stepbase").glob(cited)):
                missing.append(f"{shown(path)}: {cited}")

    assert_none(missing)


def test_cited_sections_of_the_protocol_are_there() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    sections = {anchor(heading["text"]) for heading in _HEADING.finditer(page)}
    cited = {
        (match["section"], shown(path))
        for path, text in citing()
        for match in _CITED_SECTION.finditer(text)
    }

    assert len(cited) >= 4
    assert_none([each for each in cited if each[0] not in sections])


def test_cited_vectors_are_there() -> None:
    vectors = ROOT / "tests" / "vectors"
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    cited = set(re.findall(r"`([\w-]+\.json)`", page))
    for path, text in citing():
        if shown(path).startswith("shared/"):
            cited |= set(re.findall(r"`([\w-]+\.json)`", text))

    assert len(cited) > 20
    assert_none([name for name in sorted(cited) if not any(vectors.rglob(name))])


def test_rules_of_the_protocol_are_numbered_in_order() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    numbers = [(int(a), int(b)) for a, b in re.findall(r"^(\d+)\.(\d+) ", page, re.MULTILINE)]

    assert numbers == sorted(set(numbers))
    assert all((a, b - 1) in numbers for a, b in numbers if b > 1)


def test_figures_that_are_compared_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").replace("(docs/", "(")
    page = (ROOT / "docs" / "compared.md").read_text("utf-8")
    rows = re.findall(r"^\| .+ \| `(\w+)` \|$", page, re.MULTILINE)

    assert len(rows) >= 6
    assert_none(
        line
        for line in page.splitlines()
        if re.search(r" \| `\w+` \|$", line) and line not in readme.splitlines()
    )
    assert_none(name for name in rows if not (ROOT / "bench" / f"{name}.py").exists())
    assert re.search(r"^.*\b20\d\d\b", page, re.MULTILINE), "the page says of when it is"


def test_the_table_of_the_engines_modules_has_each() -> None:
    page = (ROOT / "docs" / "engine.md").read_text("utf-8")
    table = page.partition("| module | does |")[2].partition("## Tables")[0]
    named = set(re.findall(r"`(\w+)`", table))
    engine = ROOT / "shared" / "stepbase" / "engine"

    assert_none(p.stem for p in engine.glob("*.py") if p.stem not in {*named, "__init__"})


def test_the_layers_are_those_of_the_contract() -> None:
    page = " ".join((ROOT / "CONTRIBUTING.md").read_text("utf-8").split())
    said = re.findall(r"`(cli → [^`]+)`", page)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    [contract] = [
        each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers"
    ]
    # What only hands a value around is left out.
    layers = [each.replace("stepbase.", "") for each in contract["layers"][:-2]]

    assert said == [" → ".join([*layers, "errors"])]
