-- A call is over: everything its reply asks for, in one transaction, for a whole batch of calls.

-- Writes the outcome of calls whose items p_owner holds with exactly the given gen; the others are
-- lost: another engine has the item, or the run has ended, and nothing is written for them.
--
-- c_*: the calls. c_verdict says what becomes of the item:
--        c  keep the lease, the next call follows at once (attempt 0)
--        q  ready again (attempt 0 unless given)
--        y  the same, but behind all that wait now: it makes room for others
--        t  a timer: due at c_due, or c_delay seconds from now
--        p  parked until an open step closes; ready if none is open
--        d  done, delete it
--        e  the run ends with c_status, c_output, c_error
--      c_attempt, c_kind, c_step: the item from now on. c_version: execution version of the reply,
--      or null. c_called: seconds the call took, or null if the function was not called.
--      c_outage: the host did not answer at all. c_finish: seconds from the first call until the run
--      must end, or null. c_woken: hash of the sleeping step this call woke, or null. c_planning: 1 if
--      the reply opens a group of parallel steps, 2 for a race, else null.
-- s_*: steps, s_call the place in c_*, from 1. A step that is open is closed by done or failed; one that
--      is closed keeps its first memo. s_began, s_ended: so many seconds before now its work began and
--      ended, where the function says so.
-- a_*: failed attempts.
-- i_*: what new open steps wait for, by their hash: the call for a planned step, the end of a sleep or of
--      a wait (due at i_due, or i_delay seconds from now; both null: ready).
-- w_*: pauses of new open steps, by their hash; w_value is a JSON literal; w_look: so many seconds before
--      now an event may have come (look_back.sql), or null; w_replaces: of a signal, whether it is taken over
--      from another run that waits for it. That one's wait is over when its time is.
-- o_*: events of the server's own that new open steps send (invoke), by their hash.
-- A column of nulls, or a group without rows, may be one null.
--
-- Returns per call: applied, already (a repeated settle that kept its lease) or lost; the gen to go on
-- with; and how many steps of the run are closed, by which an engine sees that others have closed some.
-- Sending a batch twice equals sending it once. Raises SB102 if a signal is waited for already. Locks: names of
-- signals; runs (and the runs that invoked those that end, or wait for those signals) in order, then queue.
create or replace function stepbase.settle(
  p_owner text, p_lease interval,
  c_run text[], c_job text[], c_gen integer[], c_verdict text[], c_due timestamptz[],
  c_delay double precision[], c_attempt smallint[], c_kind text[], c_step text[],
  c_status text[], c_output text[], c_error text[], c_version smallint[],
  c_called double precision[], c_outage boolean[], c_finish double precision[], c_woken text[],
  c_planning smallint[],
  s_call integer[], s_hash text[], s_name text[], s_op text[], s_status text[], s_memo text[],
  s_attempt smallint[], s_began double precision[], s_ended double precision[],
  a_call integer[], a_hash text[], a_attempt smallint[], a_http integer[], a_error text[],
  i_call integer[], i_hash text[], i_kind text[], i_due timestamptz[], i_delay double precision[],
  w_call integer[], w_hash text[], w_kind text[], w_event text[], w_path text[], w_value text[],
  w_residual text[], w_expires double precision[], w_look double precision[],
  w_replaces boolean[],
  o_call integer[], o_hash text[], o_id text[], o_name text[], o_payload text[]
) returns table (call integer, outcome text, gen integer, step_count integer)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
-- Each plan is made once a session: with batches of one the planner would work longer than the executor.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now timestamptz := stepbase.now();
  v_mine integer[] := '{}'::integer[];
  v_woken text[] := array_remove(c_woken, null);
  v_new_runs text[] := '{}'::text[];
  v_new_hashes text[] := '{}'::text[];
  v_new_bytes integer[] := '{}'::integer[];
  v_new_closed integer[] := '{}'::integer[];
  v_raced text[];
  v_ended integer[];
  v_lock text[] := c_run;
