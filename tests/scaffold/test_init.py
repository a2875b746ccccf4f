"""`stepbase init`, with the real Supabase CLI: in projects of every age, pushed, upgraded and run."""

import asyncio
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from click.testing import CliRunner
from tests.repo.tree import MIGRATIONS, ROOT
from tests.support import supabase_cli
from tests.support.engine_client import EngineClient
from tests.support.server import Server

from stepbase.cli.main import main
from stepbase.local import migrate
from stepbase.local.postgres import Cluster
from stepbase.local.stack import Plan, Stack

_USERS = {
    "20250101000000_guests.sql": "create table public.guests (id int primary key, name text);",
    "20261124000130_visits.sql": "create table public.visits (id int primary key);",
    "20270101000000_later.sql": "create table public.later (id int primary key);",
}
"""A project's own: older than the framework, one with a number of the framework's, one younger."""

_TRACKS = "select stepbase.track('public.guests', 'hello/requested', null, 'name');\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a port: the CLI does not speak over a socket file."""
    with Cluster(durable=False, port=0) as cluster:
        yield Server(cluster.dsn())


@pytest.fixture
async def dsn(server: Server) -> AsyncIterator[str]:
    """A database as a new Supabase project has it."""
    name = await server.create()
    await migrate.apply_files(server.dsn(name), {})
    yield server.dsn(name)
    await server.drop(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `supabase init` makes."""
    folder = tmp_path_factory.mktemp("made")
    done = supabase_cli.run("init", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "supabase"


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A project with migrations of its own."""
    shutil.copytree(made, tmp_path / "supabase")
    for file, sql in _USERS.items():
        write(tmp_path, file, sql)
    return tmp_path


def write(project: Path, file: str, sql: str) -> None:
    path = project / "supabase" / "migrations" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(sql)


def migrations(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "supabase" / "migrations").iterdir())


def names(files: list[str]) -> list[str]:
    """Return what follows the versions."""
    return [file.partition("_")[2] for file in files]


FRAMEWORK = [f"stepbase_{name}" for name in names(sorted(migrate.framework_files()))]
DASHBOARD = [
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("supabase/notebooks/*.json"), *ROOT.glob("supabase/snippets/*.sql")]
]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".home" not in path.parts and ".temp" not in path.parts
    }


def run(*words: str) -> tuple[int, str]:
    answer = CliRunner().invoke(main, list(words))
    return answer.exit_code, answer.output


def init(project: Path, *options: str) -> str:
    code, output = run("init", str(project), *options)
    assert code == 0, output
    return output


