-- Checkpoints: a function reports finished steps while its call goes on.

-- Stores steps of calls in flight; c_gen 0 accepts whatever gen the item has. Resets the item's attempts
-- and prolongs its lease. Returns per call: stored, or stale (the item is no longer leased with that gen:
-- the function must stop). Locks: runs in order, then queue.
create or replace function stepbase.checkpoint(
  p_lease interval, c_run text[], c_job text[], c_gen integer[],
  s_call integer[], s_hash text[], s_name text[], s_op text[], s_status text[], s_memo text[],
  s_attempt smallint[], s_began double precision[], s_ended double precision[]
) returns table (call integer, outcome text)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now timestamptz := stepbase.now();
  v_mine integer[];
begin
  perform 1 from stepbase.runs r
    where r.run_id = any (c_run) order by r.run_id for no key update;
  select coalesce(array_agg(u.i::int), '{}') into v_mine
    from unnest(c_run, c_job, c_gen) with ordinality as u (run_id, job, gen, i)
    join stepbase.queue q
      on q.run_id = u.run_id and q.job = u.job and q.owner is not null and u.gen in (0, q.gen);
  with born as (
    insert into stepbase.steps
      (run_id, hash, pos, name, op, status, memo, attempt, started_at, ended_at)
      select c_run[s.call], s.hash,
             r.step_count + row_number() over (partition by r.run_id order by s.i),
             s.name, s.op, s.status, s.memo::json, s.attempt,
             greatest(r.created_at, v_now - coalesce(s.began, 0) * interval '1 second'),
             greatest(r.created_at, v_now - coalesce(s.ended, 0) * interval '1 second')
        from unnest(s_call, s_hash, s_name, s_op, s_status, s_memo, s_attempt, s_began, s_ended)
          with ordinality as s (call, hash, name, op, status, memo, attempt, began, ended, i)
        join stepbase.runs r on r.run_id = c_run[s.call]
        where s.call = any (v_mine)
          and not exists (
            select from stepbase.steps k where k.run_id = c_run[s.call] and k.hash = s.hash
          )
      returning steps.run_id, octet_length(steps.memo::text) as bytes
  )
  update stepbase.runs r
    set step_count = r.step_count + t.steps, state_bytes = r.state_bytes + t.bytes,
        status = 'Running',
        -- Its first call began when its item was leased, before what it saves now was done.
        started_at = coalesce(r.started_at, greatest(r.created_at, least(v_now, (
          select min(q.due_at) - p_lease from stepbase.queue q where q.run_id = r.run_id and q.owner is not null
        ))))
    from (
      select b.run_id, count(*)::int as steps, sum(b.bytes)::int as bytes from born b group by b.run_id
    ) t
    where r.run_id = t.run_id;
  update stepbase.queue q
    set attempt = 0, due_at = greatest(q.due_at, v_now + p_lease)
    from unnest(v_mine) as m (i)
    where q.run_id = c_run[m.i] and q.job = c_job[m.i]
      and (q.attempt <> 0 or q.due_at < v_now + p_lease / 2);
  return query
    select u.i::int, case when u.i = any (v_mine) then 'stored' else 'stale' end
      from unnest(c_run) with ordinality as u (run_id, i);
end
$$;
