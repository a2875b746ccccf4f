-- What the engine's API reads. Instants leave as timestamptz, JSON as the text that was stored.

-- One event by its internal id.
create or replace function stepbase.get_event(p_id text)
returns table (id text, payload text, received_at timestamptz, source text)
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select e.id, e.payload::text, e.received_at, e.source from stepbase.events e where e.id = p_id
$$;

-- Events, newest first, by name (or all) and before an internal id (or from the newest). Two statements,
-- because no plan serves both: one walks the primary key, the other the names.
create or replace function stepbase.list_events(
  p_limit integer, p_before text, p_name text, p_after timestamptz, p_until timestamptz
) returns table (id text, payload text, received_at timestamptz, source text)
language plpgsql stable security invoker set search_path = ''
set enable_seqscan = off set enable_sort = off
as $$
declare
  -- Behind every ULID.
  v_before constant text collate "C" := coalesce(p_before, '~');
begin
  if p_name is null then
    return query
      select e.id, e.payload::text, e.received_at, e.source
        from stepbase.events e
        where e.id < v_before and e.received_at >= coalesce(p_after, '-infinity')
          and e.received_at <= coalesce(p_until, 'infinity')
        order by e.id desc limit p_limit;
  else
    return query
      select e.id, e.payload::text, e.received_at, e.source
        from stepbase.events e
        where e.name = p_name
          and e.id < v_before and e.received_at >= coalesce(p_after, '-infinity')
          and e.received_at <= coalesce(p_until, 'infinity')
        order by e.id desc limit p_limit;
  end if;
end
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
    from (
      -- Not `or`: each half is a look-up, together they would be a walk through all runs.
      select * from stepbase.runs x where x.run_id = p_run
      union all
      select * from stepbase.runs x where x.event_id = p_event
    ) r
    order by r.run_id
$$;

-- A run's queue items.
create or replace function stepbase.get_jobs(p_run text)
returns table (job text, kind text, at timestamptz, attempt smallint, is_leased boolean)
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select q.job, q.kind, coalesce(nullif(q.due_at, 'infinity'), q.score), q.attempt, q.owner is not null
    from stepbase.queue q where q.run_id = p_run order by q.job
$$;

-- The stored memos of a live run in stack order (that of the sleeper its current call wakes comes last),
-- for calls too large to carry them, and which steps are open; no row when the run has ended.
create or replace function stepbase.get_state(p_run text)
returns table (
  event text, hashes text[], memos text[], open_hashes text[], edits text, more_events text[]
)
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select e.payload::text, m.hashes, m.memos, m.open_hashes, r.edits::text, stepbase._payloads(r.event_ids)
    from stepbase.runs r
    cross join lateral (
      select x.payload from stepbase.events x where x.id = r.event_id offset 0
    ) e
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
                     offset 0
                 ) as is_closed
            from stepbase.steps k where k.run_id = r.run_id
        ) s
    ) m on true
    where r.run_id = p_run and r.ended_at is null
$$;