begin
  if 'signal' = any (w_kind) then
    v_lock := v_lock || stepbase._lock_signals(w_kind, w_event);
  end if;
  if 'e' = any (c_verdict) then
    perform stepbase._lock_runs(v_lock);
  else
    perform 1 from stepbase.runs r
      where r.run_id = any (v_lock) order by r.run_id for no key update;
  end if;
  if 'signal' = any (w_kind) then
    perform stepbase._check_signals(c_run, w_call, w_hash, w_kind, w_event, w_replaces, v_now);
  end if;

  -- Beside every join stands `= any (c_run)`: a look-up by key and a hash join with the arrays,
  -- whatever the planner believes about the size of the tables (it often plans while they are empty).

  -- The fence: writing the item is what shows that it is still held. Whoever leases it meanwhile
  -- either comes first, and then nothing below happens, or finds it as it is left here.
  if c_verdict && array['c', 'q', 'y', 't', 'p'] then
    with kept as (
      update stepbase.queue q
        set gen = q.gen + 1,
            attempt = c_attempt[u.i],
            kind = c_kind[u.i],
            step = c_step[u.i],
            losses = 0,
            hops = case when u.verdict = 'c' then q.hops + 1 else 0 end,
            ready = u.verdict in ('q', 'y'),
            score = case when u.verdict = 'y' then v_now - q.priority * interval '1 second' else q.score end,
            owner = case when u.verdict = 'c' then q.owner end,
            outage_since = case when c_outage[u.i] then coalesce(q.outage_since, v_now) end,
            due_at = case u.verdict
                       when 'c' then case when q.due_at < v_now + p_lease / 2 then v_now + p_lease
                                          else q.due_at end
                       when 't' then coalesce(c_due[u.i], v_now + c_delay[u.i] * interval '1 second')
                       when 'p' then 'infinity'
                     end
        from unnest(c_run, c_job, c_gen, c_verdict) with ordinality as u (run_id, job, gen, verdict, i)
        where u.verdict not in ('d', 'e')
          and q.run_id = u.run_id and q.job = u.job and q.run_id = any (c_run)
          and q.owner = p_owner and q.gen = u.gen
        returning u.i::int
    )
    select coalesce(array_agg(kept.i), '{}') into v_mine from kept;
  end if;
  if c_verdict && array['d', 'e'] then
    with gone as (
      delete from stepbase.queue q
        using unnest(c_run, c_job, c_gen, c_verdict) with ordinality as u (run_id, job, gen, verdict, i)
        where u.verdict in ('d', 'e')
          and q.run_id = u.run_id and q.job = u.job and q.run_id = any (c_run)
          and q.owner = p_owner and q.gen = u.gen
        returning u.i::int
    )
    select v_mine || coalesce(array_agg(gone.i), '{}') into v_mine from gone;
  end if;

  -- The sleeper that a call woke comes before what the call brought.
  if cardinality(v_woken) > 0 then
    perform stepbase._close_steps(
      array_agg(c_run[m.i]), array_agg(c_woken[m.i]), array_agg('done'::text),
      array_agg('null'::text), v_now
    )
    from unnest(v_mine) as m (i) where c_woken[m.i] is not null;
  end if;

  if cardinality(s_call) > 0 then
    with born as (
      insert into stepbase.steps
        (run_id, hash, pos, name, op, status, memo, attempt, started_at, ended_at)
        select c_run[s.call], s.hash,
               case when s.status in ('done', 'failed') then r.step_count + row_number() over (
                 partition by r.run_id, s.status in ('done', 'failed') order by s.i)
                 -- Behind all others, until it closes.
                 else 2147483647 end,
               s.name, s.op, s.status, s.memo::json, s.attempt,
               greatest(r.created_at, v_now - coalesce(s.began,
                 case when s.status in ('done', 'failed') then c_called[s.call] end, 0) * interval '1 second'),
               case when s.status in ('done', 'failed')
                    then greatest(r.created_at, v_now - coalesce(s.ended, 0) * interval '1 second') end
          from unnest(s_call, s_hash, s_name, s_op, s_status, s_memo, s_attempt, s_began, s_ended)
            with ordinality as s (call, hash, name, op, status, memo, attempt, began, ended, i)
          join stepbase.runs r on r.run_id = c_run[s.call] and r.run_id = any (c_run)
          where s.call = any (v_mine)
            and (
              select k.hash from stepbase.steps k
                where k.run_id = c_run[s.call] and k.hash = s.hash
            ) is null
        returning steps.run_id, steps.hash, octet_length(steps.memo::text) as bytes,
                  (steps.status in ('done', 'failed'))::int as closed
    )
    select coalesce(array_agg(b.run_id), '{}'), coalesce(array_agg(b.hash), '{}'),
           coalesce(array_agg(b.bytes * b.closed), '{}'), coalesce(array_agg(b.closed), '{}')
      into v_new_runs, v_new_hashes, v_new_bytes, v_new_closed
      from born b;
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
        planning = greatest(r.planning, coalesce(t.planning, 0)),
        req_version = coalesce(t.version, r.req_version),
        status = case when t.called is null then r.status else 'Running' end,
        started_at = case when t.called is null then r.started_at
                          else coalesce(r.started_at, v_now - t.called * interval '1 second') end,
        deadline_at = case when r.started_at is null and t.called is not null and t.finish is not null
                           then v_now + (t.finish - t.called) * interval '1 second'
                           else r.deadline_at end
    from (
      select m.run_id, m.version, m.called, m.finish, m.planning,
             coalesce(n.steps, 0) as steps, coalesce(n.bytes, 0) as bytes
        from (
          select c_run[x.i] as run_id, max(c_version[x.i]) as version, max(c_called[x.i]) as called,
                 max(c_finish[x.i]) as finish, max(c_planning[x.i]) as planning
            from unnest(v_mine) as x (i) group by 1
        ) m
        left join (
          select n.run_id, sum(n.closed)::int as steps, sum(n.bytes)::int as bytes
            from unnest(v_new_runs, v_new_bytes, v_new_closed) as n (run_id, bytes, closed)
            group by n.run_id
        ) n on n.run_id = m.run_id
    ) t
    where r.run_id = t.run_id and r.run_id = any (c_run) and r.ended_at is null;

  -- Open steps that these calls close: planned ones that ran, waits that are given up or fulfilled.
  if cardinality(v_new_hashes) < cardinality(s_call) then
    perform stepbase._close_steps(
      array_agg(c_run[s.call]), array_agg(s.hash), array_agg(s.status), array_agg(s.memo), v_now,
      array_agg(s.began), array_agg(s.ended)
    )
    from unnest(s_call, s_hash, s_status, s_memo, s_began, s_ended)
      as s (call, hash, status, memo, began, ended)
    where s.call = any (v_mine) and s.status in ('done', 'failed');
  end if;

  if cardinality(i_call) > 0 then
    perform stepbase._open_steps(
      c_run, v_new_runs, v_new_hashes, v_now, i_call, i_hash, i_kind, i_due, i_delay,
      w_call, w_hash, w_kind, w_event, w_path, w_value, w_residual, w_expires, w_look,
      o_call, o_hash, o_id, o_name, o_payload
    );
    -- A planned step whose first attempt was made in the call that found it goes on with the next.
    if 0 < any (s_attempt) then
      update stepbase.queue q
        set attempt = s.attempt
        from unnest(s_call, s_hash, s_status, s_attempt) as s (call, hash, status, attempt)
        join unnest(v_new_runs, v_new_hashes) as n (run_id, hash)
          on n.run_id = c_run[s.call] and n.hash = s.hash
        where s.status = 'planned' and s.attempt > 0
          and q.run_id = n.run_id and q.job = n.hash and q.run_id = any (c_run);
    end if;
  end if;

  if cardinality(array_remove(c_finish, null)) > 0 then
    insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
      select distinct r.run_id, 'deadline:finish', 'deadline', 'finish', false, v_now, r.deadline_at
        from unnest(v_mine) as m (i)
        join stepbase.runs r on r.run_id = c_run[m.i] and r.run_id = any (c_run)
        where c_finish[m.i] is not null and c_called[m.i] is not null and c_verdict[m.i] <> 'e'
      on conflict do nothing;
  end if;

  -- A parked item waits for what is open now, whatever closed and opened above; if nothing is, it is ready.
  if 'p' = any (c_verdict) then
    update stepbase.queue q
      set ready = not t.is_open, due_at = case when t.is_open then timestamptz 'infinity' end
      from (
        select c_run[m.i] as run_id, c_job[m.i] as job, stepbase._has_open_step(c_run[m.i]) as is_open
          from unnest(v_mine) as m (i) where c_verdict[m.i] = 'p'
      ) t
      where q.run_id = t.run_id and q.job = t.job and q.run_id = any (c_run) and q.owner is null;
  end if;

  if 'd' = any (c_verdict) then
    select array_agg(c_run[m.i]) into v_raced
      from unnest(v_mine) as m (i) where c_verdict[m.i] = 'd' and c_job[m.i] like 'after:%';
    if v_raced is not null then
      perform stepbase._next_of_race(v_raced);
    end if;
  end if;

  if c_verdict = '{e}' then
    if v_mine <> '{}' then
      perform stepbase._finish(c_run, c_status, c_output, c_error, v_now);
    end if;
  elsif 'e' = any (c_verdict) then
    select array_agg(x.i) into v_ended
      from (
        select distinct on (c_run[m.i]) m.i from unnest(v_mine) as m (i)
          where c_verdict[m.i] = 'e' order by c_run[m.i], m.i
      ) x;
  end if;
  if v_ended is not null then
    perform stepbase._finish(
      (select array_agg(c_run[x.i]) from unnest(v_ended) as x (i)),
      (select array_agg(c_status[x.i]) from unnest(v_ended) as x (i)),
      (select array_agg(c_output[x.i]) from unnest(v_ended) as x (i)),
      (select array_agg(c_error[x.i]) from unnest(v_ended) as x (i)),
      v_now
    );
  end if;

  -- A call that is alone and held its item: nobody else in this batch can have ended its run.
  if cardinality(c_run) = 1 and v_mine <> '{}' then
    call := 1;
    outcome := 'applied';
    gen := c_gen[1] + 1;
    if c_verdict[1] = 'c' then
      step_count := (select r.step_count from stepbase.runs r where r.run_id = c_run[1]);
    end if;
    return next;
    return;
  end if;

  -- An item that goes on is there, one gen further. If this call did not do that, then an earlier
  -- sending of it did: after a lease nobody has gone on yet (hops 0).
  return query
    select u.i::int,
           case when u.i = any (v_mine) and (u.verdict <> 'c' or q.run_id is not null) then 'applied'
                when q.hops > 0 then 'already'
                else 'lost' end,
           case when u.i = any (v_mine) and u.verdict <> 'c' or q.hops > 0 then u.gen + 1 else 0 end,
           case when u.verdict = 'c' then
             (select r.step_count from stepbase.runs r where r.run_id = u.run_id) end
      from unnest(c_run, c_job, c_gen, c_verdict) with ordinality as u (run_id, job, gen, verdict, i)
      left join stepbase.queue q
        on u.verdict = 'c' and q.run_id = u.run_id and q.job = u.job and q.owner = p_owner
       and q.gen = u.gen + 1 and q.run_id = any (c_run);
