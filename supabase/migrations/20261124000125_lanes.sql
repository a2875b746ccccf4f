-- Lanes: calls that are limited (concurrency, throttle) or paused wait here for their turn.
--
-- A call with limits has a lane, which names its function and keys, and up to two keys, one per limit of
-- concurrency. A slot of a key is a leased queue row that has it: slots are counted when a call is to be
-- leased and never kept as a number, so none can leak. A lease that an engine left behind counts until it
-- is promoted: a limit may be used less than allowed, never more.
--
-- The count is right because one engine at a time leases calls of a key: it holds the key's advisory lock
-- until its transaction ends. Others do not wait for it, they pass the lane over and come back.
--
-- A run that starts under a throttle or a limit of runs waits in a lane of its own: its lane, chr(31), the
-- throttle's key, chr(31), the key that its place will have. The lease that starts it moves it to its lane,
-- since later calls are not held back, and writes down its place, which it has until its item is deleted:
-- places are counted like slots. Calls without limits have no lane and pay for none of this.

create table stepbase.throttles (
  key text collate "C" primary key,
  tat timestamptz not null
);
comment on table stepbase.throttles is
  'One row per throttle key that was used: when the starts let through so far would be over at the throttle''s own pace (the theoretical arrival time of GCRA).';
-- serves: pruning
create index throttles_by_age on stepbase.throttles (tat);
alter table stepbase.throttles enable row level security;

-- serves: lease, lane by lane
create index queue_lanes on stepbase.queue (lane, score) where ready and lane is not null;
-- serves: how many calls of a key are in flight
create index queue_by_key_1 on stepbase.queue (key_1) where owner is not null and key_1 is not null;
-- serves: the same
create index queue_by_key_2 on stepbase.queue (key_2) where owner is not null and key_2 is not null;
-- serves: how many runs of a key are going on
create index queue_by_place on stepbase.queue (place) where place is not null;
-- serves: whether anything is paused
create index functions_paused on stepbase.functions (function_id) where paused_at is not null;

-- Takes the advisory lock of a key for this transaction, if nobody has it; waits for nobody.
create or replace function stepbase._claim(p_key text) returns boolean
language plpgsql security invoker set search_path = ''
as $$
begin
  return pg_catalog.pg_try_advisory_xact_lock(1937006958, pg_catalog.hashtext(p_key));
end
$$;

-- Leases up to p_most items of one lane, lowest score first, as its limits allow. p_again: when it is worth
-- another look, because a throttle lets the next run start then, or another engine is busy with a key.
-- Locks: advisory locks of the keys and queue rows, waiting for none; then the throttle's row.
create or replace function stepbase._take(
  p_lane text, p_most integer, p_owner text, p_lease interval, p_now timestamptz,
  out p_runs text[], out p_jobs text[], out p_again timestamptz
)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_head record;
  v_key text;
  v_limit integer;
  v_place integer := 0;
  v_free bigint := p_most::bigint;
  v_throttle text := split_part(p_lane, chr(31), 2);
  v_run text := split_part(p_lane, chr(31), 3);
  v_tat timestamptz;
  v_ahead bigint;
  v_permits bigint;
