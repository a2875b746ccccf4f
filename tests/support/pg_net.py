"""A stand-in for pg_net, which cannot be installed here: its tables, SQL function, worker and losses.

As pg_net 0.20 was measured to behave: `net.http_post` inserts into an unlogged queue, so a rollback sends
nothing and a crash empties it; a worker takes up to 200 requests, sends them, and takes no more before
the last of them is answered or timed out; what it found out stands once in the unlogged table of responses;
it never tries anything again. The row leaves the queue before the request is sent, in the transaction that
stores the responses. Numbers begin anew after a crash.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import asyncpg

NET = """
create schema net;
create unlogged table net.http_request_queue (
  id bigserial primary key,
  method text not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds int not null
);
create unlogged table net._http_response (
  id bigint,
  status_code int,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);
create index on net._http_response (created);
create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds int default 5000
) returns bigint
  language sql
  as $$
    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    values ('POST', url, headers, convert_to(body::text, 'UTF8'), timeout_milliseconds)
    returning id
  $$;
"""

VAULT = """
create schema vault;
create table vault.secrets (name text unique, secret text not null);
create view vault.decrypted_secrets as select name, secret as decrypted_secret from vault.secrets;
create function vault.create_secret(new_secret text, new_name text) returns void
  language sql
  as $$ insert into vault.secrets values (new_name, new_secret) $$;
"""

CRON = """
create schema cron;
create table cron.job (jobid bigserial primary key, schedule text, command text, jobname text unique);
create function cron.schedule(job_name text, schedule text, command text) returns bigint
  language sql
  as $$
    insert into cron.job (schedule, command, jobname) values (schedule, command, job_name)
    on conflict (jobname) do update set schedule = excluded.schedule, command = excluded.command
    returning jobid
  $$;
create function cron.unschedule(job_id bigint) returns boolean
  language sql
  as $$ delete from cron.job where jobid = job_id returning true $$;
"""

BATCH = 200
_PAUSE_SECONDS = 0.05  # of a worker that finds nothing; the real one waits a second
_AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
)


@dataclass(frozen=True)
class _Response:
    id: int
    status: int | None
    headers: str
    content: str | None
    timed_out: bool
    error: str | None


class Worker:
    """The background worker of one database; comes back after a crash of the server."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.sent = 0

    async def run(self) -> None:
        """Work until cancelled."""
        async with aiohttp.ClientSession() as web:
            while True:
                with contextlib.suppress(*_AWAY):
                    await self._work(web)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _work(self, web: aiohttp.ClientSession) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            while True:
                if not await self._batch(connection, web):
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            connection.terminate()

    async def _batch(self, connection: asyncpg.Connection, web: aiohttp.ClientSession) -> int:
        async with connection.transaction():
            rows = await connection.fetch(
                "with batch as (select id from net.http_request_queue order by id limit $1)"
                " delete from net.http_request_queue as q using batch where q.id = batch.id returning q.*",
                BATCH,
            )
            responses = await asyncio.gather(*(self._send(web, row) for row in rows))
            await connection.executemany(
                "insert into net._http_response (id, status_code, headers, content, timed_out, error_msg)"
                " values ($1, $2, $3, $4, $5, $6)",
                [(r.id, r.status, r.headers, r.content, r.timed_out, r.error) for r in responses],
            )
        return len(rows)

    async def _send(self, web: aiohttp.ClientSession, row: asyncpg.Record) -> _Response:
        self.sent += 1
        try:
            async with (
                asyncio.timeout(row["timeout_milliseconds"] / 1000),
                web.post(
                    row["url"],
                    data=row["body"],
                    headers=json.loads(row["headers"]),
                    allow_redirects=False,
                ) as response,
            ):
                text = await response.text()
                return _Response(
                    row["id"],
                    response.status,
                    json.dumps(dict(response.headers)),
                    text,
                    False,
                    None,
                )
        except TimeoutError:
            return _Response(row["id"], None, "{}", None, True, "Timeout was reached")
        except aiohttp.ClientError as error:
            return _Response(row["id"], None, "{}", None, False, f"Couldn't connect: {error}")


@asynccontextmanager
async def working(dsn: str) -> AsyncIterator[Worker]:
    """Run the worker for the length of the block."""
    worker = Worker(dsn)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
