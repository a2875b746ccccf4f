"""A database with SQL functions of every shape, its typed calls, and an installed stepbase."""

import asyncio
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tests.repo.tree import ROOT
from tests.support.server import Server

from stepbase.scaffold.rpc_catalogue import Catalogue, read
from stepbase.scaffold.rpc_settings import RpcSettings

SHAPES = Path(__file__).with_name("shapes.sql")


@pytest.fixture(scope="session")
def shapes(cluster: Server, template: str) -> Iterator[str]:
    """The DSN of a migrated database with the functions of shapes.sql."""
    name = asyncio.run(cluster.create(template))
    asyncio.run(_execute(cluster.dsn(name), SHAPES.read_text("utf-8")))
    yield cluster.dsn(name)
    asyncio.run(cluster.drop(name))


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def catalogue(shapes: str) -> Catalogue:
    """What that database says."""
    return asyncio.run(read(shapes, ["shapes", "more"]))


@pytest.fixture
def settings(tmp_path: Path) -> RpcSettings:
    """Settings that say nothing but where to write."""
    return RpcSettings(tmp_path / "calls.py", width=100)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, to be put on PYTHONPATH; do not change it."""
    folder = tmp_path_factory.mktemp("installed")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site-packages")
    return folder / "site-packages"