begin
  p_runs := '{}';
  p_jobs := '{}';
  select q.key_1, q.key_2, f.limits, f.run_limit, f.throttle_every, f.throttle_slack, f.paused_at into v_head
    from (
      select * from stepbase.queue x where x.ready and x.lane = p_lane order by x.score limit 1
    ) q
    cross join lateral (select * from stepbase.runs r where r.run_id = q.run_id offset 0) r
    cross join lateral (
      select * from stepbase.functions x where x.function_id = r.function_id offset 0
    ) f;
  if not found or v_head.paused_at is not null then
    return;
  end if;

  foreach v_key in array array[v_head.key_1, v_head.key_2] loop
    v_place := v_place + 1;
    v_limit := v_head.limits[v_place];
    -- A limit that the function no longer has is none.
    continue when v_key is null or v_limit is null;
    if not stepbase._claim(v_key) then
      p_again := p_now + interval '10 milliseconds';
      return;
    end if;
    v_free := least(v_free, v_limit - (
      (select count(*) from stepbase.queue q where q.key_1 = v_key and q.owner is not null)
      + (select count(*) from stepbase.queue q where q.key_2 = v_key and q.owner is not null)
    ));
  end loop;

  if v_run <> '' and v_head.run_limit is not null then
    if not stepbase._claim(v_run) then
      p_again := p_now + interval '10 milliseconds';
      return;
    end if;
    v_free := least(
      v_free, v_head.run_limit - (select count(*) from stepbase.queue q where q.place = v_run)
    );
  end if;

  if v_throttle <> '' and v_head.throttle_every is not null then
    if not stepbase._claim(v_throttle) then
      p_again := p_now + interval '10 milliseconds';
      return;
    end if;
    select t.tat into v_tat from stepbase.throttles t where t.key = v_throttle;
    v_ahead := greatest(0, round(extract(epoch from v_tat - p_now) * 1000000)::bigint);
    v_permits := case when v_ahead > v_head.throttle_slack then 0
                      else (v_head.throttle_slack - v_ahead) / v_head.throttle_every + 1 end;
    v_free := least(v_free, v_permits);
  end if;

  if v_free > 0 then
    with picked as materialized (
      select p.run_id, p.job from stepbase.queue p
        where p.ready and p.lane = p_lane order by p.score limit v_free for update skip locked
    ), leased as (
      update stepbase.queue q
        set ready = false, owner = p_owner, due_at = p_now + p_lease, gen = q.gen + 1, hops = 0,
            lane = case when q.key_1 is not null then split_part(q.lane, chr(31), 1) end,
            place = coalesce(q.place, nullif(v_run, ''))
        from picked
        where q.run_id = picked.run_id and q.job = picked.job
          and q.run_id = any (array(select p.run_id from picked p))
        returning q.run_id, q.job
    )
    select coalesce(array_agg(l.run_id), '{}'), coalesce(array_agg(l.job), '{}')
      into p_runs, p_jobs from leased l;
  end if;

  if v_permits is not null then
    v_ahead := v_ahead + cardinality(p_runs) * v_head.throttle_every;
    if cardinality(p_runs) > 0 then
      insert into stepbase.throttles as t (key, tat)
        values (v_throttle, p_now + v_ahead * interval '1 microsecond')
        on conflict (key) do update set tat = excluded.tat;
    end if;
    if cardinality(p_runs) = v_permits then
      p_again := p_now + (v_ahead - v_head.throttle_slack) * interval '1 microsecond';
    end if;
  end if;
end
$$;

-- Leases items of the lanes after p_after and of those in p_hints, each lane its share, what is left over to
-- those that have more. Returns the items and where they waited, the lane to go on after, whether there are more lanes than were
-- looked at, and when to look again (null: not before something changes). Up to half of p_n is kept for calls without a lane. Locks: as _take.
create or replace function stepbase._take_turns(
  p_owner text, p_n integer, p_lease interval, p_after text, p_hints text[], p_now timestamptz,
  out p_runs text[], out p_jobs text[], out p_lanes text[], out p_last text, out p_more boolean, out p_again timestamptz
)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_most constant integer := 64;
  v_budget integer;
  v_lanes text[];
  v_share integer;
  v_lane text;
  v_seen text[] := '{}'::text[];
  v_more text[] := '{}'::text[];
  v_got record;
begin
  p_runs := '{}';
  p_jobs := '{}';
  p_lanes := '{}';
  p_last := p_after;
  p_more := false;
  select p_n - least(count(*), floor(p_n / 2.0 + random()))::integer into v_budget
    from (
      select from stepbase.queue q where q.ready and q.lane is null limit p_n
    ) x;

  -- The distinct lanes, by skipping through the index; beyond the last one, from the first.
  select array_agg(w.lane order by w.i) into v_lanes
    from (
      select l.lane, l.i from (
        with recursive ahead as (
          (select q.lane from stepbase.queue q where q.ready and q.lane > p_after order by q.lane limit 1)
          union all
          select (
            select q.lane from stepbase.queue q where q.ready and q.lane > a.lane order by q.lane limit 1
          ) from ahead a where a.lane is not null
        ), first as (
          (select q.lane from stepbase.queue q where q.ready and q.lane <= p_after order by q.lane limit 1)
          union all
          select (
            select q.lane from stepbase.queue q
              where q.ready and q.lane > f.lane and q.lane <= p_after order by q.lane limit 1
          ) from first f where f.lane is not null
        )
        select e.lane, row_number() over () as i
          from (select * from ahead union all select * from first) e
          where e.lane is not null limit v_most + 1
      ) l
    ) w;
  if v_lanes is null then
    return;
  end if;
  if cardinality(v_lanes) > v_most then
    v_lanes := v_lanes[:v_most];
    p_more := true;
  end if;
  v_share := greatest(1, ceil(v_budget::numeric / cardinality(v_lanes))::integer);

  foreach v_lane in array p_hints || v_lanes loop
    exit when v_budget <= 0;
    if v_lane = any (v_lanes) then
      p_last := v_lane;
    end if;
    continue when v_lane = any (v_seen);
    v_seen := v_seen || v_lane;
    select * into v_got
      from stepbase._take(v_lane, least(v_share, v_budget), p_owner, p_lease, p_now);
    p_again := least(p_again, v_got.p_again);
    p_runs := p_runs || v_got.p_runs;
    p_jobs := p_jobs || v_got.p_jobs;
    p_lanes := p_lanes || array_fill(v_lane, array[cardinality(v_got.p_runs)]);
    v_budget := v_budget - cardinality(v_got.p_runs);
    if cardinality(v_got.p_runs) = v_share then
      v_more := v_more || v_lane;
    end if;
  end loop;
  foreach v_lane in array v_more loop
    exit when v_budget <= 0;
    select * into v_got from stepbase._take(v_lane, v_budget, p_owner, p_lease, p_now);
    p_again := least(p_again, v_got.p_again);
    p_runs := p_runs || v_got.p_runs;
    p_jobs := p_jobs || v_got.p_jobs;
    p_lanes := p_lanes || array_fill(v_lane, array[cardinality(v_got.p_runs)]);
    v_budget := v_budget - cardinality(v_got.p_runs);
  end loop;
