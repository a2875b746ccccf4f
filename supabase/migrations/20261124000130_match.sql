-- Matching events against pauses, and ending runs.

-- The one way to write a JSON scalar for comparison: strings quoted, numbers without trailing zeros,
-- long values as their SHA-256. Null, objects and arrays give null, which equals nothing. Both sides
-- of every comparison go through here, so 5 and 5.0 are equal and "5" is not 5.
create or replace function stepbase.canon(p_value jsonb) returns text
language sql immutable parallel safe security invoker set search_path = ''
as $$
  select case when pg_catalog.octet_length(v.text) > 64
              then pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(v.text, 'UTF8')), 'hex')
              else v.text end
    from (
      select case pg_catalog.jsonb_typeof(p_value)
               when 'string' then p_value::text
               when 'boolean' then p_value::text
               when 'number' then pg_catalog.trim_scale(p_value::numeric)::text
             end as text
    ) v
$$;

-- Says whether a run waits for anything in parallel to its next call.
create or replace function stepbase._has_open_step(p_run text) returns boolean
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select exists (
    select from stepbase.steps k where k.run_id = p_run and k.status in ('sleeping', 'waiting', 'planned', 'invoking')
  )
$$;

-- Closes open steps: stores how they ended, and removes what they waited with (their queue item and
-- pause). When the last open step of a run is closed, the parked call (`main`) becomes ready; in a race every
-- closed step but the last makes a call of its own ready. The first outcome of a step stays: one that is closed already is passed over.
-- p_began, p_ended: so many seconds before now its work began and ended, where the function says so; else it
-- has been under way since it was opened. The caller holds the locks of the run rows.
create or replace function stepbase._close_steps(
  p_runs text[], p_hashes text[], p_status text[], p_memos text[], p_now timestamptz,
  p_began double precision[] default null, p_ended double precision[] default null
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_runs text[];
  v_hashes text[];
begin
  with closed as (
    update stepbase.steps k
      set status = u.status, memo = u.memo::json, pos = u.step_count + u.n,
          started_at = coalesce(greatest(p_now - u.began * interval '1 second', u.created_at), k.started_at),
          ended_at = p_now - coalesce(u.ended, 0) * interval '1 second'
      from (
        select x.run_id, x.hash, x.status, x.memo, x.began, x.ended, r.step_count,
               case when x.began is not null then r.created_at end as created_at,
               row_number() over (partition by x.run_id order by x.i) as n
          from (
            select distinct on (x.run_id, x.hash) x.*
              from unnest(p_runs, p_hashes, p_status, p_memos, p_began, p_ended) with ordinality
                as x (run_id, hash, status, memo, began, ended, i)
              order by x.run_id, x.hash, x.i
          ) x
          join stepbase.runs r
            on r.run_id = x.run_id and r.ended_at is null and r.run_id = any (p_runs)
          join stepbase.steps o
            on o.run_id = x.run_id and o.hash = x.hash and o.status in ('sleeping', 'waiting', 'planned', 'invoking')
           and o.run_id = any (p_runs) and o.hash = any (p_hashes)
      ) u
      where k.run_id = u.run_id and k.hash = u.hash
        and k.run_id = any (p_runs) and k.hash = any (p_hashes)
      returning k.run_id, k.hash
  )
  select array_agg(c.run_id), array_agg(c.hash) into v_runs, v_hashes from closed c;
  if v_runs is null then
    return;
  end if;
  delete from stepbase.pauses p
    using unnest(v_runs, v_hashes) as c (run_id, hash)
    where p.run_id = c.run_id and p.hash = c.hash
      and p.run_id = any (v_runs) and p.hash = any (v_hashes);
  delete from stepbase.queue q
    using unnest(v_runs, v_hashes) as c (run_id, hash)
    where q.run_id = c.run_id and q.job = c.hash
      and q.run_id = any (v_runs) and q.job = any (v_hashes);
  update stepbase.runs r
    set step_count = r.step_count + t.steps,
        state_bytes = r.state_bytes + t.bytes,
        planning = case when t.is_open then r.planning else 0 end
    from (
      select c.run_id, count(*)::int as steps,
             sum((select coalesce(octet_length(k.memo::text), 0) from stepbase.steps k
                    where k.run_id = c.run_id and k.hash = c.hash))::int as bytes,
             stepbase._has_open_step(c.run_id) as is_open
        from unnest(v_runs, v_hashes) as c (run_id, hash)
        group by c.run_id
    ) t
    where r.run_id = t.run_id and r.run_id = any (v_runs);
  update stepbase.queue q
    set ready = true, due_at = null, kind = 'edge', step = null, attempt = 0
    where q.run_id = any (v_runs) and q.job = 'main' and q.due_at = 'infinity'
      and not stepbase._has_open_step(q.run_id)
      and not exists (
        select from stepbase.queue a
          where a.run_id = q.run_id and a.job like 'after:%' and a.run_id = any (v_runs)
      );
  -- In a race the run goes on after each step that closes, in one call at a time: what has won may take
  -- long, and a loser that ends meanwhile must not have the same code run beside it. See _next_of_race.
  insert into stepbase.queue (run_id, job, kind, ready, due_at, score, lane, key_1, key_2)
    select r.run_id, 'after:' || c.hash, 'edge', c.is_next,
           case when not c.is_next then timestamptz 'infinity' end, m.score, m.lane, m.key_1, m.key_2
      from (
        select u.run_id, u.hash,
               row_number() over (partition by u.run_id order by u.hash) = 1
               and not exists (
                 select from stepbase.queue a
                   where a.run_id = u.run_id and a.job like 'after:%' and a.run_id = any (v_runs)
               ) as is_next
          from unnest(v_runs, v_hashes) as u (run_id, hash)
      ) c
      join stepbase.runs r
        on r.run_id = c.run_id and r.planning = 2 and r.run_id = any (v_runs)
      join stepbase.queue m
        on m.run_id = r.run_id and m.job = 'main' and m.run_id = any (v_runs)
    on conflict do nothing;
  perform pg_catalog.pg_notify('stepbase', 'q');
end
$$;

-- Lets runs go on whose last call of a race is done: with the next such call, or with their own item if
-- nothing is open. For settle. Locks: queue.
create or replace function stepbase._next_of_race(p_runs text[]) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
begin
  update stepbase.queue q
    set ready = true, due_at = null, kind = 'edge', step = null, attempt = 0
    from (
      -- 'after:…' comes before 'main'.
      select distinct on (k.run_id) k.run_id, k.job
        from stepbase.queue k
        where k.run_id = any (p_runs) and k.due_at = 'infinity' and k.owner is null
          and (k.job like 'after:%' or (k.job = 'main' and not stepbase._has_open_step(k.run_id)))
          and not exists (
            select from stepbase.queue a
              where a.run_id = k.run_id and a.job like 'after:%' and a.run_id = any (p_runs)
                and a.due_at is distinct from 'infinity'
          )
        order by k.run_id, k.job
    ) t
    where q.run_id = t.run_id and q.job = t.job and q.run_id = any (p_runs);
  if found then
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;
end
$$;

-- Tells of ended runs in events of the server's own, where a function is started by them or a run waits
-- for them: through the outbox, so that they are matched like any other event. Runs that were started by
-- such an event tell of nothing, which ends every circle.
create or replace function stepbase._tell(p_runs text[], p_now timestamptz) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_names constant text[] := array[
    'inngest/function.finished', 'inngest/function.failed', 'inngest/function.cancelled'
  ];
  v_wanted text[];
begin
  select e.listens into v_wanted from stepbase.epoch e;
  -- A range, so that the usual "nobody" is one look into the index.
  if exists (
    select from stepbase.pauses p where p.event_name >= 'inngest/' and p.event_name < 'inngest0'
  ) then
    v_wanted := v_names;
  end if;
  if not (v_wanted && v_names) then
    return;
  end if;
  insert into stepbase.outbox (id, name, payload, created_at, due_at)
    select n.id, n.name,
           json_build_object(
             'name', n.name, 'id', n.id,
             'ts', floor(date_part('epoch', p_now) * 1000)::bigint,
             'data', (left(json_build_object(
               'function_id', f.slug, 'run_id', r.run_id, 'event', e.payload,
               'events', json_build_array(e.payload), 'result', coalesce(r.output, r.error),
               'error', case when a.http_status >= 300 and r.error::text like '{%}' then
                 ('{"error":"invalid status code: ' || a.http_status || '"'
                  || case r.error::text when '{}' then '}'
                          else ',' || substr(r.error::text, 2) end)::json
                 else r.error end,
               '_inngest', json_build_object('status', r.status)
             )::text, -1)
             || coalesce(',"correlation_id":' || to_json(r.parent_run || '.' || r.parent_hash), '')
             || '}')::json
           ),
           p_now, p_now
      from (select * from stepbase.runs r where r.run_id = any (p_runs) offset 0) r
      cross join lateral (
        select x.slug from stepbase.functions x where x.function_id = r.function_id offset 0
      ) f
      cross join lateral (
        select x.name, x.payload from stepbase.events x where x.id = r.event_id offset 0
      ) e
      left join lateral (
        -- The status of the last answer, if the run failed by that and not by what was in it.
        select x.http_status from stepbase.attempts x
          where x.run_id = r.run_id and x.hash is null and r.status = 'Failed'
            and x.error::text = r.error::text
          order by x.id desc limit 1
      ) a on true
      cross join lateral (values
        ('inngest/function.finished', 'finished:' || r.run_id),
        (case r.status when 'Failed' then 'inngest/function.failed'
                       when 'Cancelled' then 'inngest/function.cancelled' end, r.run_id)
      ) as n (name, id)
      where n.name = any (v_wanted) and not (e.name = any (v_names))
    on conflict do nothing;
  perform pg_catalog.pg_notify('stepbase', 'o');
end
$$;

-- Ends runs: writes their final state, removes every queue item and pause, gives the result to the step
-- that invoked them, and tells whoever listens. The caller holds the locks of the run rows, of the
-- invoking runs too, and passes only runs that have not ended.
create or replace function stepbase._finish(
  p_runs text[], p_status text[], p_output text[], p_error text[], p_now timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_parents text[];
  v_hashes text[];
  v_status text[];
  v_memos text[];
  v_frees_slot boolean;
begin
  with ended as (
    update stepbase.runs r
      set status = u.status, output = u.output::json, error = u.error::json, ended_at = p_now,
          started_at = coalesce(r.started_at, p_now)
      from unnest(p_runs, p_status, p_output, p_error) as u (run_id, status, output, error)
      where r.run_id = u.run_id and r.run_id = any (p_runs)
      returning r.parent_run, r.parent_hash, r.planning, u.*
  ), left_open as (
    update stepbase.steps k
      set status = 'cancelled', ended_at = p_now
      from ended e
      where k.run_id = e.run_id and (e.status <> 'Completed' or e.planning <> 0)
        and k.run_id = any (p_runs) and k.status in ('sleeping', 'waiting', 'planned', 'invoking')
  )
  select array_agg(e.parent_run), array_agg(e.parent_hash),
         array_agg(case when e.status = 'Completed' then 'done' else 'failed' end),
         array_agg(case when e.status = 'Completed' then '{"data":' || e.output || '}'
                        else '{"error":' || e.error || '}' end)
    into v_parents, v_hashes, v_status, v_memos
    from ended e where e.parent_run is not null;
  with gone as (
    delete from stepbase.queue q where q.run_id = any (p_runs) returning q.key_1, q.owner, q.place
  )
  select bool_or(gone.key_1 is not null and gone.owner is not null or gone.place is not null)
    into v_frees_slot from gone;
  if v_frees_slot then
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;
  delete from stepbase.pauses p where p.run_id = any (p_runs);
  if v_parents is not null then
    perform stepbase._close_steps(v_parents, v_hashes, v_status, v_memos, p_now);
  end if;
  perform stepbase._tell(p_runs, p_now);
  if 'Failed' = any (p_status) then
    perform stepbase.log_failed_runs(p_runs);
  end if;
end
$$;

-- Locks runs, and the runs that invoked them, in order.
create or replace function stepbase._lock_runs(p_runs text[]) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  perform 1 from stepbase.runs r
    where r.run_id = any (p_runs || array(
      select c.parent_run from stepbase.runs c
        where c.run_id = any (p_runs) and c.parent_run is not null
    ))
    order by r.run_id for no key update;
end
$$;

-- Cancels runs that have not ended; returns the ids of those it ended. A call in flight is fenced
-- out, because its queue item is gone. p_cause is an error object (JSON text) kept on the run.
-- Locks: the run rows in order.
create or replace function stepbase.cancel(p_runs text[], p_cause text) returns setof text
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_live text[];
  v_count integer;
begin
  perform stepbase._lock_runs(p_runs);
  select array_agg(r.run_id) into v_live from stepbase.runs r
    where r.run_id = any (p_runs) and r.ended_at is null;
  v_count := coalesce(cardinality(v_live), 0);
  if v_count > 0 then
    perform stepbase._finish(
      v_live, array_fill('Cancelled'::text, array[v_count]), array_fill(null::text, array[v_count]),
      array_fill(p_cause, array[v_count]), stepbase.now()
    );
    return query select unnest(v_live);
  end if;
end
$$;

-- Finds the pauses that one event may end: exact ones (cancel now) and those with a condition left
-- to check. An event never cancels the runs it started itself.
create or replace function stepbase._candidates(
  p_event text, p_name text, p_payload jsonb, p_now timestamptz
) returns table (run_id text, hash text, kind text, is_exact boolean)
language plpgsql stable security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_nestloop = on set jit = off
as $$
begin
  return query
    -- The distinct paths of this name, by skipping through the index: few, whatever the rows.
    with recursive paths as (
      (select p.path from stepbase.pauses p where p.event_name = p_name order by p.path limit 1)
      union all
      select (
        select p.path from stepbase.pauses p
          where p.event_name = p_name and p.path > paths.path order by p.path limit 1
      )
      from paths where paths.path is not null
    )
    select p.run_id, p.hash, p.kind, p.residual is null
      from (
        select paths.path, stepbase.canon(p_payload #> string_to_array(paths.path, '.')) as value
          from paths where paths.path <> '' offset 0
      ) keys
      cross join lateral (
        -- offset 0 keeps this a look-up by all three columns, whatever the planner believes.
        select * from stepbase.pauses p
          where p.event_name = p_name and p.path = keys.path and p.value = keys.value offset 0
      ) p
      where p.expires_at > p_now and not (p_event = any (p.own_events))
    union all
    select p.run_id, p.hash, p.kind, false
      from stepbase.pauses p
      where p.event_name = p_name and p.path = ''
        and p.expires_at > p_now and not (p_event = any (p.own_events));
end
$$;

-- Leaves the rest of pauses' conditions to an engine, as one `match` item per pause and event.
create or replace function stepbase._check_later(
  p_events text[], p_runs text[], p_hashes text[], p_now timestamptz
) returns void
language sql security invoker set search_path = ''
as $$
  insert into stepbase.queue (run_id, job, kind, step, ready, score)
    select u.run_id, 'match:' || u.event || ':' || u.hash, 'match', u.hash, true, p_now
      from unnest(p_events, p_runs, p_hashes) as u (event, run_id, hash)
    on conflict do nothing
$$;

-- Runs every given event against the stored pauses. Exact matches take effect here: they cancel their
-- run, or end its wait with the event as the step's result. The others become `match` items, whose
-- condition an engine checks. p_more are runs that the caller means to end later: all run rows of a
-- transaction are locked here, at once. Locks: queue (inserts), then the run rows in order.
create or replace function stepbase._match(
  p_ids text[], p_names text[], p_payloads text[], p_now timestamptz, p_more text[] default '{}'
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_nestloop = on set jit = off
as $$
declare
  v_names text[];
  v_hit record;
  v_cancelled text[] := '{}'::text[];
  v_ended_runs text[] := '{}'::text[];
  v_ended_hashes text[] := '{}'::text[];
  v_ended_memos text[] := '{}'::text[];
  v_events text[] := '{}'::text[];
  v_runs text[] := '{}'::text[];
  v_hashes text[] := '{}'::text[];
begin
  if cardinality(p_names) = 1 then
    -- By far the most frequent, and the statement below is planned anew each time.
    if exists (select from stepbase.pauses p where p.event_name = p_names[1]) then
      v_names := p_names;
    end if;
  else
    select array_agg(n.name) into v_names
      from (select distinct u.name from unnest(p_names) as u (name)) n
      where (select true from stepbase.pauses p where p.event_name = n.name limit 1);
  end if;
  if v_names is null then
    if cardinality(p_more) > 0 then
      perform stepbase._lock_runs(p_more);
    end if;
    return;
  end if;
  for v_hit in
    select u.id, u.payload, c.run_id, c.hash, c.kind, c.is_exact
      from unnest(p_ids, p_names, p_payloads) as u (id, name, payload)
      cross join lateral stepbase._candidates(u.id, u.name, u.payload::jsonb, p_now) c
      where u.name = any (v_names)
  loop
    if not v_hit.is_exact then
      v_events := v_events || v_hit.id;
      v_runs := v_runs || v_hit.run_id;
      v_hashes := v_hashes || v_hit.hash;
    elsif v_hit.kind = 'cancel' then
      v_cancelled := v_cancelled || v_hit.run_id;
    else
      v_ended_runs := v_ended_runs || v_hit.run_id;
      v_ended_hashes := v_ended_hashes || v_hit.hash;
      v_ended_memos := v_ended_memos || v_hit.payload;
    end if;
  end loop;
  if cardinality(v_events) > 0 then
    perform stepbase._check_later(v_events, v_runs, v_hashes, p_now);
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;
  if cardinality(v_ended_runs) + cardinality(v_cancelled) + cardinality(p_more) > 0 then
    perform stepbase._lock_runs(v_ended_runs || v_cancelled || p_more);
  end if;
  if cardinality(v_ended_runs) > 0 then
    perform stepbase._close_steps(
      v_ended_runs, v_ended_hashes, array_fill('done'::text, array[cardinality(v_ended_runs)]),
      v_ended_memos, p_now
    );
  end if;
  if cardinality(v_cancelled) > 0 then
    perform stepbase.cancel(
      v_cancelled, '{"name":"Cancelled","message":"an event matched cancel_on"}'
    );
  end if;
end
$$;

-- Gives a signal to the run that waits for it: its step's result is {"data": {signal, data}}. Returns the
-- run's id, or null if nobody waits. Locks: the signal's name, so that nobody takes the wait over meanwhile;
-- then the run row.
create or replace function stepbase.signal(p_name text, p_data text) returns text
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
declare
  v_pause record;
begin
  perform stepbase._lock_signals(array['signal'], array[p_name]);
  select p.run_id, p.hash into v_pause from stepbase.pauses p
    where p.kind = 'signal' and p.event_name = p_name and p.expires_at > stepbase.now();
  if not found then
    return null;
  end if;
  perform stepbase._lock_runs(array[v_pause.run_id]);
  perform 1 from stepbase.pauses p
    where p.kind = 'signal' and p.event_name = p_name and p.run_id = v_pause.run_id
      and p.hash = v_pause.hash;
  if not found then
    return null;
  end if;
  perform stepbase._close_steps(
    array[v_pause.run_id], array[v_pause.hash], array['done'],
    array['{"data":{"signal":' || to_json(p_name) || ',"data":' || p_data || '}}'], stepbase.now()
  );
  return v_pause.run_id;
end
$$;
