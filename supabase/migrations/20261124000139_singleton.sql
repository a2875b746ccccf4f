-- Start rule singleton: of each key one run is going on. The unique index a_singleton_runs_alone holds it;
-- what is here decides who yields, so that nobody waits at the index for a run that is ending.

-- Lets the starts of one key come one after another until their transactions end: two that cancel each
-- other's runs would else each wait at the index for the other. By 256 places and not by key, because the
-- server has room for some thousand locks; r_*: as ingest has them.
create or replace function stepbase._take_turns(
  s_function uuid[], r_start integer[], r_rule text[], r_key text[]
) returns void
language plpgsql security invoker set search_path = ''
as $$
begin
  perform pg_catalog.pg_advisory_xact_lock(1937006959, p.place)
    from (
      select distinct pg_catalog.hashtext(s_function[k.start] || ' ' || k.key) & 255 as place
        from unnest(r_start, r_rule, r_key) as k (start, rule, key)
        where k.rule = 'singleton'
        order by 1
    ) p;
end
$$;

-- Returns the runs that new starts of their singleton would cancel (r_limit 1); r_*: as ingest has them.
create or replace function stepbase._rivals(
  s_function uuid[], r_start integer[], r_rule text[], r_key text[], r_limit integer[]
) returns text[]
language plpgsql stable security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  return array(
    select r.run_id
      from (
        select distinct s_function[k.start] as function_id, k.key
          from unnest(r_start, r_rule, r_key, r_limit) as k (start, rule, key, at_once)
          where k.rule = 'singleton' and k.at_once = 1
      ) k
      cross join lateral (
        -- offset 0 keeps this a look-up, whatever the planner believes.
        select x.run_id from stepbase.runs x
          where x.function_id = k.function_id and x.singleton = k.key and x.ended_at is null offset 0
      ) r
  );
end
$$;

-- Of the starts p_places, returns those that yield to a run of their singleton that is going on, or to
-- another start among them: the first of a key stays, or, where newer runs win, the last, and its rival is
-- cancelled. p_rivals: the runs that may be cancelled, locked by the caller.
create or replace function stepbase._yield(
  p_places integer[], s_function uuid[], r_start integer[], r_rule text[], r_key text[], r_limit integer[],
  p_rivals text[]
) returns setof integer
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_stay integer[];
  v_cancelled text[];
begin
  select array_agg(x.start) into v_stay from (
    select distinct on (s_function[k.start], k.key) k.start
      from unnest(r_start, r_rule, r_key, r_limit) as k (start, rule, key, at_once)
      join unnest(p_places) as p (place) on p.place = k.start
      where k.rule = 'singleton'
      order by s_function[k.start], k.key, case when k.at_once = 1 then -k.start else k.start end
  ) x;
  if v_stay is null then
    return;
  end if;
  select array_agg(r.run_id) into v_cancelled
    from stepbase.runs r
    join unnest(r_start, r_rule, r_key) as k (start, rule, key)
      on k.key = r.singleton and k.rule = 'singleton'
    join unnest(v_stay) as t (start) on t.start = k.start and s_function[t.start] = r.function_id
    where r.run_id = any (p_rivals);
  if v_cancelled is not null then
    perform stepbase.cancel(
      v_cancelled, '{"name":"Cancelled","message":"a newer run of its singleton started"}'
    );
  end if;
  return query
    select k.start
      from unnest(r_start, r_rule, r_key) as k (start, rule, key)
      join unnest(p_places) as p (place) on p.place = k.start
      left join unnest(v_stay) as t (start) on t.start = k.start
      left join lateral (
        select x.run_id from stepbase.runs x
          where x.function_id = s_function[k.start] and x.singleton = k.key and x.ended_at is null offset 0
      ) r on true
      where k.rule = 'singleton' and (t.start is null or r.run_id is not null);
end
$$;

-- Stores starts that yielded: as runs that were skipped, and as notes.
create or replace function stepbase._skip(
  p_places integer[], e_id text[], s_event integer[], s_run text[], s_function uuid[], s_version integer[],
  s_parent text[], p_now timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  insert into stepbase.runs
    (run_id, function_id, fn_version, event_id, status, error, created_at, ended_at)
    select s_run[p.i], s_function[p.i], s_version[p.i], e_id[s_event[p.i]], 'Skipped',
           '{"name":"Skipped","message":"another run of its singleton was going on"}', p_now, p_now
      from unnest(p_places) as p (i)
    on conflict do nothing;
  perform stepbase._note(
    p_places, array_fill('skipped'::text, array[cardinality(p_places)]), e_id, s_event, s_function,
    s_parent, p_now
  );
end
$$;
