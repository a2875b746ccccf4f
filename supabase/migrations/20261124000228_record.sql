-- Runs of another server, as the functions' host tells of them: for functions that run on Inngest.
--
-- There the runs' state lives elsewhere, and what this database can know is what each call of a function
-- showed. The Monitor middleware sends that as one report a call; it is written into the tables that an
-- engine keeps its state in, so the views show both kinds of runs. A reported run has recorded_at set and no
-- queue items: no engine will ever work on it. A run without recorded_at belongs to an engine of this
-- database, and no report changes it.

-- When a run of another server was last reported; null for the engine's own.
alter table stepbase.runs add column recorded_at timestamptz;
-- serves: pruning of runs that are never heard of again
create index recorded_runs_by_news on stepbase.runs (recorded_at) where recorded_at is not null and ended_at is null;
-- serves: the search for live runs, which looks in the queue for an engine's own
create index recorded_live_runs on stepbase.runs (run_id) where recorded_at is not null and ended_at is null;

-- Which report an attempt is known from, so that it counts once; null for the engine's own.
alter table stepbase.attempts add column report text;

create table stepbase.recorded_waits (
  run_id text collate "C" not null,
  hash text not null,
  kind text not null constraint kind_is_known check (kind in ('sleep', 'event', 'signal', 'invoke', 'call')),
  -- The event, signal or function that is waited for.
  what text,
  -- The rest of the condition of a wait for an event (CEL).
  condition text,
  due_at timestamptz,
  primary key (run_id, hash)
);
comment on table stepbase.recorded_waits is
  'What open steps of reported runs wait for, as their queue items and pauses say of an engine''s own. due_at: when a sleep ends, or a wait is given up.';
-- serves: what is due next
create index recorded_waits_by_due on stepbase.recorded_waits (due_at);
alter table stepbase.recorded_waits enable row level security;

-- Whether a step with this status is over.
create or replace function stepbase._is_closed(p_status text) returns boolean
language sql immutable security invoker set search_path = ''
as $$
  select p_status in ('done', 'failed', 'cancelled')
$$;

-- Whether a reported run has ended, as far as anybody knows. One that `prune` gave up may still be heard of.
create or replace function stepbase._is_over(p_run stepbase.runs) returns boolean
language sql immutable security invoker set search_path = ''
as $$
  select p_run.ended_at is not null
    and not (p_run.status = 'Cancelled' and p_run.error ->> 'name' = 'NotHeardOf')
$$;

-- Stores the app, the function, the events and the run of a report, as far as they are not there yet.
-- Apps and functions that nobody synced here get no triggers: no engine starts a run of them. Locks: the
-- rows it inserts; of two first reports of one run, the second waits here for the first.
create or replace function stepbase._record_run(p jsonb, p_now timestamptz, p_began timestamptz) returns void
language plpgsql security invoker set search_path = ''
as $$
declare
  v_app uuid;
  v_function stepbase.functions;
  v_invoker text[] := regexp_match(p ->> 'invoked_by', '^([0-9A-Z]{26})\.([0-9a-f]{40})$');
