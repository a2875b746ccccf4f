-- What people look at, in the Supabase dashboard or by any SQL client. All are security_invoker: they show
-- what their reader may read. Durations are in milliseconds unless the name says otherwise.

-- The first ten characters of the ULIDs of a moment: ids compare with it as their times do.
create function stepbase.ulid_floor(p_at timestamptz) returns text
language sql immutable security invoker set search_path = ''
as $$
  select string_agg(
      substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ',
             ((floor(extract(epoch from p_at) * 1000)::bigint >> (5 * place)) & 31)::integer + 1, 1),
      '' order by place desc)
    from generate_series(0, 9) as place
$$;

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
      when r.ended_at is not null then null
      when r.recorded_at is not null then (
        select coalesce(
          string_agg(
            case w.kind
              when 'sleep' then 'asleep'
              when 'call' then 'called for a step'
              else 'waits for ' || coalesce(w.what, w.kind)
            end
            || coalesce(' until ' || to_char(w.due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), ''),
            ', ' order by w.due_at),
          'last reported at ' || to_char(r.recorded_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        from stepbase.recorded_waits as w
        where w.run_id = r.run_id)
      else (
        select string_agg(
          case
            when q.ready then 'ready'
            when q.owner is not null then 'being called'
            when q.kind = 'sleep' then 'asleep until '
            when q.kind in ('wait', 'look') then coalesce(
              (
                select 'waits for ' || p.event_name || ' until '
                from stepbase.pauses as p
                where p.run_id = q.run_id and p.hash = coalesce(q.step, q.job) and p.kind <> 'cancel'
              ), 'waits until ')
            when q.kind = 'invoke' then 'waits until '
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
    r.output,
    r.function_id,
    r.parent_run,
    r.original_run_id
  from stepbase.runs as r
  left join stepbase.functions as f on f.function_id = r.function_id
  left join stepbase.events as e on e.id = r.event_id;

comment on view stepbase.run_overview is 'Runs with their function, event, duration and what they wait for.';

-- What happened in a run, in order: its start, each step and each failed attempt, its end. Of a step whose
-- result was saved on the way, while its call went on, only the end is known, and of one that ends such a
-- call only when the call began: they begin where the step before them ended.
create view stepbase.run_timeline
  with (security_invoker = true)
  as
  select t.run_id, t.at, t.what, t.name, t.status, t.attempt, t.ms, t.error, t.op
  from (
    select r.run_id, r.created_at as at, 0 as n, 'run' as what, 'scheduled' as name, r.cause as status,
      null::smallint as attempt, null::numeric as ms, null::json as error, null as op
    from stepbase.runs as r
    union all
    select s.run_id, s.began_at, 1, 'step', s.name, s.status,
      s.attempt, round(extract(epoch from s.ended_at - s.began_at) * 1000), null, s.op
    from (
      select k.run_id, k.name, k.status, k.attempt, k.op, k.ended_at,
        case
          when k.op = 'StepRun' and k.started_at = k.ended_at
            then coalesce(k.before, (select r.started_at from stepbase.runs as r where r.run_id = k.run_id), k.started_at)
          when k.op = 'StepPlanned' then k.started_at
          else greatest(k.started_at, k.before)
        end as began_at
      from (
        select x.*, max(x.ended_at) filter (where x.op = 'StepRun') over (
            partition by x.run_id order by x.ended_at
            range between unbounded preceding and interval '1 microsecond' preceding) as before
        from stepbase.steps as x
      ) as k
    ) as s
    union all
    select a.run_id, a.at, 2, 'failed attempt', coalesce(s.name, '(between steps)'),
      'HTTP ' || a.http_status, a.attempt, null, a.error, s.op
    from stepbase.attempts as a
    left join stepbase.steps as s on s.run_id = a.run_id and s.hash = a.hash
    union all
    select r.run_id, r.ended_at, 3, 'run', lower(r.status), r.status,
      null, round(extract(epoch from r.ended_at - r.created_at) * 1000), r.error, null
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
      -- For the sake of the key. A run that gathers events has its id before it is made.
      and r.run_id > stepbase.ulid_floor(stepbase.now() - interval '1 day')
    union all
    select date_trunc('minute', r.ended_at), 'end', r.status = 'Failed'
    from stepbase.runs as r
    where r.ended_at > stepbase.now() - interval '60 minutes'
      and (r.status = 'Failed' or r.status <> 'Failed')
  ) as t
  group by t.minute
  order by t.minute desc;

comment on view stepbase.throughput_by_minute is 'Events and runs per minute of the last hour, newest first.';

-- What live runs wait for, a line for each thing: its turn ('turn': it is ready, and an engine, a limit or a
-- pause holds it back), the next try of what failed ('retry'), a call for a parallel step ('call'), the end of
-- a sleep, an event, a signal or a function it invoked. until: when that comes, or the wait is given up.
create view stepbase.waiting_runs
  with (security_invoker = true)
  as
  select
    q.run_id,
    f.slug as function,
    s.name as step,
    case
      when s.op = 'Sleep' then 'sleep'
      when s.op = 'WaitForEvent' then 'event'
      when s.op = 'WaitForSignal' then 'signal'
      when s.op = 'InvokeFunction' then 'invoke'
      when q.attempt > 0 or q.outage_since is not null then 'retry'
      else 'call'
    end as waits_for,
    p.event_name as what,
    coalesce(s.started_at, r.started_at, r.created_at) as since,
    q.due_at as until,
    q.attempt
  from stepbase.queue as q
  join stepbase.runs as r on r.run_id = q.run_id
  left join stepbase.functions as f on f.function_id = r.function_id
  left join stepbase.steps as s
    on s.run_id = q.run_id and s.hash = coalesce(q.step, q.job)
  left join stepbase.pauses as p on p.run_id = q.run_id and p.hash = s.hash and p.kind <> 'cancel'
  -- Without duties of the engine, what is being called, and what is parked behind other items.
  where not q.ready and q.owner is null and q.kind <> 'deadline' and q.due_at < 'infinity'
  union all
  -- Apart from the others, so that a condition on until is a look-up there.
  select q.run_id, f.slug, s.name, 'turn', null, coalesce(s.started_at, r.started_at, r.created_at), null, q.attempt
  from stepbase.queue as q
  join stepbase.runs as r on r.run_id = q.run_id
  left join stepbase.functions as f on f.function_id = r.function_id
  left join stepbase.steps as s on s.run_id = q.run_id and s.hash = coalesce(q.step, q.job)
  where q.ready and q.kind <> 'deadline'
  union all
  select
    w.run_id, f.slug, s.name, w.kind, w.what, coalesce(s.started_at, r.started_at), w.due_at, s.attempt
  from stepbase.recorded_waits as w
  join stepbase.runs as r on r.run_id = w.run_id
  left join stepbase.functions as f on f.function_id = r.function_id
  left join stepbase.steps as s on s.run_id = w.run_id and s.hash = w.hash;

comment on view stepbase.waiting_runs is 'What live runs wait for, a line for each thing. Ask for one run_id, or for until below a time.';

-- How long the steps took of runs that ended in the last hour, the slowest first. Only steps that ran code;
-- of parallel ones from when they were found, so what they waited for their turn counts too. When a step
-- began is as run_timeline has it.
create view stepbase.slow_steps
  with (security_invoker = true)
  as
  select
    f.slug as function,
    t.name as step,
    count(*) as count,
    round((percentile_cont(0.5) within group (order by t.ms))::numeric, 1) as median_ms,
    round((percentile_cont(0.95) within group (order by t.ms))::numeric, 1) as p95_ms,
    round(max(t.ms)::numeric, 1) as max_ms,
    count(*) filter (where t.attempt > 0) as retried
  from (
    select
      k.function_id, k.name, k.attempt, k.status, k.op,
      extract(epoch from k.ended_at - case
        when k.op = 'StepRun' and k.started_at = k.ended_at then coalesce(k.before, k.run_started_at, k.started_at)
        when k.op = 'StepPlanned' then k.started_at
        else greatest(k.started_at, k.before)
      end) * 1000 as ms
    from (
      select r.function_id, r.started_at as run_started_at, s.name, s.attempt, s.status, s.op, s.started_at,
        s.ended_at,
        max(s.ended_at) filter (where s.op = 'StepRun') over (
          partition by s.run_id order by s.ended_at
          range between unbounded preceding and interval '1 microsecond' preceding) as before
      from stepbase.runs as r
      join stepbase.steps as s on s.run_id = r.run_id
      where r.ended_at > stepbase.now() - interval '1 hour' and (r.status = 'Failed' or r.status <> 'Failed')
    ) as k
  ) as t
  join stepbase.functions as f on f.function_id = t.function_id
  where t.status in ('done', 'failed')
    and t.op not in ('Sleep', 'WaitForEvent', 'WaitForSignal', 'InvokeFunction', '')
  group by f.slug, t.name
  order by p95_ms desc, f.slug, t.name;

comment on view stepbase.slow_steps is 'How long steps of runs that ended in the last hour took, the slowest first.';

-- Where attempts failed in the last 24 hours, the most often first; step null: the code between steps. Of
-- runs that are at most 30 days old.
create view stepbase.failing_steps
  with (security_invoker = true)
  as
  select
    f.slug as function,
    s.name as step,
    count(*) as failed_attempts,
    count(distinct a.run_id) as runs,
    count(distinct a.run_id) filter (where r.ended_at is null) as still_live,
    max(a.at) as last_at,
    (array_agg(a.run_id order by a.at desc))[1] as last_run,
    (array_agg(a.error order by a.at desc))[1] as last_error
  from stepbase.attempts as a
  join stepbase.runs as r on r.run_id = a.run_id
  join stepbase.functions as f on f.function_id = r.function_id
  left join stepbase.steps as s on s.run_id = a.run_id and s.hash = a.hash
  where a.run_id > stepbase.ulid_floor(stepbase.now() - interval '30 days')
    and a.at > stepbase.now() - interval '24 hours'
  group by f.slug, s.name
  order by failed_attempts desc, f.slug, s.name;

comment on view stepbase.failing_steps is 'Steps with failed attempts in the last 24 hours, the most often failing first.';

-- One line per event, newest first when ordered by id: which functions it started, and which not.
create view stepbase.event_overview
  with (security_invoker = true)
  as
  select
    e.id,
    e.event_id,
    e.name,
    e.received_at,
    e.source,
    (
      select string_agg(f.slug || ' ' || r.status, ', ' order by r.run_id)
      from stepbase.runs as r
      left join stepbase.functions as f on f.function_id = r.function_id
      where r.event_id = e.id
    ) as started,
    (
      select string_agg(f.slug || ' ' || n.reason, ', ' order by f.slug)
      from stepbase.not_started as n
      left join stepbase.functions as f on f.function_id = n.function_id
      where n.event_id = e.id
    ) as not_started,
    e.payload
  from stepbase.events as e;

comment on view stepbase.event_overview is 'Events with the runs they started, and why others were not.';

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
