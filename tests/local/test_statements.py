"""Where one SQL statement ends and the next begins."""

import pytest

from stepbase.local.statements import split


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        (" ;; -- nothing\n;", []),
        ("select 1", [("select 1", 1)]),
        ("select 1;\n\nselect 2;\n", [("select 1", 1), ("select 2", 3)]),
        ("-- a; b\nselect 1 /* ; /* ; */ ; */ + 1;", [("select 1 /* ; /* ; */ ; */ + 1", 2)]),
        (
            "select ';', \"a;b\", 'it''s;';select 2",
            [("select ';', \"a;b\", 'it''s;'", 1), ("select 2", 1)],
        ),
        (r"select E'\';', e'\\';select 2", [(r"select E'\';', e'\\'", 1), ("select 2", 1)]),
        (r"select '\';select 2", [(r"select '\'", 1), ("select 2", 1)]),
        ("do $$ a; b $x$ ; $$;select 2", [("do $$ a; b $x$ ; $$", 1), ("select 2", 1)]),
        ("do $x$ $$;$$ $x$;select 2", [("do $x$ $$;$$ $x$", 1), ("select 2", 1)]),
        (
            "select $1;select a$b$c;select 3",
            [("select $1", 1), ("select a$b$c", 1), ("select 3", 1)],
        ),
        (
            "create function f() returns int begin atomic\nselect 1;\nselect case when true then 2 end;"
            "\nend;\nselect 2",
            [
                (
                    "create function f() returns int begin atomic\nselect 1;\n"
                    "select case when true then 2 end;\nend",
                    1,
                ),
                ("select 2", 5),
            ],
        ),
        ("begin; select 1; end;", [("begin", 1), ("select 1", 1), ("end", 1)]),
        ("select 'never closed; select 2", [("select 'never closed", 1), ("select 2", 1)]),
        ("/* never closed", []),
        ("do $$ never closed; select 2", [("do $$ never closed; select 2", 1)]),
    ],
)
def test_split_finds_the_statements(script: str, expected: list[tuple[str, int]]) -> None:
    assert [(s.text, s.line) for s in split(script)] == expected
