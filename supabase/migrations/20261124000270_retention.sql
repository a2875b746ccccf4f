-- Retention where no engine sweeps: the same deletions from SQL, by a schedule of pg_cron or of your own.

-- Ends reported runs that nobody has heard of for p_silent, and that wait for nothing known: cancelled, timed
-- out or lost on their server, which does not say so. For prune and for an engine's sweeper. At most p_limit; returns how many. Locks: the runs,
-- skipping locked ones.
create or replace function stepbase.end_silent_runs(p_silent interval, p_limit integer) returns integer
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_runs text[] := array(
    select r.run_id from stepbase.runs r
      where r.recorded_at < v_now - p_silent and r.recorded_at is not null and r.ended_at is null
        and not exists (
          select from stepbase.recorded_waits w
            where w.run_id = r.run_id and w.due_at > v_now - p_silent
        )
      order by r.recorded_at limit p_limit for no key update skip locked
  );
begin
  update stepbase.runs r
    set status = 'Cancelled', ended_at = v_now,
        error = '{"name": "NotHeardOf", "message": "no call of this run was reported for a long time"}'
    where r.run_id = any (v_runs);
  update stepbase.steps k set status = 'cancelled', ended_at = v_now
    where k.run_id = any (v_runs) and not stepbase._is_closed(k.status);
  delete from stepbase.recorded_waits w where w.run_id = any (v_runs);
  return cardinality(v_runs);
end
$$;

-- Deletes what has reached its age, oldest first, until nothing is left to delete or p_seconds are over; call
-- it again, it goes on where it stopped. p_silent: after how long without a report a reported run counts as
-- ended. Returns a line for each kind and how many rows of it went. Everything happens in the caller's
-- transaction: the deleted rows stay locked until then, live ones are never touched.
create or replace function stepbase.prune(
  p_runs interval default '30 days',
  p_failed interval default '90 days',
  p_events interval default '7 days',
  p_results interval default '30 days',
  p_keys interval default '400 days',
  p_silent interval default '30 days',
  p_seconds integer default 20
) returns table (what text, gone bigint)
language plpgsql security invoker set search_path = ''
as $$
declare
  v_until constant timestamptz := clock_timestamp() + p_seconds * interval '1 second';
  v_limit constant integer := 1000;
  v_silent bigint := 0::bigint;
  v_runs bigint := 0::bigint;
  v_events bigint := 0::bigint;
  v_results bigint := 0::bigint;
  v record;
  v_count integer;
begin
  loop
    v_count := stepbase.end_silent_runs(p_silent, v_limit);
    v_silent := v_silent + v_count;
    exit when v_count < v_limit or clock_timestamp() > v_until;
  end loop;
  loop
    select s.runs, s.events into v from stepbase.sweep(p_runs, p_failed, p_events, v_limit) as s;
    v_runs := v_runs + v.runs;
    v_events := v_events + v.events;
    exit when greatest(v.runs, v.events) < v_limit or clock_timestamp() > v_until;
  end loop;
  loop
    v_count := stepbase.ledger_prune(stepbase.now() - p_results, stepbase.now() - p_keys, v_limit);
    v_results := v_results + v_count;
    exit when v_count < v_limit or clock_timestamp() > v_until;
  end loop;
  return query values
    ('silent runs ended', v_silent), ('runs', v_runs), ('events', v_events), ('ledger', v_results);
end
$$;

-- Has pg_cron call prune on a schedule, with these ages; called again it changes the schedule. Returns
-- pg_cron's job id. Raises SB020 if pg_cron is not there.
create or replace function stepbase.schedule_retention(
  p_schedule text default '*/10 * * * *',
  p_runs interval default '30 days',
  p_failed interval default '90 days',
  p_events interval default '7 days',
  p_results interval default '30 days',
  p_keys interval default '400 days',
  p_silent interval default '30 days'
) returns bigint
language plpgsql security invoker set search_path = ''
as $$
declare
  v_id bigint;
begin
  if not exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
    raise exception 'retention cannot be scheduled: the extension pg_cron is not in this database'
      using errcode = 'SB020',
        hint = 'On Supabase: Dashboard, Integrations, Cron; elsewhere: install it as its page says. Without it, '
          'call stepbase.prune() from a schedule of your own, or run an engine, which needs none.';
  end if;
  -- Two at once would be two jobs in old versions of pg_cron.
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('stepbase retention', 0));
  -- Not in the text of this function, because the schema cron need not be there.
  execute pg_catalog.format('select %I.schedule($1, $2, $3)', 'cron') into v_id using
    'stepbase retention', p_schedule,
    pg_catalog.format(
      'select * from stepbase.prune(p_runs => %L, p_failed => %L, p_events => %L, p_results => %L, '
      'p_keys => %L, p_silent => %L)',
      p_runs, p_failed, p_events, p_results, p_keys, p_silent);
  return v_id;
end
$$;

-- Takes the schedule back; returns whether there was one.
create or replace function stepbase.unschedule_retention() returns boolean
language plpgsql security invoker set search_path = ''
as $$
declare
  v_count bigint;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('stepbase retention', 0));
  if exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
    execute pg_catalog.format(
      'select count(%I.unschedule(j.jobid)) from %1$I.job j where j.jobname = $1', 'cron')
      into v_count using 'stepbase retention';
  end if;
  return coalesce(v_count > 0, false);
end
$$;

-- What each table takes: rows as the planner estimates them, bytes, bytes a row.
create view stepbase.table_sizes
  with (security_invoker = true)
  as
  select
    c.relname::text as name,
    greatest(c.reltuples, 0)::bigint as rows,
    pg_total_relation_size(c.oid) as bytes,
    pg_indexes_size(c.oid) as index_bytes,
    case when c.reltuples > 0 then round((pg_total_relation_size(c.oid) / c.reltuples)::numeric) end as bytes_per_row
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = 'stepbase' and c.relkind = 'r'
  order by bytes desc, name;

comment on view stepbase.table_sizes is 'How much room each table of stepbase takes, the largest first.';
