"""A small history, as a loyalty programme would leave it: some runs fail, some wait."""

import asyncpg

# A run a minute for the last 55 minutes; ids as their times make them. Of every run: a purchase's event,
# three steps. Every 11th failed at its last step after two attempts, every 7th needed a second attempt.
_FILL = """
insert into stepbase.apps (app_id, name, url, sdk, framework, checksum, synced_at)
  values (md5('currency')::uuid, 'currency', 'https://x.supabase.co/compute/v1/currency', '', '', '', now());
insert into stepbase.functions (function_id, app_id, slug, name, config)
  select md5(slug)::uuid, md5('currency')::uuid, slug, slug, '{}'
    from unnest(array['currency-award', 'currency-reverse', 'orders-follow-up']) as slug;
create temporary table made as
  select n, at, stepbase.ulid_floor(at) || lpad(n::text, 16, '0') as id,
         case when n % 5 = 0 then 'currency-reverse' else 'currency-award' end as slug,
         n % 11 = 0 as fails, n % 7 = 0 as stumbles
    from generate_series(1, 55) n cross join lateral (select now() - n * interval '1 minute' as at) t;
insert into stepbase.events (id, event_id, name, payload, ts, received_at)
  select id, 'purchase-' || n,
         case when n % 5 = 0 then 'purchase/refunded' else 'currency/award.requested' end,
         json_build_object('name', 'x', 'data', json_build_object('source_id', n)), at, at
    from made;
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, step_count, created_at, started_at, ended_at,
     output, error)
  select id, md5(slug)::uuid, 1, id, case when fails then 'Failed' else 'Completed' end, 3, at,
         at + interval '20 ms', at + interval '900 ms' + n * interval '10 ms',
         case when not fails then '{"success":true,"amount":12}'::json end,
         case when fails then json_build_object(
           'name', 'RpcError', 'message', 'post_wallet_transaction: the wallet is closed (P0001)',
           'cause', json_build_object('name', 'APIError', 'message', 'the wallet is closed')) end
    from made;
insert into stepbase.steps (run_id, hash, pos, name, op, status, memo, attempt, started_at, ended_at)
  select m.id, md5(s.name), s.pos, s.name, 'StepRun',
         case when m.fails and s.pos = 3 then 'failed' else 'done' end,
         json_build_object('data', s.pos), case when (m.fails or m.stumbles) and s.pos = 3 then 1 else 0 end,
         m.at + s.since::interval, m.at + s.until::interval
    from made m cross join (values
      (1, 'calc_currency_for_source', '20 ms', '60 ms'), (2, 'get_merchant_config', '70 ms', '95 ms'),
      (3, 'post_wallet_transaction', '500 ms', '880 ms')) as s (pos, name, since, until);
insert into stepbase.attempts (run_id, hash, attempt, at, http_status, error)
  select id, md5('post_wallet_transaction'), 0, at + interval '110 ms', 206,
         '{"name":"RpcError","message":"post_wallet_transaction: no answer from Supabase"}'::json
    from made where stumbles
  union all
  select id, md5('post_wallet_transaction'), k, at + interval '110 ms' + k * interval '770 ms', 206,
         '{"name":"RpcError","message":"the wallet is closed (P0001)"}'::json
    from made cross join generate_series(0, 1) k where fails;

-- Live runs: one asleep, one that waits for an event and is to be tried again, one of another server.
insert into stepbase.events (id, event_id, name, payload, ts, received_at)
  select stepbase.ulid_floor(at) || lpad((100 + n)::text, 16, '0'), 'order-' || n, 'order/paid',
         '{"name":"order/paid","data":{},"user":{"id":"user-1"}}', at, at
    from generate_series(1, 4) n cross join lateral (select now() - n * interval '30 seconds' as at) t;
insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, step_count, created_at, started_at, recorded_at)
  select e.id, md5('orders-follow-up')::uuid, 1, e.id, 'Running', 0, e.ts, e.ts + interval '15 ms',
         case when right(e.id, 1) = '3' then e.ts end
    from stepbase.events e where e.event_id in ('order-1', 'order-2', 'order-3');
insert into stepbase.steps (run_id, hash, pos, name, op, status, started_at)
  select r.run_id, s.hash, 2147483647, s.name, s.op, s.status, r.started_at
    from stepbase.runs r join (values
      ('1', 'h1', 'give-it-a-day', 'Sleep', 'sleeping'), ('2', 'h2', 'refund', 'WaitForEvent', 'waiting'),
      ('3', 'h3', 'refund', 'WaitForEvent', 'waiting')) as s (last, hash, name, op, status)
      on right(r.run_id, 1) = s.last and r.ended_at is null;
insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
  select r.run_id, case right(r.run_id, 1) when '1' then 'main' else 'h2' end,
         case right(r.run_id, 1) when '1' then 'sleep' else 'wait' end,
         case right(r.run_id, 1) when '1' then 'h1' end, false, now(), now() + interval '1 day'
    from stepbase.runs r where r.ended_at is null and r.recorded_at is null;
insert into stepbase.pauses (run_id, hash, kind, event_name, path, own_events, expires_at)
  select r.run_id, 'h2', 'event', 'order/refunded', '', '{}', now() + interval '1 day'
    from stepbase.runs r where r.ended_at is null and right(r.run_id, 1) = '2';
insert into stepbase.recorded_waits (run_id, hash, kind, what, due_at)
  select r.run_id, 'h3', 'event', 'order/refunded', now() + interval '2 days'
    from stepbase.runs r where r.recorded_at is not null;
insert into stepbase.not_started (event_id, function_id, reason, at)
  select e.id, md5('orders-follow-up')::uuid, 'rate_limited', e.ts
    from stepbase.events e where e.event_id = 'order-4';

-- The outbox: one that waits, one dead.
select stepbase.emit('order/paid', '{}', 'waits'), stepbase.emit('order/paid', '{}', 'dead');
update stepbase.outbox set dead_at = now(), tries = 20, error = 'HTTP 401: the event key is not known'
  where id = 'dead';
insert into stepbase.ledger (key, run_id, fn, arg_hashes, result, created_at)
  select 'key:award:' || n, id, 'public.post_wallet_transaction', '{}', '12', at from made;
analyze
"""


async def fill(connection: asyncpg.Connection) -> None:
    """Write the history into a migrated database."""
    await connection.execute(_FILL)
