"""What row triggers cost the writers of a table: 32 clients inserting paid purchases, durably.

Two kinds of writers:

  api   a transaction as the REST API makes it: begin, role and claims, the insert from JSON, commit
  bare  one insert statement and nothing else, the least that a writer can do

Each in three settings, one after the other in every round:

  without  `public.purchases` as it is, but no row triggers
  with     as the migrations have it: the event of a paid purchase goes into the outbox
  floor    instead, the least a trigger can do: one hand-written insert into a table with one index

`slowdown` is (transactions a second without) / (with) of the api's writers, which is how applications
on Supabase write; `slowdown_floor` is what no row trigger can go below. Medians over the rounds. The
server is durable (fsync, synchronous_commit) and otherwise as it comes. Clients are pgbench where it is
installed, else processes on asyncpg; `clients` says which.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from stepbase.local import migrate
from stepbase.local.postgres import Cluster

_CLIENTS = 32

_MERCHANTS = """
insert into public.merchants (id, name, rate_bp) select n::text, 'M' || n, 250 from generate_series(0, 9) n
"""

_INSERT = """
insert into public.purchases (merchant_id, user_id, amount_cents, status)
values (floor(random() * 10)::text, gen_random_uuid(), 1234, 'paid')
"""

# What PostgREST sends for `client.table("purchases").insert({…}).execute()`.
_REQUEST = """
select set_config('search_path', '"public", "extensions"', true),
  set_config('role', 'service_role', true),
  set_config('request.jwt.claims', '{"iss": "supabase", "role": "service_role", "exp": 2e9}', true),
  set_config('request.method', 'POST', true),
  set_config('request.path', '/purchases', true),
  set_config('request.headers', '{"accept": "*/*", "content-profile": "public",
    "content-type": "application/json", "host": "127.0.0.1:54321", "prefer": "return=representation",
    "user-agent": "python-httpx", "x-client-info": "supabase-py"}', true),
  set_config('request.cookies', '{}', true)
"""
_INSERT_JSON = """
with source as (
  insert into public.purchases (merchant_id, user_id, amount_cents, status)
  select b.merchant_id, b.user_id, b.amount_cents, b.status
  from (
    select json_build_object('merchant_id', floor(random() * 10)::text, 'user_id', gen_random_uuid(),
      'amount_cents', 1234, 'status', 'paid') as data
  ) as payload,
  lateral (
    select *
    from json_to_record(payload.data)
      as _(merchant_id text, user_id uuid, amount_cents bigint, status text)
  ) as b
  returning purchases.*
)
select '' as total, count(r) as page_total, coalesce(json_agg(r), '[]') as body,
  nullif(current_setting('response.headers', true), '') as headers,
  nullif(current_setting('response.status', true), '') as status
from (select source.* from source) as r
"""

_WRITERS = {"api": ["begin", _REQUEST, _INSERT_JSON, "commit"], "bare": [_INSERT]}

_SETTINGS = {
    "without": "select 1",
    # As supabase/migrations has them: the bench takes them away and puts them back.
    "with": """
      select stepbase.track('public.purchases', e.event, e.condition, e.columns)
      from row_triggers_as_shipped as e
    """,
    "floor": """
      create trigger floor after insert on public.purchases
        for each row when (new.status = 'paid') execute function public.emit_floor()
    """,
}

_FLOOR = """
create table public.floor_events (id uuid primary key, name text, data json);
create function public.emit_floor() returns trigger
  language plpgsql security definer set search_path = '' as $$
begin
  insert into public.floor_events
  values (gen_random_uuid(), 'currency/award.requested', json_build_object(
    'user_id', new.user_id, 'merchant_id', new.merchant_id, 'source_id', new.id,
    'amount', new.amount_cents));
  return null;
end
$$;
create table row_triggers_as_shipped as
  select event, condition, columns from stepbase.row_triggers
  where table_id = 'public.purchases'::regclass;
"""

Write = Callable[[str, list[str], float], float]
"""Writes for some seconds with 32 clients; returns transactions a second."""


def write_with_pgbench(dsn: str, statements: list[str], seconds: float) -> float:
    """Let pgbench write."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write("".join(f"{' '.join(each.split())};\n" for each in statements))
        script.flush()
        options = ["-n", "-M", "prepared", "-c", str(_CLIENTS), "-j", "2", "-f", script.name]
        done = subprocess.run(
            [_pgbench(), *options, "-T", str(max(1, round(seconds))), dsn],
            check=True,
            capture_output=True,
            text=True,
        )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench printed no tps: {done.stdout}")
    return float(found[1])


