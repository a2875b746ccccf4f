"""Copies of the framework's migrations: which one a name stands for, and what new copies are called."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from stepbase.local.copies import Framework, copy_names
from stepbase.local.errors import MigrationError

_FILES = ["20261124000100_schema.sql", "20261124000110_apps.sql", "20261124000900_grants.sql"]
_NOW = datetime(2027, 3, 1, 12, 0, 30, 999_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "name", "identity"),
    [
        ("20261124000110", "apps", "20261124000110"),
        ("20270101000000", "stepbase_apps", "20261124000110"),
        ("20261124000110", "", "20261124000110"),
        ("20261124000110", "guests", "20261124000110_guests"),
        ("20270101000000", "apps", "20270101000000_apps"),
        ("20270101000000", "stepbase_guests", "20270101000000_stepbase_guests"),
    ],
)
def test_a_migration_is_known_by_number_and_name(version: str, name: str, identity: str) -> None:
    framework = Framework.of(_FILES)

    assert framework.identity(version, name) == identity
    assert framework.is_copy(version, name) == (name == "stepbase_apps")


def test_copies_end_now_in_the_files_order() -> None:
    names = copy_names(reversed(_FILES), ["20270101000000_mine.sql"], _NOW)

    assert names == {
        _FILES[0]: "20270301120028_stepbase_schema.sql",
        _FILES[1]: "20270301120029_stepbase_apps.sql",
        _FILES[2]: "20270301120030_stepbase_grants.sql",
    }


def test_the_time_is_that_of_utc() -> None:
    there = _NOW.astimezone(timezone(timedelta(hours=7)))

    assert copy_names(_FILES, [], there) == copy_names(_FILES, [], _NOW)


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ("20270301120027", "20270301120028"),
        ("20270301120028", "20270301120029"),
        ("20281231235959", "20290101000000"),
        ("1", "20270301120028"),
        ("00000000000001", "20270301120028"),
    ],
)
def test_copies_come_after_the_last_migration(last: str, first: str) -> None:
    theirs = ["20260101000000_old.sql", f"{last}_last.sql"]

    names = list(copy_names(_FILES, theirs, _NOW).values())

    assert names[0] == f"{first}_stepbase_schema.sql"
    assert sorted([*theirs, *names])[-3:] == names


@pytest.mark.parametrize("last", ["99999999999999", "5", "20279999999999"])
def test_a_number_that_no_time_follows_is_named(last: str) -> None:
    with pytest.raises(MigrationError, match=rf"{last}_last\.sql: {last} is no time"):
        copy_names(_FILES, [f"{last}_last.sql"], _NOW)


@pytest.mark.parametrize("user", ["20270201000000", "20280101000000"])
def test_copies_come_before_what_needs_them(user: str) -> None:
    theirs = ["20261231000000_old.sql", f"{user}_user.sql", "20290101000000_last.sql"]

    names = list(copy_names(_FILES, theirs, _NOW, before=theirs[1]).values())

    assert sorted([*theirs, *names]) == [theirs[0], *names, *theirs[1:]]
    assert names[-1] < _NOW.strftime("%Y%m%d%H%M%S_x")


def test_too_little_room_before_what_needs_them_is_said() -> None:
    theirs = ["20270101000000_old.sql", "20270101000003_user.sql"]

    with pytest.raises(MigrationError, match=r"20270101000003_user\.sql .* later number"):
        copy_names(_FILES, theirs, _NOW, before=theirs[1])
    theirs[1] = "20270101000004_user.sql"
    assert list(copy_names(_FILES, theirs, _NOW, before=theirs[1]).values())[-1] < theirs[1]
