"""`stepbase gen rpc` as it is typed: it writes, it finds what is stale, it says what is wrong."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stepbase.cli.main import main

_MIGRATION = """
create function public.add(p_a int, p_b int) returns int language sql set search_path = ''
  as 'select p_a + p_b';
comment on function public.add(int, int) is 'The sum.';
create function public.unnamed(int) returns int language sql set search_path = '' as 'select 1';
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one migration of its own."""
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)
    (tmp_path / "supabase" / "migrations" / "20270101000000_add.sql").write_text(_MIGRATION)
    (tmp_path / "pyproject.toml").write_text('[tool.stepbase.rpc]\noutput = "lib/calls.py"\n')
    return tmp_path


def gen(project: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["gen", "rpc", "--project", str(project), *options])


def test_it_writes_what_the_migrations_make_without_a_database(project: Path) -> None:
    done = gen(project)

    assert done.exit_code == 0, done.output
    assert "left out public.unnamed(integer): a parameter has no name" in done.stderr
    text = (project / "lib" / "calls.py").read_text()
    assert "def add(*, p_a: int, p_b: int) -> RpcCall[int]:" in text
    assert '"""The sum."""' in text
    assert "stepbase_call" not in text
    assert "calc_currency" not in text, "the example domain is nobody else's"


def test_check_shows_what_is_stale_and_writes_nothing(project: Path, shapes: str) -> None:
    options = ["--database-url", shapes]
    written = project / "lib" / "calls.py"
    missing = gen(project, *options, "--check")
    assert (missing.exit_code, written.exists()) == (1, False)

    assert gen(project, *options).exit_code == 0
    assert gen(project, *options, "--check").exit_code == 0
    written.write_text(written.read_text().replace("p_text: str", "p_text: int"))
    stale = gen(project, *options, "--check")

    assert stale.exit_code == 1
    assert "-def split(*, p_text: int) -> RpcCall[SplitResult]:\n" in stale.stdout
    assert "+def split(*, p_text: str) -> RpcCall[SplitResult]:\n" in stale.stdout
    assert "run `stepbase gen rpc`" in stale.stderr
    assert "p_text: int" in written.read_text()


def test_the_output_may_be_given(project: Path, shapes: str) -> None:
    other = project / "other.py"

    done = gen(project, "--database-url", shapes, "--output", str(other))

    assert f"wrote {other}" in done.stdout and other.exists()
    assert "is up to date" in gen(project, "--database-url", shapes, "--output", str(other)).stdout


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "Give --output shared/…/rpc.py, which every function folder can"),
        ("[tool.stepbase.rpc]\noutput = 1", "output: expected text, got 1"),
        (
            "[tool.stepbase.rpc]\noutput = 'x.py'\nexclude = 'y'",
            "exclude: expected a list of texts",
        ),
        (
            "[tool.stepbase.rpc]\noutput = 'x.py'\nreturn = {}",
            "has return; it knows exclude, output",
        ),
        ("[tool.stepbase.rpc]\noutput = 'x.py'\nreturns = 1", 'expected function = "module:Type"'),
        ("[tool.stepbase.rpc]\noutput = 'x.py'\nreturns = {nix = 'int'}", "names nix: there is no"),
        ("[tool", "pyproject.toml: "),
    ],
)
def test_what_is_wrong_in_pyproject_is_said(
    project: Path, shapes: str, table: str, message: str
) -> None:
    (project / "pyproject.toml").write_text(table)

    done = gen(project, "--database-url", shapes)

    assert done.exit_code == 1
    assert message in done.stderr


def test_a_database_that_is_away_is_an_error_of_one_line(project: Path) -> None:
    done = gen(project, "--database-url", "postgresql://x@127.0.0.1:1/x")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
