"""An engine behind a real pooler: sessions are as good as direct connections, transactions are refused."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import migration_files
from tests.engine.conftest import StartEngine
from tests.support import pgbouncer
from tests.support.pgbouncer import PgBouncer
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase.engine.app import running
from stepbase.engine.check import State, check
from stepbase.engine.settings import Settings
from stepbase.errors import StoreError
from stepbase.local import migrate
from stepbase.local.postgres import Cluster


@pytest.fixture(scope="module")
def bouncer(tmp_path_factory: pytest.TempPathFactory) -> PgBouncer | None:
    """The program; None where none can be had: then a stand-in's test in test_check.py is all there is."""
    return pgbouncer.find(tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server that poolers can reach."""
    with Cluster(port=0, durable=False) as cluster:
        asyncio.run(migrate.apply_files(cluster.dsn(), migration_files()))
        yield cluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the pooler may read as another user."""
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    return tmp_path


async def test_runs_pass_through_a_session_pooler(
    bouncer: PgBouncer | None,
    server: Cluster,
    folder: Path,
    start_engine: StartEngine,
    host: StubHost,
) -> None:
    if bouncer is None:
        return
    host.handlers["app-f"] = lambda call: (
        Answer(body=7) if call["steps"] else ops(step_run("a" * 40, 1))
    )
    with bouncer.serving(folder, server.dsn(), "session") as dsn:
        async with start_engine(database_url=dsn, sweep_seconds=60.0) as (client, _):
            await client.register(host.registration(host.function("app-f")))
            events = await client.send(*({"name": "app/f", "data": {"n": n}} for n in range(30)))
            outputs = [(await client.result(event))["output"] for event in events]

    assert outputs == [7] * 30


async def test_a_transaction_pooler_is_refused_at_once(
    bouncer: PgBouncer | None, server: Cluster, folder: Path
) -> None:
    if bouncer is None:
        return
    with bouncer.serving(folder, server.dsn(), "transaction") as dsn:
        settings = Settings(database_url=dsn)
        findings = {finding.what: finding for finding in await check(settings)}
        with pytest.raises(StoreError, match="not the transaction pooler"):
            async with asyncio.timeout(20), running(settings):
                pass

    assert findings["session"].state is State.BROKEN
    assert "the session pooler (port 5432)" in findings["session"].text
