"""What Supabase's own checkers say of our schemas: `supabase db advisors` and `db lint`, the real CLI.

Nothing at warn or above may be found, and what is found below is on a list. A table, a view and a
function made badly on purpose show that the checkers look.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.conftest import migration_files
from tests.support import plpgsql_check, supabase_cli
from tests.support.server import Server

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

# Below warn: nothing has used an index of an empty database, and tables that no API role may read
# have row-level security on without a policy, which is what keeps everybody else out.
_INFORMS = {"unused_index", "rls_enabled_no_policy"}

_BAD = """
create table public.bad_table (id int primary key);
grant select on public.bad_table to anon;
create function public.bad_function() returns int language plpgsql security definer
  as $$ begin return (select no_such_column from public.bad_table); end $$;
grant execute on function public.bad_function() to anon;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a port: the CLI does not speak over a socket file."""
    with Cluster(durable=False, port=0) as cluster:
        yield Server(cluster.dsn())


@pytest.fixture
async def migrated(server: Server) -> AsyncIterator[str]:
    """The DSN of a database with all migrations."""
    name = await server.create()
    await migrate.apply_files(server.dsn(name), migration_files())
    yield server.dsn(name)
    await server.drop(name)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder the CLI takes for a project: this one's configuration."""
    (tmp_path / "supabase").mkdir()
    config = Path(__file__).parents[2] / "supabase" / "config.toml"
    shutil.copy(config, tmp_path / "supabase")
    return tmp_path


async def test_advisors_find_nothing_at_warn_and_nothing_unexpected_below(
    migrated: str, project: Path
) -> None:
    findings = await _advisors(migrated, project)

    assert [each for each in findings if each["level"] != "INFO"] == []
    assert {each["name"] for each in findings} <= _INFORMS


async def test_advisors_find_what_is_bad(migrated: str, project: Path) -> None:
    await _execute(migrated, _BAD)

    findings = await _advisors(migrated, project)

    errors = {each["name"] for each in findings if each["level"] != "INFO"}
    assert {"rls_disabled_in_public", "function_search_path_mutable"} <= errors


async def test_lint_finds_nothing_and_then_what_is_bad(migrated: str, project: Path) -> None:
    connection = await asyncpg.connect(migrated)
    async with plpgsql_check.installed(connection) as is_there:
        if not is_there:
            return  # the CLI needs the extension; tests/sql/test_plpgsql_check.py does what it can
        clean = await _cli(project, "db", "lint", f"--remote={migrated}", "--fail-on", "warning")
        await connection.execute(_BAD)
        bad = await _cli(project, "db", "lint", f"--remote={migrated}", "--fail-on", "warning")
    await connection.close()

    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert "stepbase" in clean.stderr + clean.stdout
    assert bad.returncode == 1
    assert "no_such_column" in bad.stdout + bad.stderr


async def _advisors(dsn: str, project: Path) -> list[dict[str, Any]]:
    done = await _cli(project, "db", "advisors", f"--remote={dsn}", "--level", "info", "-o", "json")
    begin = done.stdout.find("[\n")
    assert begin >= 0, done.stdout + done.stderr
    findings: list[dict[str, Any]]
    findings, _ = json.JSONDecoder().raw_decode(done.stdout[begin:])
    return findings


async def _cli(project: Path, *arguments: str) -> Any:
    return await asyncio.to_thread(supabase_cli.run, *arguments, cwd=project)


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()