begin
  select * into v_function from stepbase.functions f where f.slug = p ->> 'function';
  if not found then
    insert into stepbase.apps (app_id, name, url, sdk, framework, checksum, synced_at)
      values ((p ->> 'app_id')::uuid, p ->> 'app', p ->> 'url', p ->> 'sdk', 'reported', '', p_now)
      on conflict do nothing;
    select a.app_id into v_app from stepbase.apps a where a.name = p ->> 'app';
    insert into stepbase.functions (function_id, app_id, slug, name, config)
      values (
        (p ->> 'function_id')::uuid, v_app, p ->> 'function', p ->> 'function_name',
        json_build_object(
          'id', p ->> 'function', 'name', p ->> 'function_name', 'triggers', '[]'::json,
          'steps', json_build_object('step', json_build_object(
            'id', 'step', 'name', 'step', 'runtime', json_build_object('type', 'http', 'url', p ->> 'url'))))
      )
      on conflict do nothing;
    select * into v_function from stepbase.functions f where f.slug = p ->> 'function';
  end if;
  insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, event_ids, cause, status, parent_run, parent_hash,
     created_at, started_at, recorded_at)
    values (
      p ->> 'run', v_function.function_id, v_function.version, p #>> '{events,0,id}',
      case when jsonb_array_length(p -> 'events') > 1
           then array(select e ->> 'id' from jsonb_array_elements(p -> 'events') as e) end,
      p ->> 'cause', 'Running', v_invoker[1], v_invoker[2],
      least(coalesce(timestamptz 'epoch' + (p ->> 'created_ms')::bigint * interval '1 millisecond', p_began), p_began),
      p_began, p_now
    )
    on conflict do nothing;
  insert into stepbase.events (id, event_id, name, payload, ts, received_at, source)
    select e.id, e.event_id, e.name, e.payload::json, t.ts, least(t.ts, p_now), 'report'
      from jsonb_to_recordset(p -> 'events') as e (id text, event_id text, name text, payload text, ts bigint)
      cross join lateral (select timestamptz 'epoch' + e.ts * interval '1 millisecond' as ts) t
    on conflict do nothing;
  -- Of a batch, where the events but the first went; which also keeps them as long as the run.
  insert into stepbase.not_started (event_id, function_id, reason, run_id, at)
    select e.event ->> 'id', v_function.function_id, 'batched', p ->> 'run', p_began
      from jsonb_array_elements(p -> 'events') with ordinality as e (event, place)
      where e.place > 1
    on conflict do nothing;
end
$$;

