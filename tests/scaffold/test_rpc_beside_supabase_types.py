"""Typed calls beside the models that Supabase's own CLI makes of tables: one names the other's."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner
from tests.repo.tree import ROOT
from tests.support import supabase_cli

from stepbase.cli.main import main
from stepbase.local.postgres import Cluster

_SQL = """
create table public.parts (id int primary key, name text not null, price numeric);
create function public.list_parts() returns setof public.parts language sql set search_path = ''
  as 'select p.* from public.parts as p';
"""

_USE = """
import calls
from stepbase import Step

async def names(step: Step) -> list[str]:
    return [part.name for part in await step.rpc(calls.list_parts())]
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database behind a port, as the CLI wants it, with a table and a function that returns its rows."""
    with Cluster(durable=False, port=0) as cluster:
        asyncio.run(_execute(cluster.dsn()))
        yield cluster.dsn()


async def _execute(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(_SQL)
    await connection.close()


def test_a_result_is_read_into_the_clis_model_of_the_table(database: str, tmp_path: Path) -> None:
    made = supabase_cli.run(
        "gen", "types", "--lang", "python", f"--remote={database}", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    (tmp_path / "tables.py").write_text(made.stdout[made.stdout.index("from __future__") :])
    (tmp_path / "pyproject.toml").write_text(
        '[tool.stepbase.rpc]\noutput = "calls.py"\nreturns = {list_parts = "tables:PublicParts"}\n'
    )
    options = ["gen", "rpc", "--project", str(tmp_path), "--database-url", database]

    written = CliRunner().invoke(main, options)

    assert written.exit_code == 0, written.output
    assert "RpcCall[list[PublicParts]]" in (tmp_path / "calls.py").read_text()
    (tmp_path / "use.py").write_text(_USE)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'generated'}",
         "use.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
        env={**os.environ, "MYPYPATH": f"{tmp_path}:{ROOT / 'shared'}"},
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
