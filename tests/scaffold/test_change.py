"""Changes to a project's files: nothing is overwritten unseen, and what is there stays byte for byte."""

import tomllib
from pathlib import Path

import pytest

from stepbase.scaffold.change import Change, make, read, with_lines, with_tables
from stepbase.scaffold.errors import ScaffoldError

_TABLE = '[compute.shop]\nsize = "2gb"'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        'project_id = "p"\n\n[api]\nport = 1 # theirs\n',
        'project_id = "p"\r\n[compute.other]\r\nsize = "4gb"\r\n',
        "[functions]\nshop = { verify_jwt = false }\n",
    ],
)
def test_a_table_comes_at_the_end_and_the_rest_stays(text: str) -> None:
    after = with_tables(text, _TABLE, "config.toml")

    assert after.startswith(text)
    assert ("\r\n" in after) == ("\r\n" in text)
    assert after.replace("\r\n", "\n").endswith(f"\n{_TABLE}\n")
    document = tomllib.loads(after)
    assert document["compute"]["shop"] == {"size": "2gb"}
    document["compute"].pop("shop")
    assert {k: v for k, v in document.items() if v} == tomllib.loads(text)
    assert with_tables(after, _TABLE, "config.toml") == after


def test_a_table_that_is_there_is_left_alone_and_the_other_one_added() -> None:
    text = '[compute.shop]\nsize = "4gb"\n'

    after = with_tables(text, f"{_TABLE}\n\n[functions.shop]\nverify_jwt = false\n", "config.toml")

    assert after == text + "\n[functions.shop]\nverify_jwt = false\n"


def test_a_document_that_cannot_take_the_table_is_refused_with_the_table() -> None:
    with pytest.raises(ScaffoldError, match=r"by hand:\n\[compute\.shop\]"):
        with_tables("compute = { other = { size = '2gb' } }\n", _TABLE, "config.toml")


def test_a_document_that_is_none_is_refused() -> None:
    with pytest.raises(ScaffoldError, match=r"config\.toml is no TOML: .*line 2"):
        with_tables("[api]\nport\n", _TABLE, "config.toml")


def test_lines_end_as_the_text_does() -> None:
    assert with_lines("a\r\nb", ["c"]) == "a\r\nb\r\nc\r\n"
    assert with_lines("", ["c"]) == "c\n"


def test_changes_are_made_all_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("theirs")
    new, taken = Change(Path("folder/new"), "ours\r\n"), Change(Path("there"), "ours")

    with pytest.raises(ScaffoldError, match="there exists already; nothing was written"):
        make(tmp_path, [new, taken])
    assert not (tmp_path / "folder").exists()

    make(tmp_path, [new])
    assert read(tmp_path / "folder" / "new") == "ours\r\n"


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("seen")
    path.chmod(0o640)
    change = Change(Path("file"), "seen\nours", "seen")

    path.write_text("seen, then saved by an editor")
    with pytest.raises(ScaffoldError, match="has changed meanwhile"):
        make(tmp_path, [change])

    path.write_text("seen")
    make(tmp_path, [change])
    assert path.read_text() == "seen\nours"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_link_keeps_being_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("a\n")
    (tmp_path / "link").symlink_to("real")

    make(tmp_path, [Change(Path("link"), "a\nb\n", "a\n")])

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "a\nb\n"


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff")

    with pytest.raises(ScaffoldError, match="not UTF-8"):
        read(tmp_path / "file")


def test_a_diff_shows_a_missing_line_end() -> None:
    shown = Change(Path("a/b"), "x\ny\n", "x").diff()

    assert shown == "--- a/b\n+++ a/b\n@@ -1 +1,2 @@\n-x\n\\ No newline at end of file\n+x\n+y\n"