def write_with_asyncpg(dsn: str, statements: list[str], seconds: float) -> float:
    """Let two processes of sixteen connections each write."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return sum(pool.starmap(_write, [(dsn, statements, seconds)] * 2))


def _write(dsn: str, statements: list[str], seconds: float) -> float:
    async def client(until: float) -> int:
        connection = await asyncpg.connect(dsn)
        count = 0
        while time.monotonic() < until:
            for each in statements:
                await connection.execute(each)
            count += 1
        await connection.close()
        return count

    async def clients() -> float:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(client(until) for _ in range(_CLIENTS // 2)))) / seconds

    return asyncio.run(clients())


def _pgbench() -> str:
    """Return pgbench's path: beside the server's binaries, or on PATH; '' if there is none."""
    beside = Path(Cluster(durable=True).binaries.folder) / "pgbench"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("pgbench") or ""


async def _prepare(dsn: str) -> None:
    await migrate.apply(dsn)
    connection = await asyncpg.connect(dsn)
    await connection.execute(_MERCHANTS)
    await connection.execute(_FLOOR)
    await connection.close()


async def _start(dsn: str, setting: str) -> None:
    """Empty the tables, give purchases its triggers, and get the checkpoint out of the way."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("truncate public.purchases, stepbase.outbox, public.floor_events")
    await connection.execute("select stepbase.untrack('public.purchases')")
    await connection.execute("drop trigger if exists floor on public.purchases")
    await connection.execute(_SETTINGS[setting])
    await connection.execute("checkpoint")
    await connection.close()


async def _check(dsn: str, setting: str) -> None:
    """Make sure that what was measured is what happened: an event per purchase, or none."""
    connection = await asyncpg.connect(dsn)
    counts = await connection.fetchrow(
        """
        select (select count(*) from public.purchases) as purchases,
          (select count(*) from stepbase.outbox) as "with",
          (select count(*) from public.floor_events) as floor
        """
    )
    await connection.close()
    assert counts is not None, "a count is a row"
    for name in ("with", "floor"):
        expected = counts["purchases"] if name == setting else 0
        if counts["purchases"] == 0 or counts[name] != expected:
            raise RuntimeError(f"{setting}: {dict(counts)}")


def measure(dsn: str, write: Write, statements: list[str], seconds: float) -> dict[str, float]:
    """Return transactions a second by setting."""
    found = {}
    for setting in _SETTINGS:
        asyncio.run(_start(dsn, setting))
        found[setting] = write(dsn, statements, seconds)
        asyncio.run(_check(dsn, setting))
    return found


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args()
    has_pgbench = bool(_pgbench())
    write = write_with_pgbench if has_pgbench else write_with_asyncpg

    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in _WRITERS}
    with Cluster(durable=True) as cluster:
        dsn = cluster.dsn()
        asyncio.run(_prepare(dsn))
        for number in range(options.rounds + 1):
            for name, statements in _WRITERS.items():
                found = measure(dsn, write, statements, options.seconds)
                # The first round warms up.
                if number > 0:
                    rounds[name].append(found)
                    shown = "  ".join(f"{each} {tps:6.0f}/s" for each, tps in found.items())
                    print(f"{name:5} {shown}", flush=True)

    print(json.dumps(_summary(rounds, options.rounds, has_pgbench), ensure_ascii=False))


def _summary(
    rounds: dict[str, list[dict[str, float]]], count: int, has_pgbench: bool
) -> dict[str, object]:
    def slowdown(writer: str, setting: str) -> float:
        return round(statistics.median(r["without"] / r[setting] for r in rounds[writer]), 3)

    def tps(writer: str, setting: str) -> int:
        return round(statistics.median(r[setting] for r in rounds[writer]))

    return {
        "slowdown": slowdown("api", "with"),
        "slowdown_floor": slowdown("api", "floor"),
        "tps_without": tps("api", "without"),
        "tps_with": tps("api", "with"),
        "slowdown_bare": slowdown("bare", "with"),
        "slowdown_bare_floor": slowdown("bare", "floor"),
        "tps_bare_without": tps("bare", "without"),
        "tps_bare_with": tps("bare", "with"),
        "rounds": count,
        "clients": f"{_CLIENTS} × {'pgbench' if has_pgbench else 'asyncpg'}",
    }


if __name__ == "__main__":
    main()
