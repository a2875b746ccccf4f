"""What a crash of Postgres leaves of users' events: all of them, and nothing of the rates."""

import json
from pathlib import Path
from typing import Any

import asyncpg
from tests.conftest import migration_files

from stepbase.local import migrate
from stepbase.local.postgres import Cluster


async def _accept(dsn: str, n: int, own_id: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        events = [{"name": "app/seen", "data": {}, "id": f"{own_id}-{i}"} for i in range(n)]
        text = await connection.fetchval(
            "select public.stepbase_accept('alice', '{}', $1, 5, 3600000)", json.dumps(events)
        )
        return json.loads(text)
    finally:
        await connection.close()


async def test_accepted_events_survive_a_crash_and_rates_begin_anew(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data")
    cluster.start()
    try:
        await migrate.apply_files(cluster.dsn(), migration_files())
        assert len((await _accept(cluster.dsn(), 5, "before"))["ids"]) == 5
        assert "retry_after_ms" in await _accept(cluster.dsn(), 1, "over")

        cluster.restart(immediate=True)

        assert len((await _accept(cluster.dsn(), 5, "after"))["ids"]) == 5
        connection = await asyncpg.connect(cluster.dsn())
        ids = await connection.fetch("select id from stepbase.outbox order by id")
        await connection.close()
        wanted = [f"{word}-{i}" for word in ("after", "before") for i in range(5)]
        assert [row["id"] for row in ids] == wanted
    finally:
        cluster.close()
