-- A call is over: everything its reply asks for, in one transaction, for a whole batch of calls.

-- Writes the outcome of calls whose items p_owner holds with exactly the given gen; the others are
-- lost: another engine has the item, or the run has ended, and nothing is written for them.
--
-- c_*: the calls. c_verdict says what becomes of the item:
--        c  keep the lease, the next call follows at once (attempt 0)
--        q  ready again (attempt 0 unless given)
--        t  a timer: due at c_due, or c_delay seconds from now
--        d  done, delete it
--        e  the run ends with c_status, c_output, c_error
--      c_attempt, c_kind, c_step: the item from now on. c_version: execution version of the reply,
--      or null. c_called: seconds the call took, or null if the function was not called.
--      c_outage: the host did not answer at all. c_finish: seconds from the first call until the run
--      must end, or null. c_woken: hash of the sleeping step this call woke, or null.
-- s_*: steps, s_call the place in c_*, from 1. A step that is stored already keeps its first memo.
-- a_*: failed attempts.
--
-- Returns per call: applied, already (a repeated settle that kept its lease) or lost; and the gen
-- to go on with. Sending a batch twice equals sending it once. Locks: runs in order, then queue.
create or replace function stepbase.settle(
  p_owner text, p_lease interval,
  c_run text[], c_job text[], c_gen integer[], c_verdict text[], c_due timestamptz[],
  c_delay double precision[], c_attempt smallint[], c_kind text[], c_step text[],
  c_status text[], c_output text[], c_error text[], c_version smallint[],
  c_called double precision[], c_outage boolean[], c_finish double precision[], c_woken text[],
  s_call integer[], s_hash text[], s_name text[], s_op text[], s_status text[], s_memo text[],
  s_attempt smallint[],
  a_call integer[], a_hash text[], a_attempt smallint[], a_http integer[], a_error text[]
) returns table (call integer, outcome text, gen integer)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_mine integer[];
  v_woken text[] := array_remove(c_woken, null);
  v_ended integer[];