end
$$;

-- Stores what new open steps wait for and send; for settle, which describes the parameters.
create or replace function stepbase._open_steps(
  c_run text[], p_runs text[], p_hashes text[], p_now timestamptz,
  i_call integer[], i_hash text[], i_kind text[], i_due timestamptz[], i_delay double precision[],
  w_call integer[], w_hash text[], w_kind text[], w_event text[], w_path text[], w_value text[],
  w_residual text[], w_expires double precision[], w_look double precision[],
  o_call integer[], o_hash text[], o_id text[], o_name text[], o_payload text[]
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at, lane, key_1, key_2)
    select n.run_id, n.hash, x.kind, n.hash, t.due is null, m.score, t.due,
           case when t.calls then m.lane end, case when t.calls then m.key_1 end,
           case when t.calls then m.key_2 end
      from unnest(i_call, i_hash, i_kind, i_due, i_delay) as x (call, hash, kind, due, delay)
      join unnest(p_runs, p_hashes) as n (run_id, hash) on n.run_id = c_run[x.call] and n.hash = x.hash
      -- Its own call: it holds what the run has of limits.
      join stepbase.queue m on m.run_id = n.run_id and m.job = 'main' and m.run_id = any (p_runs)
      cross join lateral (
        select coalesce(x.due, p_now + x.delay * interval '1 second') as due,
               x.kind in ('step', 'gateway') as calls
      ) t
    on conflict do nothing;
  if 'signal' = any (w_kind) then
    -- Those that are in the way are taken over, or their time is over: _check_signals.
    delete from stepbase.pauses p
      using unnest(w_call, w_hash, w_kind, w_event) as w (call, hash, kind, event)
      join unnest(p_runs, p_hashes) as n (run_id, hash)
        on n.run_id = c_run[w.call] and n.hash = w.hash
      where w.kind = 'signal' and p.kind = 'signal' and p.event_name = w.event
        and p.event_name = any (w_event);
  end if;
  insert into stepbase.pauses
    (run_id, hash, kind, event_name, path, value, residual, own_events, looks_from, expires_at)
    select n.run_id, n.hash, w.kind, w.event, w.path, stepbase.canon(w.value::jsonb), w.residual,
           case when w.look is null then '{}' else stepbase._seen_events(n.run_id) end,
           p_now - w.look * interval '1 second', p_now + w.expires * interval '1 second'
      from unnest(w_call, w_hash, w_kind, w_event, w_path, w_value, w_residual, w_expires, w_look)
        as w (call, hash, kind, event, path, value, residual, expires, look)
      join unnest(p_runs, p_hashes) as n (run_id, hash) on n.run_id = c_run[w.call] and n.hash = w.hash;
  insert into stepbase.outbox (id, name, payload, created_at, due_at)
    select o.id, o.name, o.payload::json, p_now, p_now
      from unnest(o_call, o_hash, o_id, o_name, o_payload) as o (call, hash, id, name, payload)
      join unnest(p_runs, p_hashes) as n (run_id, hash) on n.run_id = c_run[o.call] and n.hash = o.hash
    on conflict do nothing;
  if i_kind && array['step', 'gateway', 'look'] then
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;
  if cardinality(o_call) > 0 then
    perform pg_catalog.pg_notify('stepbase', 'o');
  end if;
end
$$;