end
$$;

-- Puts ready calls of paused functions that have no lane into one, where they wait without being in others'
-- way; they go on from there when their function does. Locks: queue rows, skipping locked ones.
create or replace function stepbase._set_aside() returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_count integer;
begin
  loop
    with looked as materialized (
      select p.run_id, p.job, p.kind from stepbase.queue p
        where p.ready and p.lane is null order by p.score limit 500 for update skip locked
    ), paused as materialized (
      select l.run_id, l.job, f.function_id
        from looked l
        cross join lateral (select * from stepbase.runs r where r.run_id = l.run_id offset 0) r
        join stepbase.functions f on f.function_id = r.function_id and f.paused_at is not null
        where l.kind in ('edge', 'sleep', 'step', 'gateway')
    ), aside as (
      update stepbase.queue q
        set lane = 'paused:' || p.function_id
        from paused p
        where q.run_id = p.run_id and q.job = p.job
          and q.run_id = any (array(select x.run_id from paused x))
        returning 1
    )
    select count(*)::integer into v_count from aside;
    exit when v_count = 0;
  end loop;
end
$$;

-- Puts calls that p_owner holds with these gens back, ready, into other lanes: those which an engine finds to
-- be elsewhere than the functions of p_epoch have them, because they were paused or their limits changed after
-- the call began to wait. p_places: what a run counts for that is going on already. Raises SB101 when the
-- functions have changed since p_epoch. Locks: runs in order, then queue.
create or replace function stepbase.move(
  p_epoch bigint, p_owner text, p_runs text[], p_jobs text[], p_gens integer[],
  p_lanes text[], p_key_1 text[], p_key_2 text[], p_places text[]
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  perform 1 from stepbase.epoch e where e.n = p_epoch;
  if not found then
    raise exception 'the functions have changed since epoch %', p_epoch using errcode = 'SB101';
  end if;
  perform 1 from stepbase.runs r
    where r.run_id = any (p_runs) order by r.run_id for no key update;
  update stepbase.queue q
    set ready = true, owner = null, due_at = null, gen = q.gen + 1, hops = 0,
        lane = u.lane, key_1 = u.key_1, key_2 = u.key_2, place = coalesce(q.place, u.place)
    from unnest(p_runs, p_jobs, p_gens, p_lanes, p_key_1, p_key_2, p_places)
      as u (run_id, job, gen, lane, key_1, key_2, place)
    where q.run_id = u.run_id and q.job = u.job and q.run_id = any (p_runs)
      and q.owner = p_owner and q.gen = u.gen;
  perform pg_catalog.pg_notify('stepbase', 'q');
end
$$;

-- Pauses a function or lets it go on: while it is paused none of its calls is leased. Returns whether there
-- is such a function. Locks: the epoch row first.
create or replace function stepbase.pause_function(p_slug text, p_paused boolean) returns boolean
language plpgsql security invoker set search_path = ''
as $$
declare
  v_changed boolean;
begin
  perform 1 from stepbase.epoch for update;
  select (f.paused_at is not null) <> p_paused into v_changed
    from stepbase.functions f where f.slug = p_slug and f.archived_at is null;
  if v_changed then
    update stepbase.functions f
      set paused_at = case when p_paused then stepbase.now() end where f.slug = p_slug;
    update stepbase.epoch set n = n + 1;
    perform pg_catalog.pg_notify('stepbase', 'c');
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;
  return v_changed is not null;
end
$$;