-- Writes the steps of a report. Those the call came with are over; a hash nobody has told of yet gets a row
-- without a name, which a report that comes late fills in. What is over stays as it is. For callers that
-- hold the run.
create or replace function stepbase._record_steps(
  p jsonb, p_run text, p_is_over boolean, p_now timestamptz, p_began timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_count integer;
begin
  select r.step_count into v_count from stepbase.runs r where r.run_id = p_run;

  insert into stepbase.steps as k (run_id, hash, pos, name, op, status, started_at, ended_at)
    select p_run, t.hash, v_count + t.place, '', '',
           case when p -> 'known_failed' ? t.hash then 'failed' else 'done' end, p_began, p_began
      from jsonb_array_elements_text(p -> 'known') with ordinality as t (hash, place)
    on conflict (run_id, hash) do update
      set status = excluded.status, pos = excluded.pos, ended_at = excluded.ended_at
      where not stepbase._is_closed(k.status);

  insert into stepbase.steps as k
    (run_id, hash, pos, name, op, status, memo, attempt, started_at, ended_at)
    select p_run, s.hash,
           case when stepbase._is_closed(s.status) then v_count + 1000 + s.place else 2147483647 end,
           s.name, s.op, s.status, s.memo::json, s.attempt,
           p_now - s.since_ms * interval '1 millisecond', p_now - s.until_ms * interval '1 millisecond'
      from rows from (
        jsonb_to_recordset(p -> 'steps') as (
          hash text, name text, op text, status text, memo text, attempt smallint,
          since_ms double precision, until_ms double precision)
      ) with ordinality
        as s (hash, name, op, status, memo, attempt, since_ms, until_ms, place)
      where not p_is_over or stepbase._is_closed(s.status) or exists (
        select from stepbase.steps x where x.run_id = p_run and x.hash = s.hash
      )
    on conflict (run_id, hash) do update
      set name = excluded.name, op = excluded.op, attempt = excluded.attempt,
          memo = coalesce(excluded.memo, k.memo),
          pos = case when stepbase._is_closed(k.status) then k.pos else excluded.pos end,
          status = case when stepbase._is_closed(k.status) then k.status else excluded.status end,
          started_at = case when k.op = '' then excluded.started_at else k.started_at end,
          ended_at = case when k.op = '' then coalesce(excluded.ended_at, k.ended_at)
                          else excluded.ended_at end
      where k.op = '' or not stepbase._is_closed(k.status) and stepbase._is_closed(excluded.status);

  insert into stepbase.recorded_waits (run_id, hash, kind, what, condition, due_at)
    select p_run, w.hash, w.kind, w.what, w.condition,
           coalesce(w.due_at, p_now + w.due_in_ms * interval '1 millisecond')
      from jsonb_to_recordset(p -> 'steps') as w (
        hash text, kind text, what text, condition text, due_at timestamptz, due_in_ms double precision)
      cross join lateral (
        select from stepbase.steps k
          where k.run_id = p_run and k.hash = w.hash and not stepbase._is_closed(k.status)
      ) k
      where w.kind is not null
    on conflict do nothing;

  insert into stepbase.attempts (run_id, hash, attempt, at, http_status, error, report)
    select p_run, a.hash, (p ->> 'attempt')::smallint, p_now, (p ->> 'http')::integer, a.error::json,
           p ->> 'report'
      from jsonb_to_recordset(p -> 'failed') as a (hash text, error text)
      where not exists (
        select from stepbase.attempts x where x.run_id = p_run and x.report = p ->> 'report'
      );
end
$$;

-- Takes the report of one call of a function (middleware/monitor.py says what is in it). Returns recorded,
-- or owned if the run belongs to an engine of this database: then nothing is written, and nobody need ask
-- again. May be sent twice, late, out of order, and after the run's end. Raises 22023 for what is no report.
-- Its owner's rights: who may report calls need not be able to write runs. Locks: the run, then what
-- _record_run and _record_steps say.
create or replace function public.stepbase_record(p_report json) returns text
language plpgsql security definer set search_path = ''
-- Nobody waits longer: PostgREST applies this to the whole request.
set statement_timeout = '1s'
as $$
declare
  p constant jsonb := p_report::jsonb;
  v_run constant text := p ->> 'run';
  v_now constant timestamptz := stepbase.now();
  v_began constant timestamptz := v_now - (p ->> 'ms')::double precision * interval '1 millisecond';
  v_status text := p #>> '{end,status}';
  v_recorded timestamptz;
  v_is_over boolean;
  v_is_forgotten boolean;
begin
  if v_run is null or length(v_run) > 100 or v_began is null or p ->> 'report' is null
     or v_status not in ('Completed', 'Failed') then
    raise exception 'not a report of a call: it needs run, report, ms and, if the run is over, end.status'
      using errcode = '22023', hint = 'Is the stepbase of the functions of the same version as the migrations?';
  end if;
  select r.recorded_at, stepbase._is_over(r), r.forgotten_at is not null
    into v_recorded, v_is_over, v_is_forgotten
    from stepbase.runs r where r.run_id = v_run for no key update;
  if not found then
    perform stepbase._record_run(p, v_now, v_began);
    select r.recorded_at, stepbase._is_over(r),
           exists (
             select from stepbase.events e
               where e.id = any (r.event_id || r.event_ids) and stepbase._is_forgotten(e.payload)
           )
      into v_recorded, v_is_over, v_is_forgotten
      from stepbase.runs r where r.run_id = v_run for no key update;
  end if;
  if v_recorded is null then
    return 'owned';
  end if;

  perform stepbase._record_steps(p, v_run, v_is_over, v_now, v_began);
  if v_status is not null and not v_is_over then
    update stepbase.steps k set status = 'cancelled', ended_at = v_now
      where k.run_id = v_run and not stepbase._is_closed(k.status);
  end if;
  update stepbase.runs r
    set recorded_at = v_now,
        started_at = least(r.started_at, v_began),
        step_count = (
          select count(*) from stepbase.steps k where k.run_id = v_run and k.status in ('done', 'failed')
        ),
        status = case when v_is_over then r.status else coalesce(v_status, 'Running') end,
        output = case when v_is_over then r.output else (p #>> '{end,output}')::json end,
        error = case when v_is_over then r.error else (p #>> '{end,error}')::json end,
        ended_at = case when v_is_over then r.ended_at when v_status is not null then v_now end
    where r.run_id = v_run;
  delete from stepbase.recorded_waits w
    where w.run_id = v_run and not exists (
      select from stepbase.steps k
        where k.run_id = v_run and k.hash = w.hash and not stepbase._is_closed(k.status)
    );
  -- Whose data were taken out: what this report brought of them goes before anybody sees it.
  if v_is_forgotten then
    perform stepbase._take_out(array[v_run]);
  end if;
  if v_status = 'Failed' and not v_is_over then
    perform stepbase.log_failed_runs(array[v_run]);
  end if;
  return 'recorded';
end
$$;
comment on function public.stepbase_record is
  'Takes the report of a call that a function on another server (Inngest) has answered. service_role only.';
