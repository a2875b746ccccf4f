-- Old rows go, a bounded number at a time, so that no sweep holds locks for long.

-- How far the search for events that nothing needs has come: it goes round the table by id, a stretch a
-- sweep, so that no sweep looks at every event that a run still needs.
create table stepbase.sweep_progress (
  one boolean primary key default true constraint there_is_one_row check (one),
  events_after text collate "C" not null default ''
);
insert into stepbase.sweep_progress default values;
comment on table stepbase.sweep_progress is 'One row: the event up to which the last sweep looked for events that no run needs.';
alter table stepbase.sweep_progress enable row level security;

-- Deletes the old ones of these events that no run and no buffer needs (any more), with why they started
-- none; returns how many. Of a batch, not_started names the run that has the event. Locks: the deleted rows,
-- skipping locked ones.
create or replace function stepbase._sweep_events(p_ids text[], p_older interval) returns integer
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_old text[] := array(
    select e.id from stepbase.events e
      where e.id = any (p_ids)
        and e.received_at < least(
          stepbase.now() - p_older, (select b.first_at from stepbase.buffers b order by b.first_at limit 1)
        )
        and not exists (select from stepbase.runs r where r.event_id = e.id)
        and not exists (
          select from stepbase.not_started n where n.event_id = e.id and n.run_id is not null
        )
        -- A rerun of a batch has no such rows, and outlives the run it repeats.
        and not exists (
          select from stepbase.runs r
            where r.event_ids @> array[e.id::text] and r.event_ids is not null and r.original_run_id is not null
        )
      for update skip locked
  );
begin
  if cardinality(v_old) > 0 then
    delete from stepbase.not_started n where n.event_id = any (v_old);
    delete from stepbase.events e where e.id = any (v_old);
  end if;
  return cardinality(v_old);
end
$$;

-- Deletes finished runs (with their steps, attempts and events), events that no run needs, and expired rows
-- of dedupe, gates and throttles: at most p_limit of each. Failed runs may be kept longer. Returns how many
-- runs and events went; call again while one of them reaches p_limit. Locks: the deleted rows, skipping
-- locked ones.
create or replace function stepbase.sweep(
  p_runs_older interval, p_failed_older interval, p_events_older interval, p_limit integer
) returns table (runs integer, events integer)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_runs text[];
  v_events text[];
  v_batched text[];
  v_after text;
  v_last text;
  v_gone integer := 0;
begin
  v_runs := array(
    select r.run_id from stepbase.runs r
      where r.ended_at < v_now - p_runs_older and r.status <> 'Failed'
      order by r.ended_at limit p_limit for update skip locked
  );
  v_runs := v_runs || array(
    select r.run_id from stepbase.runs r
      where r.ended_at < v_now - greatest(p_runs_older, p_failed_older) and r.status = 'Failed'
      order by r.ended_at limit p_limit - cardinality(v_runs) for update skip locked
  );
  if cardinality(v_runs) > 0 then
    delete from stepbase.steps s where s.run_id = any (v_runs);
    delete from stepbase.attempts a where a.run_id = any (v_runs);
    -- The events of a batch that was made again now belong to the other run.
    update stepbase.not_started n
      set run_id = k.again
      from (
        select b.run_id, (
                 select r.run_id from stepbase.runs r
                   where r.event_id = b.event_id and r.function_id = b.function_id
                     and r.event_ids is not null and not (r.run_id = any (v_runs))
                   order by r.run_id limit 1
               ) as again
          from stepbase.runs b where b.run_id = any (v_runs) and b.event_ids is not null
          offset 0
      ) k
      where k.again is not null and n.run_id = k.run_id;
    with gone as (
      delete from stepbase.not_started n where n.run_id = any (v_runs) returning n.event_id
    )
    select array_agg(gone.event_id) into v_batched from gone;
    with gone as (
      delete from stepbase.runs r where r.run_id = any (v_runs) returning r.event_id
    )
    select array_agg(gone.event_id) into v_events from gone;
    v_gone := stepbase._sweep_events(v_events || v_batched, p_events_older);
  end if;

  select p.events_after into v_after from stepbase.sweep_progress p for update skip locked;
  if found then
    v_last := (
      select e.id from stepbase.events e where e.id > v_after order by e.id offset 5 * p_limit - 1 limit 1
    );
    v_events := array(
      select e.id from stepbase.events e
        where e.id > v_after and (v_last is null or e.id <= v_last)
          and e.received_at < v_now - p_events_older
          and not exists (select from stepbase.runs r where r.event_id = e.id)
        order by e.id limit p_limit
    );
    v_gone := v_gone + stepbase._sweep_events(v_events, p_events_older);
    update stepbase.sweep_progress
      set events_after =
        coalesce(case when cardinality(v_events) = p_limit then v_events[p_limit] else v_last end, '');
  end if;
  delete from stepbase.dedupe d
    where (d.function_id, d.key) in (
      select x.function_id, x.key from stepbase.dedupe x
        where x.until < v_now order by x.until limit p_limit for update skip locked
    );
  delete from stepbase.gates g
    where g.key in (
      select x.key from stepbase.gates x
        where x.tat < v_now order by x.tat limit p_limit for update skip locked
    );
  -- One whose time has come is as good as none.
  delete from stepbase.throttles t
    where t.key = any (array(
      select x.key from stepbase.throttles x
        where x.tat < v_now order by x.tat limit p_limit for update skip locked
    ));
  return query select cardinality(v_runs), v_gone;
end
$$;