async def push(project: Path, dsn: str) -> str:
    done = await asyncio.to_thread(
        supabase_cli.run, "db", "push", f"--remote={dsn}", "--yes", cwd=project
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


async def recorded(dsn: str) -> list[str]:
    """Return what the database says was applied, as file names."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "select version, name from supabase_migrations.schema_migrations order by version"
    )
    await connection.close()
    return [f"{row['version']}_{row['name']}.sql" for row in rows]


async def db(verb: str, project: Path, dsn: str) -> tuple[int, str]:
    return await asyncio.to_thread(
        run, "db", verb, "--database-url", dsn, "--project", str(project)
    )


async def test_a_project_that_is_live_gets_the_framework_and_runs_the_example(
    project: Path, dsn: str
) -> None:
    await push(project, dsn)
    before = contents(project)

    init(project, "--yes")
    await push(project, dsn)

    after = contents(project)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"supabase/config.toml"}
    config = "supabase/config.toml"
    assert after[config].startswith(before[config]) and b"[compute.hello]" in after[config]
    assert {name for name in after if "migrations" not in name} - set(before) == {
        ".env.example",
        ".gitignore",
        "functions/hello/main.py",
        "functions/hello/requirements.txt",
        "tests/test_hello.py",
        *DASHBOARD,
    }
    assert names(migrations(project)) == [*names(list(_USERS)), *FRAMEWORK]
    assert await recorded(dsn) == migrations(project)
    code, output = await db("status", project, dsn)
    assert (code, output.count("applied ")) == (0, len(migrations(project)))
    plan = Plan(functions=project / "functions", database_url=dsn, project=project)
    async with Stack(plan) as stack, aiohttp.ClientSession() as session:
        assert stack.apps == ["hello"]
        client = EngineClient(session, stack.engine_url)
        [event] = await client.send({"name": "hello/requested", "data": {"name": "Ada"}})
        assert (await client.result(event))["output"] == "Hello Ada"


async def test_a_second_time_nothing_changes(project: Path) -> None:
    init(project, "--yes")
    before = contents(project)

    assert init(project) == "up to date\n"

    assert contents(project) == before
    assert run("init", str(project), "--check")[0] == 0


async def test_a_newer_version_brings_its_new_files_after_the_projects_last(
    project: Path, dsn: str, installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    newer = tmp_path_factory.mktemp("newer")
    shutil.copytree(installed, newer, dirs_exist_ok=True)
    more = newer / "stepbase" / "_migrations" / "20261224000100_more.sql"
    more.write_text("create table stepbase.more (id int primary key);")
    init(project, "--yes")
    write(project, "20270301000000_own.sql", "create table public.own (id int);")
    await push(project, dsn)
    before = contents(project)

    def later(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "stepbase.cli", *words], cwd=project, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": str(newer)}, capture_output=True,
        )  # fmt: skip

    checked = later("init", "--check")
    refused = later("db", "status", "--database-url", dsn)
    brought = later("init")
    pushed = await push(project, dsn)
    agreed = later("db", "status", "--database-url", dsn)

    assert checked.returncode == 1
    assert "missing  20261224000100_more.sql" in checked.stdout
    assert refused.returncode == 1
    assert "20261224000100_more.sql: `stepbase init` adds them" in refused.stderr
    assert brought.returncode == 0, brought.stderr
    [added] = set(contents(project)) - set(before)
    assert added == "supabase/migrations/20270301000001_stepbase_more.sql"
    assert "20270301000001_stepbase_more.sql" in pushed
    assert agreed.returncode == 0, agreed.stderr
    assert await recorded(dsn) == migrations(project)


async def test_a_database_that_the_framework_applied_itself_to_is_taken_over(
    project: Path, dsn: str
) -> None:
    # Beside the framework's own files, a number of theirs cannot be used.
    clash, output = await db("apply", project, dsn)
    assert clash == 1 and "20261124000130" in output
    (project / "supabase" / "migrations" / "20261124000130_visits.sql").unlink()
    assert (await db("apply", project, dsn))[0] == 0
    init(project, "--yes")

    assert (await db("status", project, dsn))[0] == 0
    assert await db("apply", project, dsn) == (0, "up to date\n")

    assert await recorded(dsn) == migrations(project)
    assert "up to date" in await push(project, dsn)
    # And from elsewhere, where the framework's files have their own names: nothing is done twice.
    assert await db("apply", project / "supabase", dsn) == (0, "up to date\n")
    assert await recorded(dsn) == migrations(project)


async def test_copies_come_before_migrations_that_were_written_with_the_framework(
    project: Path, dsn: str
) -> None:
    write(project, "20270301000000_tracks.sql", "-- uses stepbase.track\n" + _TRACKS)
    write(project, "20260101000000_said.sql", "-- stepbase.track would do; later\nselect 1;\n")

    init(project, "--yes")
    await push(project, dsn)

    files = names(migrations(project))
    assert files[-1] == "tracks.sql" and files[-2] == FRAMEWORK[-1]
    assert await recorded(dsn) == migrations(project)


def test_copies_that_differ_are_told_of_and_replaced_only_when_that_is_asked(
    project: Path,
) -> None:
    init(project, "--yes")
    [copy] = (project / "supabase" / "migrations").glob("*_stepbase_outbox.sql")
    ours = copy.read_text("utf-8")
    copy.write_text(ours + "-- mine\n")

    code, output = run("init", str(project), "--check", "--json")
    assert code == 1
    states = {each["file"]: each["state"] for each in json.loads(output)}
    assert {file for file, state in states.items() if state != "current"} == {copy.name}
    assert states[copy.name] == "changed"
    assert "1 migrations differ" in init(project, "--yes")
    assert copy.read_text("utf-8") == ours + "-- mine\n"

    assert "\n--- mine\n" in init(project, "--replace", "--yes")
    assert copy.read_text("utf-8") == ours


def test_what_is_there_is_changed_only_with_a_yes(project: Path) -> None:
    (project / ".gitignore").write_text("node_modules")
    (project / ".env.example").write_text("SUPABASE_URL=\nTHEIRS=1\n")
    before = contents(project)

    code, output = run("init", str(project))
    assert (code, contents(project)) == (1, before)
    assert "+[compute.hello]" in output and "--yes" in output
    assert run("init", str(project), "--dry-run")[0] == 0
    assert contents(project) == before

    init(project, "--yes")
    ignored = (project / ".gitignore").read_text().splitlines()
    assert ignored[0] == "node_modules" and ".stepbase/" in ignored
    env = (project / ".env.example").read_text()
    assert env.startswith("SUPABASE_URL=\nTHEIRS=1\n") and env.count("SUPABASE_URL=") == 1
    assert "\nINNGEST_SIGNING_KEY=\n" in env


@pytest.mark.parametrize("answer", ["y", "n"])
def test_somebody_at_a_terminal_is_asked(project: Path, answer: str) -> None:
    (project / ".gitignore").write_text("node_modules\n")
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "stepbase.cli", "init", str(project)],
        stdin=end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    os.close(end)
    os.write(terminal, f"{answer}\n".encode())
    said, _ = process.communicate(timeout=60)
    os.close(terminal)

    assert process.returncode == 0, said
    assert "Change supabase/config.toml, .gitignore like this?" in said
    assert (project / "functions" / "hello" / "main.py").exists()
    has_changed = "stepbase" in (project / ".gitignore").read_text()
    assert has_changed == (answer == "y")


def test_a_folder_with_functions_gets_no_example(project: Path) -> None:
    (project / "functions" / "mine").mkdir(parents=True)
    (project / "functions" / "mine" / "main.py").touch()

    init(project)

    assert not (project / "functions" / "hello").exists()
    assert not (project / "tests").exists()
    assert b"compute.hello" not in contents(project)["supabase/config.toml"]


def test_a_project_made_from_this_repository_has_them_under_their_own_names(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "supabase", tmp_path / "supabase")
    shutil.copytree(ROOT / "functions", tmp_path / "functions")

    init(tmp_path)

    assert migrations(tmp_path) == sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert run("init", str(tmp_path), "--check")[0] == 0


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    code, output = run("init", str(tmp_path))

    assert code == 1
    assert "`supabase init` makes a project" in output
    assert list(tmp_path.iterdir()) == []


def test_a_schema_that_would_be_served_is_warned_of(project: Path) -> None:
    config = project / "supabase" / "config.toml"
    config.write_text(config.read_text().replace('schemas = ["public"', 'schemas = ["stepbase"'))

    assert "take it out" in init(project, "--yes")
