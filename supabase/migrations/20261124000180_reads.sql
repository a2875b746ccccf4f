-- What the engine's API reads. Instants leave as timestamptz, JSON as the text that was stored.

-- One event by its internal id.
create or replace function stepbase.get_event(p_id text)
returns table (id text, payload text, received_at timestamptz, source text)
language sql stable security invoker set search_path = ''
as $$
  select e.id, e.payload::text, e.received_at, e.source from stepbase.events e where e.id = p_id
$$;

-- Events, newest first, by name (or all) and before an internal id (or from the newest).
create or replace function stepbase.list_events(
  p_limit integer, p_before text, p_name text, p_after timestamptz, p_until timestamptz
) returns table (id text, payload text, received_at timestamptz, source text)
language sql stable security invoker set search_path = ''
as $$
  select e.id, e.payload::text, e.received_at, e.source
    from stepbase.events e
    where (p_name is null or e.name = p_name)
      and (p_before is null or e.id < p_before)
      and (p_after is null or e.received_at >= p_after)
      and (p_until is null or e.received_at <= p_until)
    order by e.id desc limit p_limit
$$;

-- Runs by id, or by the internal id of their event; one of the two is null.
create or replace function stepbase.get_runs(p_run text, p_event text)
returns table (
  run_id text, function_id uuid, fn_version integer, event_id text, original_run_id text,
  status text, output text, error text, created_at timestamptz, started_at timestamptz,
  ended_at timestamptz
)
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select r.run_id, r.function_id, r.fn_version, r.event_id, r.original_run_id, r.status,
         r.output::text, r.error::text, r.created_at, r.started_at, r.ended_at
    from stepbase.runs r
    where r.run_id = p_run or r.event_id = p_event
    order by r.run_id
$$;

-- A run's queue items.
create or replace function stepbase.get_jobs(p_run text)
returns table (job text, kind text, at timestamptz, attempt smallint, is_leased boolean)
language sql stable security invoker set search_path = ''
as $$
  select q.job, q.kind, coalesce(nullif(q.due_at, 'infinity'), q.score), q.attempt, q.owner is not null
    from stepbase.queue q where q.run_id = p_run order by q.job
$$;

-- The stored memos of a live run in stack order (that of the sleeper its current call wakes comes last),
-- for calls too large to carry them, and which steps are open; no row when the run has ended.
create or replace function stepbase.get_state(p_run text)
returns table (event text, hashes text[], memos text[], open_hashes text[])
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select e.payload::text, m.hashes, m.memos, m.open_hashes
    from stepbase.runs r
    join stepbase.events e on e.id = r.event_id
    left join lateral (
      select array_agg(s.hash order by s.pos) filter (where s.is_closed) as hashes,
             array_agg(s.memo::text order by s.pos) filter (where s.is_closed) as memos,
             array_agg(s.hash) filter (where not s.is_closed) as open_hashes
        from (
          select k.hash, k.memo, k.pos,
                 k.status in ('done', 'failed') or exists (
                   select from stepbase.queue q
                     where q.run_id = k.run_id and q.kind = 'sleep' and q.step = k.hash
                       and q.owner is not null
                 ) as is_closed
            from stepbase.steps k where k.run_id = r.run_id
        ) s
    ) m on true
    where r.run_id = p_run and r.ended_at is null
$$;
