"""Every command of the docs is run as a reader would type it, or is listed here with the reason why not.

A page's commands run in order, in one folder and one environment. What a page says to write into a file is
written, what it shows as output is compared. Servers get free ports and are stopped at the end.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import asyncpg
import pytest
from tests.repo.pages import Block, as_json, blocks, pages
from tests.repo.tree import ROOT, assert_none
from tests.support import supabase_cli
from tests.support.npm import NODE

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

QUICKSTART = ROOT / "docs" / "quickstart.md"
SIGNED_IN = ROOT / "docs" / "signed-in-users.md"
OPERATING = ROOT / "docs" / "operating.md"
MONITORING = ROOT / "docs" / "monitoring.md"
RELAYS = ROOT / "docs" / "relays.md"
PROJECTS = ROOT / "docs" / "projects.md"
COMMAND_LINE = ROOT / "docs" / "command-line.md"  # tests/cli/test_docs.py follows it
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"  # tests/cli/test_troubleshooting.py does
DEPLOY = ROOT / "docs" / "deploy.md"  # tests/deploy/test_docs.py follows it

_LOCAL_SUPABASE = (
    "needs images or downloads; tests/local/test_stack.py has an API and a database instead"
)

FOLLOWED = (
    QUICKSTART,
    SIGNED_IN,
    OPERATING,
    RELAYS,
    PROJECTS,
    DEPLOY,
    MONITORING,
    COMMAND_LINE,
    TROUBLESHOOTING,
)

NOT_RUN = {
    "supabase start": _LOCAL_SUPABASE,
    'set -a; eval "$(supabase status -o env --override-name api.url=SUPABASE_URL'
    " --override-name db.url=DATABASE_URL"
    ' --override-name auth.service_role_key=SUPABASE_SERVICE_ROLE_KEY)"; set +a': _LOCAL_SUPABASE,
    "git clone <this repository> stepbase": "needs the network",
    "cd stepbase": "goes into that clone",
    "scripts/setup": "has been run, or this test could not run",
    "scripts/test": "runs this test",
    "scripts/check": "CI runs it beside this test",
    "scripts/demo": "tests/local/test_demo.py does it, in smaller",
    "scripts/demo --all": "tests/local/test_demo.py does it, in smaller",
}

SERVERS = {
    # How a server says that it is ready, and the options that give it free ports.
    "stepbase dev": (
        r"^ready;",
        "--gateway-port 0 --engine-port 0 --host-port 0 --database-port 0 --retry-interval 5",
    ),
    "stepbase engine": (r'"ready": "engine"', "--port 0"),
    "stepbase relay": (r'"ready": "relay"', "--metrics-port 0"),
}

READY_SECONDS = 30
STOP_SECONDS = 20


def commands(block: Block) -> list[str]:
    """Return a block's commands, one a line; continued lines are joined."""
    joined = block.text.replace("\\\n", " ")
    return [
        line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")
    ]


BASH = [
    (page, block) for page in pages() for block in blocks(page) if block.language in ("bash", "sh")
]


def test_every_command_is_run_or_excused() -> None:
    found = {
        f"{block.where}: {command}"
        for page, block in BASH
        for command in commands(block)
        if page not in FOLLOWED and command not in NOT_RUN
    }

    assert_none(sorted(found))


def test_every_excuse_is_needed() -> None:
    typed = {command for _, block in BASH for command in commands(block)}

    assert_none(command for command in NOT_RUN if command not in typed and "--all" not in command)


