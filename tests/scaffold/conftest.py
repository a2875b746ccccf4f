"""A database with SQL functions of every shape, and the module of typed calls made from it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
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
