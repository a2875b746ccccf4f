"""Fixtures for tests of the ledger: an effect that can be counted."""

import asyncpg
import pytest
from tests.conftest import Connect

# Each call adds a row and returns how many there are.
_EFFECT = """
create table public.effects (id bigint generated always as identity, note text, amount numeric);
create function public.add_effect(p_note text, p_amount numeric default 1, p_more json default null)
  returns bigint
  language plpgsql as $$
begin
  insert into effects (note, amount) values (p_note, p_amount);
  return (select count(*) from effects);
end
$$;
"""


@pytest.fixture
async def ledger(db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with `add_effect`."""
    await db.execute(_EFFECT)
    return db


@pytest.fixture
async def two(connect: Connect) -> tuple[asyncpg.Connection, asyncpg.Connection]:
    """Two connections to a database of the test's own with `add_effect`."""
    first, second = await connect(), await connect()
    await first.execute(_EFFECT)
    return first, second
