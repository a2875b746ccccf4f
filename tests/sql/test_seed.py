"""The seed data and the CLI's settings that come with the migrations."""

import tomllib
from pathlib import Path

import asyncpg

from stepbase.local import migrate

_SUPABASE = Path(__file__).parents[2] / "supabase"


async def test_the_seed_loads_twice_and_asks_for_awards(database: str) -> None:
    for _ in range(2):
        await migrate.seed(database, _SUPABASE / "seed.sql")

    connection = await asyncpg.connect(database)
    asked = await connection.fetch(
        "select payload #>> '{data,source_id}' as id from stepbase.outbox order by 1"
    )
    await connection.close()
    assert [row["id"] for row in asked] == ["order-1", "order-2", "order-4"]


def test_the_api_serves_public_alone() -> None:
    config = tomllib.loads((_SUPABASE / "config.toml").read_text("utf-8"))

    assert config["api"]["schemas"] == ["public"]
