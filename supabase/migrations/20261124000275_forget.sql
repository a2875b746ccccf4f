-- Forgetting a person: what events, runs, steps and the ledger hold of them is taken out, what happened stays.

-- When a run's payloads were taken out; null for the others. Reports that come later write none again.
alter table stepbase.runs add column forgotten_at timestamptz;

-- Whether a payload is of a user: its user.id or user.sub, or what stands at one of p_paths ('data.user_id').
create or replace function stepbase._is_of_user(p_payload json, p_user text, p_paths text[]) returns boolean
language plpgsql immutable security invoker set search_path = ''
as $$
begin
  -- Cheap for the many that are not; a text with escapes may spell it another way.
  if strpos(p_payload::text, p_user) = 0 and strpos(p_payload::text, '\u') = 0 then
    return false;
  end if;
  return exists (
    select from unnest(array['user.id', 'user.sub'] || p_paths) as t (path)
      where p_payload #>> string_to_array(t.path, '.') = p_user
  );
exception
  -- JSON that Postgres keeps and cannot take apart: rather too much is forgotten than too little.
  when untranslatable_character or invalid_text_representation then
    return strpos(p_payload::text, p_user) > 0;
end
$$;

-- An error object of which only the name is left, if it is a plain word.
create or replace function stepbase._forgotten_error(p_error json) returns json
language sql immutable security invoker set search_path = ''
as $$
  select ('{"name":'
    || coalesce(substring(p_error::text from '"name"\s*:\s*("[A-Za-z0-9_.]{1,100}")'), '"Error"')
    || ',"message":"(forgotten)"}')::json
$$;

-- Takes the payloads out of runs: outputs, errors but for their names, results of steps. Returns of how many
-- steps and attempts. For forget, and for reports of runs that are forgotten; for callers that hold the runs.
create or replace function stepbase._take_out(p_runs text[], out steps bigint, out attempts bigint)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
begin
  update stepbase.runs r
    set output = null, edits = null, state_bytes = 0, forgotten_at = stepbase.now(),
        error = case when r.error is not null then stepbase._forgotten_error(r.error) end
    where r.run_id = any (p_runs);
  update stepbase.steps k
    set memo = case when k.status = 'failed'
                    then json_build_object('error', stepbase._forgotten_error(k.memo))
                    else '{"data":null}'::json end
    where k.run_id = any (p_runs) and k.memo is not null and k.memo::text <> 'null';
  get diagnostics steps = row_count;
  update stepbase.attempts a set error = stepbase._forgotten_error(a.error) where a.run_id = any (p_runs);
  get diagnostics attempts = row_count;
end
$$;

-- Whether an event's payload was taken out.
create or replace function stepbase._is_forgotten(p_payload json) returns boolean
language sql immutable security invoker set search_path = ''
as $$
  select right(p_payload::text, 20) ~ '"forgotten" : true}$'
$$;

-- Of the next p_limit events after p_after (by internal id), takes out what is of a user: their payloads, and
-- of the runs they started, those that these invoked, and those made again: outputs, errors, results of
-- steps, errors of attempts, results in the ledger. Only of runs that have ended; an event stays while one of
-- its runs goes on, or waits in a buffer. p_is_dry: only count. Returns counts, the ids of the live runs that
-- are left, how many events of the user are still in the outbox (in the first batch), how many events hold
-- the id at none of these places (elsewhere; an id under 16 characters counts only as a whole text) and some of
-- their ids (was a path forgotten, or misspelt?), and the id to go on after, or null at the end. Locks: the runs in order, then the rows it changes.
create or replace function stepbase.forget(
  p_user text, p_paths text[] default '{}', p_after text default '', p_limit integer default 5000,
  p_is_dry boolean default false
) returns table (
  events bigint, runs bigint, steps bigint, attempts bigint, results bigint,
  live_runs text[], in_outbox bigint, elsewhere bigint, elsewhere_ids text[], last text
)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_events text[];
  v_runs text[];
  v_ended text[];
  v_run record;
  v_count bigint;
  -- A short id is part of many texts, so it counts only as a whole one.
  v_needle constant text := case when length(p_user) < 16 then to_json(p_user)::text else p_user end;
