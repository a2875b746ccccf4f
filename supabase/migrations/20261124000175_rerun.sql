-- Runs made again, and runs found to be cancelled in bulk.

-- Starts p_new_run as a repetition of p_run, which has ended: the same event, the function as it is now.
-- With p_steps (a step's id and its hash; either may be what was asked for) it begins at that step: what was stored before it is
-- copied, and p_input, if not null, is what that step runs with instead ({"input": […]}, JSON text).
-- p_priority, p_lane, p_key_1, p_key_2, and w_*, the pauses of the new run (cancel_on): as in `ingest`. The new run answers no step that invoked
-- the old one. Returns 'started', or why not: 'unknown', 'live' (it has not ended), 'no step'. Sending it
-- twice starts one run. Locks: the old run's row.
create or replace function stepbase.rerun(
  p_run text, p_new_run text, p_version integer, p_deadline double precision,
  p_steps text[], p_input text,
  p_priority double precision, p_lane text, p_key_1 text, p_key_2 text,
  w_hash text[], w_event text[], w_path text[], w_value text[], w_residual text[],
  w_expires double precision[]
) returns text
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_old stepbase.runs;
  v_step stepbase.steps;
begin
  select * into v_old from stepbase.runs r where r.run_id = p_run for no key update;
  -- One of another server is reported here, and run there.
  if not found or v_old.recorded_at is not null then
    return 'unknown';
  elsif v_old.ended_at is null then
    return 'live';
  end if;
  if cardinality(p_steps) > 0 then
    select * into v_step from stepbase.steps k
      where k.run_id = p_run and k.hash = any (p_steps) limit 1;
    if not found then
      return 'no step';
    end if;
  end if;
  insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, event_ids, cause, req_version, created_at,
     original_run_id, edits)
    values (
      p_new_run, v_old.function_id, p_version, v_old.event_id, v_old.event_ids, 'rerun',
      case when v_step.hash is null then -1 else v_old.req_version end, v_now,
      coalesce(v_old.original_run_id, p_run),
      case when p_input is not null then json_build_object(v_step.hash, p_input::json) end
    )
    on conflict do nothing;
  if not found then
    return 'started';
  end if;
  if v_step.hash is not null then
    insert into stepbase.steps
      (run_id, hash, pos, name, op, status, memo, attempt, started_at, ended_at)
      select p_new_run, k.hash, row_number() over (order by k.pos), k.name, k.op, k.status, k.memo,
             k.attempt, k.started_at, k.ended_at
        from stepbase.steps k
        where k.run_id = p_run and k.status in ('done', 'failed') and k.pos < v_step.pos;
    update stepbase.runs r
      set step_count = t.steps, state_bytes = t.bytes
      from (
        select count(*)::int as steps, coalesce(sum(octet_length(k.memo::text)), 0)::int as bytes
          from stepbase.steps k where k.run_id = p_new_run
      ) t
      where r.run_id = p_new_run;
  end if;
  insert into stepbase.queue (run_id, job, kind, ready, score, priority, lane, key_1, key_2)
    values (p_new_run, 'main', 'edge', true, v_now - p_priority * interval '1 second',
            p_priority::integer, p_lane, p_key_1, p_key_2);
  if p_deadline is not null then
    insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
      values (p_new_run, 'deadline:start', 'deadline', 'start', false, v_now,
              v_now + p_deadline * interval '1 second');
  end if;
  insert into stepbase.pauses
    (run_id, hash, kind, event_name, path, value, residual, own_events, expires_at)
    select p_new_run, w.hash, 'cancel', w.event, w.path, stepbase.canon(w.value::jsonb), w.residual,
           array[v_old.event_id], v_now + w.expires * interval '1 second'
      from unnest(w_hash, w_event, w_path, w_value, w_residual, w_expires)
        as w (hash, event, path, value, residual, expires);
  perform pg_catalog.pg_notify('stepbase', 'q');
  return 'started';
end
$$;

-- Walks the runs of a function whose ids lie between two bounds (both outside), p_limit of them at a
-- time: which of those are live, and the id to go on after, or null at the end.
create or replace function stepbase.live_runs(
  p_function uuid, p_after text, p_before text, p_limit integer
) returns table (runs text[], last text)
language sql stable security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
  select coalesce(array_agg(w.run_id order by w.run_id) filter (where w.ended_at is null), '{}'),
         case when count(*) = p_limit then max(w.run_id) end
    from (
      select r.run_id, r.ended_at from stepbase.runs r
        where r.function_id = p_function and r.run_id > p_after and r.run_id < p_before
        order by r.run_id limit p_limit
    ) w
$$;

-- The events of some runs.
create or replace function stepbase.get_run_events(p_runs text[])
returns table (run_id text, event text)
language sql stable security invoker set search_path = '' set enable_seqscan = off
as $$
  select r.run_id, e.payload::text
    from (select * from stepbase.runs x where x.run_id = any (p_runs) offset 0) r
    cross join lateral (
      select x.payload from stepbase.events x where x.id = r.event_id offset 0
    ) e
$$;
