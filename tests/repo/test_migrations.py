"""Rules about our SQL, checked in the files and in the catalogue of a migrated database."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from tests.repo.tree import MIGRATIONS, assert_none, shown

FILES = sorted(MIGRATIONS.glob("*.sql"))
_NAME = re.compile(r"(?P<day>\d{8})(?P<number>\d{6})_[a-z]+(?:_[a-z]+)*\.sql")
_FUNCTION = re.compile(r"^create (?:or replace )?function (?P<name>[\w.]+)", re.MULTILINE)
_TABLE = re.compile(r"^create table (?P<name>[\w.]+)", re.MULTILINE)

OURS = ("stepbase", "rewards")
"""Schemas that are ours altogether. In `public` ours are the domain's objects and stepbase_*."""

PGCRYPTO = r"\b(?:digest|hmac|crypt|gen_salt|gen_random_bytes|pgp_\w+)\s*\("


@dataclass(frozen=True)
class Place:
    """A definition in a file: the lines before it, from 0."""

    file: str
    name: str
    line: int
    before: list[str]

    @property
    def comment(self) -> str:
        """The comment directly above it, without dashes."""
        lines: list[str] = []
        for line in reversed(self.before):
            if not line.startswith("--"):
                break
            lines.insert(0, line.removeprefix("--").strip())
        return " ".join(lines).strip()


def definitions(pattern: re.Pattern[str]) -> Iterator[Place]:
    """Yield what the files define at the beginning of a line."""
    for path in FILES:
        text = path.read_text("utf-8")
        for match in pattern.finditer(text):
            before = text[: match.start()].splitlines()
            yield Place(shown(path), match["name"], len(before) + 1, before)


def test_names_have_the_form_and_the_numbers_rise() -> None:
    matches = [(path.name, _NAME.fullmatch(path.name)) for path in FILES]
    assert_none([name for name, match in matches if match is None])

    versions = [match["day"] + match["number"] for _, match in matches if match]
    assert versions == sorted(set(versions))


def test_no_two_of_the_framework_have_one_name() -> None:
    names = [path.stem.partition("_")[2] for path in FILES if int(path.name[8:14]) < 1000]

    # Copies in other projects are told apart by them (stepbase/local/copies.py).
    assert sorted(names) == sorted(set(names))


def test_the_framework_comes_first_and_keeps_to_its_schema() -> None:
    created = re.compile(
        r"^create (?:or replace )?(?:function|table|view|type|schema) (?:if not exists )?(?P<name>[\w.]+)",
        re.MULTILINE,
    )
    for place in definitions(created):
        is_framework = int(Path(place.file).name[8:14]) < 1000
        is_ours = (
            place.name.startswith(("stepbase.", "public.stepbase_")) or place.name == "stepbase"
        )
        assert is_framework == is_ours, f"{place.file}:{place.line}: {place.name}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_file_begins_with_what_it_is_and_needs_no_extension(path: Path) -> None:
    text = path.read_text("utf-8")
    code = "\n".join(line.partition("--")[0] for line in text.splitlines())

    assert text.startswith("-- "), "the first line says what the file is"
    assert not re.search(r"\bcreate extension\b", code, re.IGNORECASE)
    assert not re.search(PGCRYPTO, code)
    assert text.endswith("\n") and "\t" not in text


def test_every_function_has_its_paragraph() -> None:
    bare = [f"{p.file}:{p.line}: {p.name}" for p in definitions(_FUNCTION) if len(p.comment) < 20]

    assert_none(bare)


def test_every_table_is_described_or_commented() -> None:
    described = "\n".join(path.read_text("utf-8") for path in FILES)
    bare = [
        f"{p.file}:{p.line}: {p.name}"
        for p in definitions(_TABLE)
        if not p.comment
        and f"comment on table {p.name} is" not in described
        and p.name.startswith("stepbase.")
    ]

    assert_none(bare)


def test_functions_are_lower_case_and_named_like_verbs_of_the_schema() -> None:
    odd = [
        p.name
        for p in definitions(_FUNCTION)
        if not re.fullmatch(r"[a-z]+\.[a-z_][a-z0-9_]*", p.name)
    ]

    assert_none(odd)


async def test_every_function_sets_an_empty_search_path(db: asyncpg.Connection) -> None:
    rows = await db.fetch(
        """
        select p.oid::regprocedure::text as name, p.proconfig, p.prosecdef
          from pg_proc p
          where p.pronamespace = any (array(select n.oid from pg_namespace n where n.nspname = any ($1)))
             or (p.pronamespace = 'public'::regnamespace
                 and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e'))
        """,
        list(OURS),
    )
    open_path = [r["name"] for r in rows if 'search_path=""' not in (r["proconfig"] or [])]

    assert len(rows) > 30
    assert_none(open_path)
    # Whoever may write the row emits its event: the generated trigger functions are definers. And who may
    # report calls need not be able to write runs.
    definers = [r["name"] for r in rows if r["prosecdef"] and r["name"] != "stepbase_record(json)"]
    assert all(name.startswith("stepbase.emit_") for name in definers), definers


async def test_every_table_has_row_level_security(db: asyncpg.Connection) -> None:
    rows = await db.fetch(
        """
        select c.oid::regclass::text as name, c.relrowsecurity
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where c.relkind in ('r', 'p') and n.nspname = any ($1)
        """,
        [*OURS, "public"],
    )

    assert len(rows) > 15
    assert_none([row["name"] for row in rows if not row["relrowsecurity"]])


async def test_every_view_shows_only_what_its_reader_may_see(db: asyncpg.Connection) -> None:
    rows = await db.fetch(
        """
        select c.oid::regclass::text as name, coalesce(c.reloptions, '{}') as options
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where c.relkind = 'v' and n.nspname = any ($1)
        """,
        [*OURS, "public"],
    )

    assert rows
    assert_none([row["name"] for row in rows if "security_invoker=true" not in row["options"]])


async def test_constraints_are_sentences(db: asyncpg.Connection) -> None:
    rows = await db.fetch(
        """
        select c.conname as name, c.conrelid::regclass::text as table
          from pg_constraint c join pg_namespace n on n.oid = c.connamespace
          where c.contype = 'c' and n.nspname = any ($1)
        """,
        [*OURS, "public"],
    )

    assert rows
    # A generated name is <table>_<column>_check.
    assert_none([f"{r['table']}: {r['name']}" for r in rows if r["name"].endswith("_check")])


def test_every_index_on_a_hot_table_says_which_query_it_serves() -> None:
    bare = [
        f"{p.file}:{p.line}: {p.name}"
        for p in definitions(
            re.compile(r"^create (?:unique )?index (?P<name>\w+) on stepbase\.", re.MULTILINE)
        )
        if not p.comment and "functions_by_app" != p.name  # of a table with a handful of rows
    ]

    assert_none(bare)
