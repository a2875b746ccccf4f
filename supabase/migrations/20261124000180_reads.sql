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

-- Why an event started no run of its own of some functions.
create or replace function stepbase.get_not_started(p_event text)
returns table (function_id uuid, slug text, reason text, run_id text, at timestamptz)
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select n.function_id, f.slug, n.reason, n.run_id, n.at
    from (select * from stepbase.not_started x where x.event_id = p_event offset 0) n
    left join stepbase.functions f on f.function_id = n.function_id
    order by n.at, f.slug
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

-- What people look at of a run: its steps as they began, without memos. Of an open step also its queue
-- item, its pause and the run it invoked; of a wait that is over, the name and id of its event.
create or replace function stepbase.get_trace(p_run text)
returns table (
  hash text, name text, op text, status text, attempt smallint, started_at timestamptz,
  ended_at timestamptz, due_at timestamptz, is_leased boolean, event_name text, path text, value text,
  residual text, has_data boolean, found_name text, found_id text, error_name text, child_run text,
  child_event text, child_function uuid
)
language sql stable security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
  select k.hash, k.name, k.op, k.status, k.attempt, k.started_at, k.ended_at,
         nullif(q.due_at, 'infinity'), q.owner is not null, p.event_name, p.path, p.value, p.residual,
         k.op not like 'WaitFor%' or k.memo::text <> 'null',
         case when k.op = 'WaitForEvent' and k.memo::text <> 'null' then k.memo ->> 'name' end,
         case when k.op = 'WaitForEvent' and k.memo::text <> 'null' then k.memo ->> 'id' end,
         case when k.op = 'InvokeFunction' and k.status = 'failed' then k.memo -> 'error' ->> 'name' end,
         c.run_id, c.event_id, c.function_id
    from (select * from stepbase.steps x where x.run_id = p_run offset 0) k
    left join lateral (
      select x.due_at, x.owner from stepbase.queue x
        where x.run_id = p_run and x.job in (k.hash, 'main')
          and (x.job = k.hash or x.kind = 'sleep' and x.step = k.hash)
        offset 0
    ) q on k.ended_at is null
    left join lateral (
      select x.event_name, x.path, x.value, x.residual from stepbase.pauses x
        where x.run_id = p_run and x.hash = k.hash offset 0
    ) p on k.ended_at is null
    left join lateral (
      select x.run_id, x.event_id, x.function_id from stepbase.runs x
        where x.parent_run = p_run and x.parent_hash = k.hash offset 0
    ) c on k.op = 'InvokeFunction'
    order by k.started_at, k.pos
$$;

-- A run's failed attempts in their order, at most p_limit.
create or replace function stepbase.get_attempts(p_run text, p_limit integer)
returns table (id bigint, hash text, attempt smallint, at timestamptz)
language sql stable security invoker set search_path = '' set enable_seqscan = off set enable_sort = off
as $$
  select a.id, a.hash, a.attempt, a.at from stepbase.attempts a
    where a.run_id = p_run order by a.id limit p_limit
$$;

-- The stored memo of a step that is over (p_hash), or the error of a failed attempt (p_attempt), as memos
-- have it; the other one is null.
create or replace function stepbase.get_memo(p_run text, p_hash text, p_attempt bigint)
returns table (op text, memo text)
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select k.op, k.memo::text from stepbase.steps k
    where k.run_id = p_run and k.hash = p_hash and k.status in ('done', 'failed')
  union all
  select '', '{"error":' || a.error::text || '}' from stepbase.attempts a
    where a.run_id = p_run and a.id = p_attempt
$$;

-- The events of a run, one or a batch, in their order.
create or replace function stepbase.get_trigger(p_run text)
returns table (ids text[], is_batch boolean, payloads text[])
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select coalesce(r.event_ids, array[r.event_id]), r.event_ids is not null,
         stepbase._payloads(coalesce(r.event_ids, array[r.event_id]))
    from stepbase.runs r where r.run_id = p_run
$$;

-- The runs of several events, at most p_each of each, without what they returned.
create or replace function stepbase.get_runs_of(p_events text[], p_each integer)
returns table (
  run_id text, function_id uuid, event_id text, status text, created_at timestamptz,
  started_at timestamptz, ended_at timestamptz
)
language sql stable security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
  select r.run_id, r.function_id, r.event_id, r.status, r.created_at, r.started_at, r.ended_at
    from unnest(p_events) as e (id)
    cross join lateral (
      -- Not one query: ordered and limited, the planner would rather walk through all runs.
      select * from (
        select * from stepbase.runs x where x.event_id = e.id offset 0
      ) y order by y.run_id limit p_each
    ) r
    order by r.run_id
$$;