begin
  perform 1 from stepbase.runs r
    where r.run_id = any (c_run) order by r.run_id for no key update;

  -- Beside every join stands `= any (c_run)`: a look-up by key and a hash join with the arrays,
  -- whatever the planner believes about the size of the tables (it often plans while they are empty).

  -- The fence: writing the item is what shows that it is still held. Whoever leases it meanwhile
  -- either comes first, and then nothing below happens, or finds it as it is left here.
  with kept as (
    update stepbase.queue q
      set gen = q.gen + 1,
          attempt = c_attempt[u.i],
          kind = c_kind[u.i],
          step = c_step[u.i],
          losses = 0,
          hops = case when c_verdict[u.i] = 'c' then q.hops + 1 else 0 end,
          ready = c_verdict[u.i] = 'q',
          owner = case when c_verdict[u.i] = 'c' then q.owner end,
          outage_since = case when c_outage[u.i] then coalesce(q.outage_since, v_now) end,
          due_at = case c_verdict[u.i]
                     when 'c' then case when q.due_at < v_now + p_lease / 2 then v_now + p_lease
                                        else q.due_at end
                     when 't' then coalesce(c_due[u.i], v_now + c_delay[u.i] * interval '1 second')
                   end
      from unnest(c_run, c_job, c_gen) with ordinality as u (run_id, job, gen, i)
      where c_verdict[u.i] in ('c', 'q', 't')
        and q.run_id = u.run_id and q.job = u.job and q.run_id = any (c_run)
        and q.owner = p_owner and q.gen = u.gen
      returning u.i::int
  ), gone as (
    delete from stepbase.queue q
      using unnest(c_run, c_job, c_gen) with ordinality as u (run_id, job, gen, i)
      where c_verdict[u.i] in ('d', 'e')
        and q.run_id = u.run_id and q.job = u.job and q.run_id = any (c_run)
        and q.owner = p_owner and q.gen = u.gen
      returning u.i::int
  )
  select coalesce(array_agg(x.i), '{}') into v_mine
    from (select kept.i from kept union all select gone.i from gone) x;

  if cardinality(s_call) > 0 then
    insert into stepbase.steps
      (run_id, hash, pos, name, op, status, memo, attempt, started_at, ended_at)
      select c_run[s.call], s.hash,
             r.step_count + row_number() over (partition by s.call order by s.i),
             s.name, s.op, s.status, s.memo::json, s.attempt,
             v_now - coalesce(c_called[s.call], 0) * interval '1 second',
             case when s.status in ('done', 'failed') then v_now end
        from unnest(s_call, s_hash, s_name, s_op, s_status, s_memo, s_attempt) with ordinality
          as s (call, hash, name, op, status, memo, attempt, i)
        join stepbase.runs r on r.run_id = c_run[s.call] and r.run_id = any (c_run)
        where s.call = any (v_mine)
          and (
            select k.hash from stepbase.steps k where k.run_id = c_run[s.call] and k.hash = s.hash
          ) is null;
  end if;

  if cardinality(v_woken) > 0 then
    update stepbase.steps k
      set status = 'done', ended_at = v_now
      from unnest(v_mine) as m (i)
      where k.run_id = c_run[m.i] and k.hash = c_woken[m.i] and k.status = 'sleeping'
        and k.run_id = any (c_run) and k.hash = any (v_woken);
  end if;

  if cardinality(a_call) > 0 then
    insert into stepbase.attempts (run_id, hash, attempt, at, http_status, error)
      select c_run[a.call], a.hash, a.attempt, v_now, a.http, a.error::json
        from unnest(a_call, a_hash, a_attempt, a_http, a_error)
          as a (call, hash, attempt, http, error)
        where a.call = any (v_mine);
  end if;

  update stepbase.runs r
    set step_count = r.step_count + t.steps,
        state_bytes = r.state_bytes + t.bytes,
        req_version = coalesce(t.version, r.req_version),
        status = case when t.called is null then r.status else 'Running' end,
        started_at = case when t.called is null then r.started_at
                          else coalesce(r.started_at, v_now - t.called * interval '1 second') end,
        deadline_at = case when r.started_at is null and t.called is not null and t.finish is not null
                           then v_now + (t.finish - t.called) * interval '1 second'
                           else r.deadline_at end
    from (
      select c_run[m.i] as run_id, max(c_version[m.i]) as version, max(c_called[m.i]) as called,
             max(c_finish[m.i]) as finish, coalesce(sum(n.steps), 0)::int as steps,
             coalesce(sum(n.bytes), 0)::int as bytes
        from unnest(v_mine) as m (i)
        left join (
          select s.call, count(*) as steps, sum(coalesce(octet_length(s.memo), 0)) as bytes
            from unnest(s_call, s_memo) as s (call, memo) group by s.call
        ) n on n.call = m.i
        group by c_run[m.i]
    ) t
    where r.run_id = t.run_id and r.run_id = any (c_run) and r.ended_at is null;

  insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
    select c_run[m.i], 'deadline:finish', 'deadline', 'finish', false, v_now, r.deadline_at
      from unnest(v_mine) as m (i)
      join stepbase.runs r on r.run_id = c_run[m.i] and r.run_id = any (c_run)
      where c_finish[m.i] is not null and c_called[m.i] is not null and c_verdict[m.i] <> 'e'
    on conflict do nothing;

  select array_agg(m.i) into v_ended from unnest(v_mine) as m (i) where c_verdict[m.i] = 'e';
  if v_ended is not null then
    perform stepbase._finish(
      (select array_agg(c_run[x.i]) from unnest(v_ended) as x (i)),
      (select array_agg(c_status[x.i]) from unnest(v_ended) as x (i)),
      (select array_agg(c_output[x.i]) from unnest(v_ended) as x (i)),
      (select array_agg(c_error[x.i]) from unnest(v_ended) as x (i)),
      v_now
    );
  end if;

  -- An item that goes on is there, one gen further. If this call did not do that, then an earlier
  -- sending of it did: after a lease nobody has gone on yet (hops 0).
  return query
    select u.i::int,
           case when u.i = any (v_mine) and (u.verdict <> 'c' or q.run_id is not null) then 'applied'
                when q.hops > 0 then 'already'
                else 'lost' end,
           case when u.i = any (v_mine) and u.verdict <> 'c' or q.hops > 0 then u.gen + 1 else 0 end
      from unnest(c_run, c_job, c_gen, c_verdict) with ordinality as u (run_id, job, gen, verdict, i)
      left join stepbase.queue q
        on u.verdict = 'c' and q.run_id = u.run_id and q.job = u.job and q.owner = p_owner
       and q.gen = u.gen + 1 and q.run_id = any (c_run);
end
$$;