begin
  if coalesce(p_user, '') = '' then
    raise exception 'whom to forget? the user''s id is empty' using errcode = '22023';
  end if;
  select array_agg(e.id) filter (where e.is_theirs),
         count(*) filter (where e.is_elsewhere),
         coalesce((array_agg(e.id order by e.id) filter (where e.is_elsewhere))[:20], '{}'),
         case when count(*) = p_limit then max(e.id) end
    into v_events, elsewhere, elsewhere_ids, last
    from (
      select x.id, t.is_theirs,
             not t.is_theirs and strpos(x.payload::text, v_needle) > 0
               and not stepbase._is_forgotten(x.payload) as is_elsewhere
        from (
          select e.id, e.payload from stepbase.events e where e.id > p_after order by e.id limit p_limit
        ) x
        cross join lateral (
          select stepbase._is_of_user(x.payload, p_user, p_paths) as is_theirs offset 0
        ) t
    ) e;
  if p_after = '' and not p_is_dry then
    -- How much they have sent lately: first, as the order of locks has it.
    delete from stepbase.sender_rates r where r.user_id = p_user;
  end if;
  steps := 0::bigint;
  attempts := 0::bigint;
  results := 0::bigint;
  in_outbox := 0::bigint;
  v_events := coalesce(v_events, '{}');

  with recursive theirs as (
    select r.run_id from stepbase.runs r where r.event_id = any (v_events)
    union
    select n.run_id from stepbase.not_started n where n.event_id = any (v_events) and n.run_id is not null
    union
    -- Batches made again have no such rows.
    select r.run_id from unnest(v_events) as e (id)
      join stepbase.runs r on r.event_ids @> array[e.id] and r.event_ids is not null and r.original_run_id is not null
    union
    select c.run_id from theirs t join stepbase.runs c on c.parent_run = t.run_id and c.parent_run is not null
  )
  select coalesce(array_agg(t.run_id), '{}') into v_runs from theirs t;
  perform 1 from stepbase.runs r where r.run_id = any (v_runs) order by r.run_id for no key update;
  select coalesce(array_agg(r.run_id) filter (where r.ended_at is not null), '{}'),
         coalesce(array_agg(r.run_id order by r.run_id) filter (where r.ended_at is null), '{}')
    into v_ended, live_runs
    from stepbase.runs r where r.run_id = any (v_runs);

  -- The events that invoked runs of theirs carry what was handed over.
  v_events := v_events || array(
    select r.event_id from stepbase.runs r
      where r.run_id = any (v_ended) and r.cause = 'invoke' or r.run_id = any (v_ended) and r.parent_run is not null
  );
  v_events := array(
    select distinct e.id from unnest(v_events) as e (id)
      where not exists (select from stepbase.runs r where r.event_id = e.id and r.ended_at is null)
        and not exists (
          select from stepbase.not_started n
            join stepbase.runs r on r.run_id = n.run_id and r.ended_at is null
            where n.event_id = e.id
        )
        and not exists (select from stepbase.buffers b where e.id = any (b.event_ids))
  );

  if p_after = '' then
    select count(*) into in_outbox
      from stepbase.outbox o where stepbase._is_of_user(o.payload, p_user, p_paths);
  end if;
  runs := cardinality(v_ended)::bigint;
  if p_is_dry then
    events := cardinality(v_events)::bigint;
    select count(*) into steps from stepbase.steps k
      where k.run_id = any (v_ended) and k.memo is not null and k.memo::text <> 'null';
    select count(*) into attempts from stepbase.attempts a where a.run_id = any (v_ended);
    for v_run in
      select r.run_id, r.created_at - interval '5 minutes' as since, r.ended_at + interval '2 hours' as until
        from stepbase.runs r where r.run_id = any (v_ended)
    loop
      results := results + (
        select count(*) from stepbase.ledger l
          where l.created_at between v_run.since and v_run.until
            and l.run_id = v_run.run_id and l.result is not null
      );
    end loop;
    return next;
    return;
  end if;

  update stepbase.events e
    set payload = json_build_object(
      'name', e.name, 'id', coalesce(e.event_id, e.id),
      'ts', floor(extract(epoch from e.ts) * 1000)::bigint, 'data', '{}'::json, 'forgotten', true)
    where e.id = any (v_events);
  get diagnostics events = row_count;
  select t.steps, t.attempts into steps, attempts from stepbase._take_out(v_ended) as t;
  -- By its time: the ledger has no index by run. A run calls while it goes on; a call of it that was under way
  -- when it was cancelled may go on for two hours more (the longest that servers let one), and another
  -- server's clock, which created_at of its runs is of, may be ahead of ours.
  for v_run in
    select r.run_id, r.created_at - interval '5 minutes' as since, r.ended_at + interval '2 hours' as until
        from stepbase.runs r where r.run_id = any (v_ended)
  loop
    update stepbase.ledger l set result = null
      where l.created_at between v_run.since and v_run.until
        and l.run_id = v_run.run_id and l.result is not null;
    get diagnostics v_count = row_count;
    results := results + v_count;
  end loop;
  return next;
end
$$;
