-- Old rows go, a bounded number at a time, so that no sweep holds locks for long.

-- Deletes finished runs (with their steps and attempts), events that no run needs (with why they started
-- none), and expired rows of dedupe and gates: at most p_limit of each. Failed runs may be kept longer. Returns how many runs
-- and events went; call again while that equals p_limit. Locks: the deleted rows, skipping locked ones.
create or replace function stepbase.sweep(
  p_runs_older interval, p_failed_older interval, p_events_older interval, p_limit integer
) returns table (runs integer, events integer)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_runs text[];
  v_events integer;
begin
  select array_agg(o.run_id) into v_runs from (
    select r.run_id from stepbase.runs r
      where r.ended_at < v_now - p_runs_older
        and (r.status <> 'Failed' or r.ended_at < v_now - p_failed_older)
      order by r.ended_at limit p_limit for update skip locked
  ) o;
  if v_runs is not null then
    delete from stepbase.steps s where s.run_id = any (v_runs);
    delete from stepbase.attempts a where a.run_id = any (v_runs);
    delete from stepbase.not_started n where n.run_id = any (v_runs);
    delete from stepbase.runs r where r.run_id = any (v_runs);
  end if;
  with old as (
    select e.id from stepbase.events e
      where e.received_at < least(
          v_now - p_events_older, (select b.first_at from stepbase.buffers b order by b.first_at limit 1)
        )
        and not exists (select from stepbase.runs r where r.event_id = e.id)
        and not exists (
          select from stepbase.not_started n where n.event_id = e.id and n.run_id is not null
        )
      limit p_limit for update skip locked
  ), gone as (
    delete from stepbase.events e using old where e.id = old.id returning e.id
  ), reasons as (
    delete from stepbase.not_started n using gone where n.event_id = gone.id
  )
  select count(*)::int into v_events from gone;
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
  return query select coalesce(cardinality(v_runs), 0), v_events;
end
$$;
