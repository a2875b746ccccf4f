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

-- Ends runs: writes their final state and removes every queue item and pause. The caller holds the
-- locks of the run rows and passes only runs that have not ended.
create or replace function stepbase._finish(
  p_runs text[], p_status text[], p_output text[], p_error text[], p_now timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  update stepbase.runs r
    set status = u.status, output = u.output::json, error = u.error::json, ended_at = p_now,
        started_at = coalesce(r.started_at, p_now)
    from unnest(p_runs, p_status, p_output, p_error) as u (run_id, status, output, error)
    where r.run_id = u.run_id and r.run_id = any (p_runs);
  delete from stepbase.queue q where q.run_id = any (p_runs);
  delete from stepbase.pauses p where p.run_id = any (p_runs);
end
$$;

-- Cancels runs that have not ended; returns the ids of those it ended. A call in flight is fenced
-- out, because its queue item is gone. p_cause is an error object (JSON text) kept on the run.
-- Locks: the run rows in order.
create or replace function stepbase.cancel(p_runs text[], p_cause text) returns setof text
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_nestloop = on set jit = off
as $$
declare
  v_live text[];
  v_count integer;
begin
  select array_agg(l.run_id) into v_live from (
    select r.run_id from stepbase.runs r
      where r.run_id = any (p_runs) and r.ended_at is null
      order by r.run_id for no key update
  ) l;
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
) returns table (run_id text, hash text, is_exact boolean)
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
    select p.run_id, p.hash, p.residual is null
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
    select p.run_id, p.hash, false
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

-- Runs every given event against the stored pauses: exact matches cancel their run here; the others
-- become `match` items, whose condition an engine checks. Returns the ids of cancelled runs.
-- Locks: the run rows in order (through cancel), then queue.
create or replace function stepbase._match(
  p_ids text[], p_names text[], p_payloads text[], p_now timestamptz
) returns setof text
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_nestloop = on set jit = off
as $$
declare
  v_names text[];
  v_event record;
  v_exact text[] := '{}';
  v_events text[] := '{}';
  v_runs text[] := '{}';
  v_hashes text[] := '{}';
begin
  select array_agg(n.name) into v_names
    from (select distinct u.name from unnest(p_names) as u (name)) n
    where (select true from stepbase.pauses p where p.event_name = n.name limit 1);
  if v_names is null then
    return;
  end if;
  for v_event in
    select u.id, c.run_id, c.hash, c.is_exact
      from unnest(p_ids, p_names, p_payloads) as u (id, name, payload)
      cross join lateral stepbase._candidates(u.id, u.name, u.payload::jsonb, p_now) c
      where u.name = any (v_names)
  loop
    if v_event.is_exact then
      v_exact := v_exact || v_event.run_id;
    else
      v_events := v_events || v_event.id;
      v_runs := v_runs || v_event.run_id;
      v_hashes := v_hashes || v_event.hash;
    end if;
  end loop;
  if cardinality(v_events) > 0 then
    perform stepbase._check_later(v_events, v_runs, v_hashes, p_now);
  end if;
  if cardinality(v_exact) > 0 then
    return query
      select stepbase.cancel(
        v_exact, '{"name":"Cancelled","message":"an event matched cancel_on"}'
      );
  end if;
end
$$;
