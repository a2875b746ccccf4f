"""The seed data and the CLI's settings that come with the migrations."""

import tomllib
from pathlib import Path

import asyncpg

from stepbase.local import migrate

_SUPABASE = Path(__file__).parents[2] / "supabase"


async def test_the_seed_loads_twice_and_tells_every_app_something(database: str) -> None:
    for _ in range(2):
        await migrate.seed(database, _SUPABASE / "seed.sql")

    connection = await asyncpg.connect(database)
    rows = await connection.fetch(
        "select name, coalesce(payload #>> '{data,source_id}', payload #>> '{data,email}') as about"
        " from stepbase.outbox order by name, about"
    )
    await connection.close()
    told: dict[str, list[str]] = {}
    for row in rows:
        told.setdefault(row["name"], []).append(row["about"])
    assert told == {
        "currency/award.requested": ["order-0", "order-1", "order-2", "order-4", "order-5"],
        "purchase/placed": ["order-3"],
        "user/signup": ["ann@shop.example", "bob@shop.example"],
    }


async def test_the_seeds_wallets_hold_their_transactions(database: str) -> None:
    await migrate.seed(database, _SUPABASE / "seed.sql")

    connection = await asyncpg.connect(database)
    [row] = await connection.fetch(
        "select w.balance, sum(t.amount) as booked from public.wallets as w"
        " join public.wallet_transactions as t using (user_id) group by w.user_id"
    )
    due = await connection.fetch("select * from public.awards_to_expire('books', now())")
    await connection.close()
    assert row["balance"] == row["booked"]
    assert len(due) == 1


def test_the_api_serves_public_alone() -> None:
    config = tomllib.loads((_SUPABASE / "config.toml").read_text("utf-8"))

    assert config["api"]["schemas"] == ["public"]
