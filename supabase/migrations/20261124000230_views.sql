-- What people look at, in the Supabase dashboard or by any SQL client. All are security_invoker: they show
-- what their reader may read. Durations are in milliseconds unless the name says otherwise.

-- One line per run, newest first when ordered by run_id.
create view stepbase.run_overview
  with (security_invoker = true)
  as
  select
    r.run_id,
    f.slug as function,
    r.status,
    e.name as event,
    coalesce(e.event_id, e.id) as event_id,
    r.cause,
    r.created_at,
    r.started_at,
    r.ended_at,
    round(extract(epoch from coalesce(r.ended_at, stepbase.now()) - r.created_at) * 1000) as age_ms,
    r.step_count as steps,
    (select count(*) from stepbase.attempts as a where a.run_id = r.run_id) as failed_attempts,
    -- What it waits for, while it does.
    case
      when r.ended_at is null then (
        select string_agg(
          case
            when q.ready then 'ready'
            when q.owner is not null then 'being called'
            when q.kind = 'sleep' then 'asleep until '
            else 'due at '
          end
          || case
            when q.ready or q.owner is not null then ''
            else to_char(q.due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
          end,
          ', ' order by q.due_at)
        from stepbase.queue as q
        where q.run_id = r.run_id and q.kind <> 'deadline')
    end as waits,
    r.error,
    r.output
  from stepbase.runs as r
  left join stepbase.functions as f on f.function_id = r.function_id
  left join stepbase.events as e on e.id = r.event_id;

comment on view stepbase.run_overview is 'Runs with their function, event, duration and what they wait for.';

-- What happened in a run, in order: its start, each step and each failed attempt, its end.
create view stepbase.run_timeline
  with (security_invoker = true)
  as
  select t.run_id, t.at, t.what, t.name, t.status, t.attempt, t.ms, t.error
  from (
    select r.run_id, r.created_at as at, 0 as n, 'run' as what, 'scheduled' as name, r.cause as status,
      null::smallint as attempt, null::numeric as ms, null::json as error
    from stepbase.runs as r
    union all
    select s.run_id, s.started_at, 1, 'step', s.name, s.status,
      s.attempt, round(extract(epoch from s.ended_at - s.started_at) * 1000), null
    from stepbase.steps as s
    union all
    select a.run_id, a.at, 2, 'failed attempt', coalesce(s.name, '(between steps)'),
      'HTTP ' || a.http_status, a.attempt, null, a.error
    from stepbase.attempts as a
    left join stepbase.steps as s on s.run_id = a.run_id and s.hash = a.hash
    union all
    select r.run_id, r.ended_at, 3, 'run', lower(r.status), r.status,
      null, round(extract(epoch from r.ended_at - r.created_at) * 1000), r.error
    from stepbase.runs as r
    where r.ended_at is not null
  ) as t
  order by t.run_id, t.at, t.n;

comment on view stepbase.run_timeline is 'What happened in each run, in order. Ask for one run_id.';

-- Why functions did not start: an event that a rule kept from starting a run of its own, or that still waits
-- for quiet (debouncing) or for company (gathering) until due_at. run_id: the run that got the event, or will.
create view stepbase.not_started_events
  with (security_invoker = true)
  as
  select
    coalesce(e.event_id, t.event_id) as event_id,
    e.name as event,
    f.slug as function,
    t.reason,
    t.run_id,
    t.at,
    t.due_at
  from (
    select n.event_id, n.function_id, n.reason, n.run_id, n.at, null::timestamptz as due_at
    from stepbase.not_started as n
    union all
    select w.event_id, b.function_id, case b.kind when 'debounce' then 'debouncing' else 'gathering' end,
      b.id, b.first_at, b.due_at
    from stepbase.buffers as b
    cross join lateral unnest(b.event_ids) as w (event_id)
  ) as t
  left join stepbase.events as e on e.id = t.event_id
  left join stepbase.functions as f on f.function_id = t.function_id;

comment on view stepbase.not_started_events is 'Events that started no run of their own of a function, and why; and those that still wait.';

-- Functions by how many of their runs failed in the last 24 hours, the worst first.
create view stepbase.failing_functions
  with (security_invoker = true)
  as
  select
    f.slug as function,
    count(*) filter (where r.status = 'Failed') as failed,
    count(*) as ended,
    round(100.0 * count(*) filter (where r.status = 'Failed') / count(*), 1) as failed_percent,
    max(r.ended_at) filter (where r.status = 'Failed') as last_failed_at,
    (array_agg(r.run_id order by r.ended_at desc)
      filter (where r.status = 'Failed'))[1] as last_failed_run,
    (array_agg(r.error order by r.ended_at desc)
      filter (where r.status = 'Failed'))[1] as last_error
  from stepbase.runs as r
  join stepbase.functions as f on f.function_id = r.function_id
  -- Said of status for the sake of the two indexes by end.
  where r.ended_at > stepbase.now() - interval '24 hours' and (r.status = 'Failed' or r.status <> 'Failed')
  group by f.slug
  having count(*) filter (where r.status = 'Failed') > 0
  order by failed desc, f.slug;

comment on view stepbase.failing_functions is 'Functions with failed runs in the last 24 hours, the worst first.';

-- Events, started and ended runs of each of the last 60 minutes that had any.
create view stepbase.throughput_by_minute
  with (security_invoker = true)
  as
  select
    t.minute,
    count(*) filter (where t.what = 'event') as events,
    count(*) filter (where t.what = 'start') as runs_started,
    count(*) filter (where t.what = 'end') as runs_ended,
    count(*) filter (where t.failed) as runs_failed
  from (
    select date_trunc('minute', e.received_at) as minute, 'event' as what, false as failed
    from stepbase.events as e
    where e.received_at > stepbase.now() - interval '60 minutes'
    union all
    select date_trunc('minute', r.created_at), 'start', false
    from stepbase.runs as r
    where r.created_at > stepbase.now() - interval '60 minutes'
    union all
    select date_trunc('minute', r.ended_at), 'end', r.status = 'Failed'
    from stepbase.runs as r
    where r.ended_at > stepbase.now() - interval '60 minutes'
      and (r.status = 'Failed' or r.status <> 'Failed')
  ) as t
  group by t.minute
  order by t.minute desc;

comment on view stepbase.throughput_by_minute is 'Events and runs per minute of the last hour, newest first.';

-- One line: how the outbox does. A growing oldest_due_s means that no relay is running.
create view stepbase.outbox_health
  with (security_invoker = true)
  as
  select
    count(*) filter (where o.dead_at is null) as waiting,
    count(*) filter (where o.dead_at is null and o.token is not null and o.due_at > stepbase.now()) as leased,
    count(*) filter (where o.dead_at is null and o.tries > 0 and o.token is null) as retrying,
    count(*) filter (where o.dead_at is not null) as dead,
    round(extract(epoch from stepbase.now() - min(o.due_at) filter (where o.dead_at is null)), 1)
      as oldest_due_s,
    (array_agg(o.error order by o.dead_at desc) filter (where o.dead_at is not null))[1] as last_dead_error,
    (select count(*) from stepbase.row_triggers) as row_triggers
  from stepbase.outbox as o;

comment on view stepbase.outbox_health is 'One line about events that are on their way out, and dead ones.';
