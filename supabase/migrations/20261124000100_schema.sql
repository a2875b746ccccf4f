-- stepbase: the schema, its clock, and the rules that every later file keeps.
--
-- What lives here
--   apps, functions        what was synced: who answers, for which events, with which options
--   events                 named facts, as functions see them; a run starts from one
--   runs, steps, attempts  one execution of a function, its memos, its failed attempts
--   queue                  what is to be done and when: one row per thing a run waits for
--   throttles              when the next run may start under a throttle
--   pauses                 stored waits: for an event or a signal, or for an event that cancels
--   crons                  when the functions with a schedule start next
--   dedupe                 event ids seen per function, for 24 hours
--   gates, buffers         rates by key; events that wait for quiet or for company
--   not_started            why an event started no run
--   outbox, ledger, …      the later files: events from row triggers, exactly-once calls
--
-- The life of a run: `ingest` inserts its event, its row and its first queue item; `lease` gives the
-- item to one engine; the engine calls the function over HTTP; `settle` writes everything the reply
-- asks for in one transaction and either keeps the lease (next call), frees the item, turns it into
-- a timer, or ends the run. `cancel` ends a run from outside. `sweep` deletes what is old.
--
-- Policy lives in Python, atomicity in SQL: these functions take due times and verdicts, they know
-- no backoff and no protocol. SQL decides what only a lock can decide: who gets the lease, whether a
-- reply is still wanted, whether an event id is new.
--
-- Lock order, for every function: senders' rates by user → names of events and signals (advisory) → outbox rows → singletons
-- (advisory) → runs by run_id (for no key update) → queue → pauses → dedupe by key → gates by key → buffers by key → inserts. `lease` starts at queue
-- but never waits (skip locked, advisory locks it can get), so it closes no cycle.
-- A two-connection test holds this (tests/engine/test_lock_order.py).
--
-- Time is `stepbase.now()`, the database's clock; no engine's own clock decides anything.
--
-- Error codes of our own, mapped once in engine/store.py and supabase/rpc.py:
--   SB001  a ledger key is used again with other arguments, or for another function or write
--   SB002  a function no step may call or a table none may write, or one in a schema that is not open
--   SB003  a result is larger than the ledger keeps
--   SB004  a call needs a key and has none
--   SB005  a ledger key is known, but its result is no longer kept
--   SB006  an update or delete has no filter
--   SB010  an event given to emit is malformed
--   SB011  a row trigger cannot be set up as asked
--   SB012  a row trigger failed while it emitted its event
--   SB013  the outbox belongs to another project: this is a copy
--   SB014  the relay on pg_net lacks something, or is not set up
--   SB015  the outbox is read by another kind of reader: engine, relay or pg_net; or by any, and is to be disarmed
--   SB020  retention cannot be scheduled: pg_cron is missing
--   SB101  the engine's copy of the functions is out of date: reload and send again
--   SB102  the signal is waited for already

create schema if not exists stepbase;
comment on schema stepbase is 'Durable step functions: events, runs, steps, outbox, exactly-once calls.';
revoke all on schema stepbase from public;

-- The clock of everything below; tests move it with `set stepbase.fake_now = '…'`.
-- plpgsql, because a SQL function that cannot be inlined is parsed anew in every transaction (30 µs).
create or replace function stepbase.now() returns timestamptz
language plpgsql stable security invoker set search_path = ''
as $$
begin
  return coalesce(
    nullif(pg_catalog.current_setting('stepbase.fake_now', true), '')::timestamptz,
    pg_catalog.clock_timestamp()
  );
end
$$;
comment on function stepbase.now() is 'The clock of all stepbase SQL: the database''s, unless a test sets stepbase.fake_now.';

-- The version of this schema; an engine refuses one that it does not know.
create table stepbase.schema_version (
  one boolean primary key default true constraint there_is_one_row check (one),
  version integer not null
);
insert into stepbase.schema_version (version) values (1);
alter table stepbase.schema_version enable row level security;
