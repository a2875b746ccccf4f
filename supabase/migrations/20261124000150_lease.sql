-- Who does what next: leases, and their end.

-- Gives up to p_n items to p_owner, oldest runs first.
--
-- First, what is due becomes ready: timers, sleeps, retries, and leases that ran out (their engine
-- is gone; `losses` counts those in a row, the attempt stays as it is). Then the ready items with the lowest
-- score are leased; every lease raises `gen`, the fence that makes late writers lose. Items in lanes are
-- leased lane by lane, from those after p_after on, as their limits allow (lanes.sql); lanes in p_hints first.
--
-- Returns what a call needs: the run, its event, its memos in stack order (the woken step's own memo
-- last), the lane where it waited, and for `match` items the event to check and the condition. If items wait
-- in lanes, there is one more row, without a run: the lane to go on after, whether there are more lanes than
-- were looked at, and in how many seconds to look again (null: when something changes).
-- Locks: queue rows and keys, skipping locked ones; waits for nothing.
create or replace function stepbase.lease(
  p_owner text, p_n integer, p_lease interval, p_after text, p_hints text[]
)
returns table (
  run_id text, job text, kind text, step text, gen integer, attempt smallint, losses smallint,
  outage_seconds double precision, hops smallint, function_id uuid, req_version smallint, has_started boolean,
  is_overdue boolean, has_planned boolean, step_count integer, state_bytes integer, event_id text, event text,
  hashes text[], memos text[], open_hashes text[], planning smallint, other_event text,
  pause_kind text, residual text, edits text, more_events text[], lane text, place text, waited text,
  has_more boolean, again_seconds double precision
)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now timestamptz := stepbase.now();
  v_left integer := p_n;
  v_turns record;
  v_runs text[] := '{}'::text[];
  v_jobs text[] := '{}'::text[];
  v_lanes text[] := '{}'::text[];
begin
  -- `= any (array(…))` beside a join makes it a look-up by key, whatever the planner believes about
  -- the size of the tables; `offset 0` does that for the joins that only read.
  with due as materialized (
    select d.run_id, d.job from stepbase.queue d
      where not d.ready and d.due_at <= v_now
      order by d.due_at limit 500 for update skip locked
  )
  update stepbase.queue q
    set ready = true, owner = null, due_at = null,
        losses = least(q.losses + (q.owner is not null)::int, 1000)
    from due
    where q.run_id = due.run_id and q.job = due.job
      and q.run_id = any (array(select d.run_id from due d));

  if exists (select from stepbase.functions f where f.paused_at is not null) then
    perform stepbase._set_aside();
  end if;
  if exists (select from stepbase.queue q where q.ready and q.lane is not null) then
    select * into v_turns
      from stepbase._take_turns(p_owner, p_n, p_lease, p_after, p_hints, v_now);
    v_runs := v_turns.p_runs;
    v_jobs := v_turns.p_jobs;
    v_lanes := v_turns.p_lanes;
    v_left := p_n - cardinality(v_runs);
    run_id := null;
    lane := v_turns.p_last;
    has_more := v_turns.p_more;
    again_seconds := extract(epoch from v_turns.p_again - v_now)::double precision;
    return next;
  end if;

  return query
    with picked as materialized (
      select p.run_id, p.job from stepbase.queue p
        where p.ready and p.lane is null order by p.score limit v_left for update skip locked
    ), leased as (
      update stepbase.queue q
        set ready = false, owner = p_owner, due_at = v_now + p_lease, gen = q.gen + 1, hops = 0
        from picked
        where q.run_id = picked.run_id and q.job = picked.job
          and q.run_id = any (array(select p.run_id from picked p))
        returning q.*
    ), held as (
      select l.*, null as waited from leased l
      union all
      select q.*, u.lane from unnest(v_runs, v_jobs, v_lanes) as u (run_id, job, lane)
        join stepbase.queue q
          on q.run_id = u.run_id and q.job = u.job and q.run_id = any (v_runs)
    )
    select l.run_id, l.job, l.kind, l.step, l.gen, l.attempt, l.losses,
           extract(epoch from v_now - l.outage_since)::double precision, l.hops,
           r.function_id, r.req_version,
           -- For a start timeout a first call in flight is a start.
           r.started_at is not null or (
             l.kind = 'deadline' and exists (
               select from stepbase.queue m
                 where m.run_id = l.run_id and m.job = 'main' and m.owner is not null
                 offset 0
             )
           ),
           coalesce(r.deadline_at <= v_now, false), coalesce(m.has_planned, false), r.step_count, r.state_bytes,
           r.event_id, e.payload::text, m.hashes, m.memos, m.open_hashes, r.planning,
           case when l.kind = 'match' then
             (select o.payload::text from stepbase.events o where o.id = split_part(l.job, ':', 2))
           end,
           w.kind, w.residual, r.edits::text, stepbase._payloads(r.event_ids), l.lane, l.place, l.waited,
           null::boolean, null::double precision
      from held l
      cross join lateral (
        select * from stepbase.runs r where r.run_id = l.run_id offset 0
      ) r
      cross join lateral (
        select * from stepbase.events e where e.id = r.event_id offset 0
      ) e
      left join lateral (
        select * from stepbase.pauses p
          where l.kind = 'match' and p.run_id = l.run_id and p.hash = l.step offset 0
      ) w on true
      left join lateral (
        select array_agg(s.hash order by s.place) filter (where s.is_closed) as hashes,
               array_agg(s.memo::text order by s.place) filter (where s.is_closed) as memos,
               array_agg(s.hash) filter (where not s.is_closed) as open_hashes,
               bool_or(s.status = 'planned') as has_planned
          from (
            select k.hash, k.memo, k.status,
                   k.status in ('done', 'failed') or l.kind = 'sleep' and k.hash = l.step as is_closed,
                   -- The sleeper that this call wakes comes last.
                   case when l.kind = 'sleep' and k.hash = l.step then r.step_count + 1
                        else k.pos end as place
              from stepbase.steps k
              where k.run_id = l.run_id and l.kind in ('edge', 'sleep', 'step', 'gateway')
          ) s
      ) m on true;
end
$$;

-- Prolongs the leases of calls that are still going on; returns the items that are not, or not just
-- now, ours. Locks: queue rows, skipping locked ones (they are being settled); waits for nothing.
create or replace function stepbase.extend(
  p_owner text, p_lease interval, p_runs text[], p_jobs text[], p_gens integer[]
) returns table (run_id text, job text)
language sql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
  with held as materialized (
    select q.run_id, q.job
      from unnest(p_runs, p_jobs, p_gens) as u (run_id, job, gen)
      join stepbase.queue q
        on q.run_id = u.run_id and q.job = u.job and q.run_id = any (p_runs)
      where q.owner = p_owner and q.gen = u.gen
      for update of q skip locked
  ), mine as (
    update stepbase.queue q
      set due_at = stepbase.now() + p_lease
      from held
      where q.run_id = held.run_id and q.job = held.job and q.run_id = any (p_runs)
      returning q.run_id, q.job
  )
  select u.run_id, u.job from unnest(p_runs, p_jobs) as u (run_id, job)
  except
  select m.run_id, m.job from mine m
$$;