@pytest.mark.parametrize("block", [block for _, block in BASH], ids=lambda block: block.where)
def test_blocks_are_bash(block: Block) -> None:
    text = block.text.replace("<this repository>", "url")

    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Reader:
    """Somebody who types what a page says, in a folder of their own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._exports: list[str] = []

    def write(self, block: Block) -> None:
        """Write a block into the file it names."""
        assert block.file is not None
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def type(self, command: str) -> str:
        """Run a command to its end and return what it prints; exports stay for those after it."""
        script = "\n".join([*self._exports, command])
        done = subprocess.run(
            ["bash", "-euc", script], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if command.startswith(("export ", "set -a")):
            self._exports.append(command)
        return done.stdout

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """Start a server and wait until it says that it is ready; stop it afterwards as Ctrl-C does."""
        ready, options = next(v for k, v in SERVERS.items() if k in command)
        command = re.sub(r"--port \d+", "", command)
        script = "\n".join([*self._exports, f"exec {command} {options}"])
        process = subprocess.Popen(
            ["bash", "-euc", script], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            said = _read_until(process.stdout, ready)
            assert re.search(ready, said, re.MULTILINE), f"{command}\n{said}"
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                rest, _ = process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        assert process.returncode == 0, rest

    def asked(self, name: str) -> str:
        """Return a variable as the exports have set it."""
        return self.type(f'printf %s "${name}"')


def _read_until(output: IO[str], pattern: str) -> str:
    said = ""
    give_up = time.monotonic() + READY_SECONDS
    while not re.search(pattern, said, re.MULTILINE) and time.monotonic() < give_up:
        line = output.readline()
        if not line:
            break
        said += line
    return said


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A reader in a folder with the virtual environment, the function folders and the SQL of the clone."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for name in ("functions", "supabase"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("HOME", "LANG", "PYTHONPATH", "TMPDIR")
    }
    path = f"{sys.prefix}/bin:{NODE.parent}:{os.environ['PATH']}"
    return Reader(tmp_path, {**kept, "PATH": path})


@pytest.mark.parametrize("page", [QUICKSTART, SIGNED_IN], ids=lambda page: page.stem)
def test_a_page_on_the_stack_works(reader: Reader, page: Path) -> None:
    found = blocks(page)
    start = next(i for i, b in enumerate(found) if b.text.strip() == ".venv/bin/stepbase dev")
    for block in found[:start]:
        if block.file is not None:
            reader.write(block)
        elif block.language == "bash":
            for command in commands(block):
                if command not in NOT_RUN:
                    reader.type(command)

    with reader.running(found[start].text.strip()):
        printed = ""
        for block in found[start + 1 :]:
            printed = _follow(reader, block, printed)


def _follow(reader: Reader, block: Block, printed: str) -> str:
    """Do what a block says; returns what a command printed, for the block that shows it."""
    if block.file is not None:
        reader.write(block)
    elif block.language == "bash":
        return "".join(reader.type(command) for command in commands(block))
    elif block.language == "text":
        assert printed == block.text, block.where
    elif block.language == "sql":
        asyncio.run(_look(reader.asked("DATABASE_URL"), block))
    return printed


async def _look(dsn: str, block: Block) -> None:
    """Run a statement; one with rows to see, until they are there: the reader is told to wait a little."""
    wanted = [note["rows"] for note in block.notes]
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(READY_SECONDS):
        while True:
            rows = [[as_json(value) for value in row] for row in await connection.fetch(block.text)]
            if not wanted or rows == wanted[0]:
                break
            await asyncio.sleep(0.05)
    await connection.close()


@pytest.mark.parametrize("page", [OPERATING, RELAYS], ids=["engine", "relay"])
def test_what_runs_on_a_database_is_run_as_its_page_says(
    reader: Reader, database: str, page: Path
) -> None:
    for block in [block for block in blocks(page) if block.language == "bash"]:
        for command in commands(block):
            if command.startswith("export DATABASE_URL="):
                command = f"export DATABASE_URL='{database}'"
            if command == "stepbase engine check":
                reader.type(command)
            elif any(server in command for server in SERVERS):
                with reader.running(command):
                    pass
            else:
                reader.type(command)


async def test_a_project_is_made_as_the_page_says(tmp_path: Path) -> None:
    path = os.pathsep.join(
        [f"{sys.prefix}/bin", str(supabase_cli.program().parent), "/usr/bin:/bin"]
    )
    reader = Reader(
        tmp_path,
        {
            "PATH": path,
            "HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "DO_NOT_TRACK": "1",
            "SUPABASE_TELEMETRY_DISABLED": "1",
        },
    )
    # The CLI does not speak over a socket file.
    with Cluster(durable=False, port=0) as cluster:
        await migrate.apply_files(cluster.dsn(), {})
        reader.environment["DATABASE_URL"] = cluster.dsn()
        for block in [block for block in blocks(PROJECTS) if block.language == "bash"]:
            for command in commands(block):
                if command == "stepbase dev":
                    with reader.running(command):
                        pass
                else:
                    await asyncio.to_thread(reader.type, command)
