-- Schedules: when the functions with a cron trigger start next.
--
-- A row is one cron trigger. `register_app` keeps the rows in step with what was synced; engines work out
-- the instants (SQL knows no cron syntax) and fire. Firing is one transaction: the row moves on to its next
-- instant, and an event for the function goes into the outbox. Whoever comes second finds the row moved, so
-- an instant fires once, however many engines look at it.

create table stepbase.crons (
  function_id uuid not null,
  n smallint not null,
  -- As registered: five fields, perhaps after "TZ=Area/City ".
  spec text not null,
  jitter text,
  scheduled_at timestamptz,
  next_at timestamptz not null,
  primary key (function_id, n)
);
comment on table stepbase.crons is
  'One row per cron trigger. scheduled_at: the next instant of the schedule, null until an engine has worked it out; next_at: when it fires, which jitter puts later.';
-- serves: what is due, and when to look again
create index crons_due on stepbase.crons (next_at);

alter table stepbase.crons enable row level security;

-- Brings the schedules of an app's functions in step with their configs: new and changed ones are due at
-- once, so that an engine works out their first instant; unchanged ones keep theirs. For register_app,
-- whose lock of the epoch row it needs. Locks: rows of crons.
create or replace function stepbase._set_crons(p_app_id uuid) returns void
language plpgsql security invoker set search_path = ''
as $$
begin
  with wanted as materialized (
    select f.function_id, row_number() over (partition by f.function_id order by t.i) as n,
           t.trigger ->> 'cron' as spec, nullif(t.trigger ->> 'jitter', '') as jitter
      from stepbase.functions f
      cross join lateral json_array_elements(
        case json_typeof(f.config -> 'triggers') when 'array' then f.config -> 'triggers' end
      ) with ordinality as t (trigger, i)
      where f.app_id = p_app_id and f.archived_at is null and t.trigger ->> 'cron' <> ''
  ), gone as (
    delete from stepbase.crons c
      using stepbase.functions f
      where f.app_id = p_app_id and c.function_id = f.function_id
        and not exists (
          select from wanted w where w.function_id = c.function_id and w.n = c.n
        )
  )
  insert into stepbase.crons as c (function_id, n, spec, jitter, next_at)
    select w.function_id, w.n, w.spec, w.jitter, '-infinity' from wanted w
    on conflict (function_id, n) do update
      set spec = excluded.spec, jitter = excluded.jitter, scheduled_at = null, next_at = '-infinity'
      where (c.spec, c.jitter) is distinct from (excluded.spec, excluded.jitter);
end
$$;

-- Returns what is due, at most p_limit rows, with the database's time; fire_at is null for a schedule whose
-- first instant is still to be worked out. Locks nothing.
create or replace function stepbase.due_crons(p_limit integer)
returns table (
  function_id uuid, n smallint, spec text, jitter text, scheduled_at timestamptz, fire_at timestamptz,
  slug text, is_paused boolean, looked_at timestamptz
)
language plpgsql stable security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
begin
  return query
    select c.function_id, c.n, c.spec, c.jitter, c.scheduled_at,
           case when c.scheduled_at is not null then c.next_at end, f.slug,
           f.paused_at is not null, v_now
      from (
        select * from stepbase.crons d where d.next_at <= v_now order by d.next_at limit p_limit
      ) c
      join stepbase.functions f on f.function_id = c.function_id;
end
$$;

-- Moves schedules on, from the instant p_was (null: none yet) to p_scheduled, which fires at p_next (both
-- null: never again), and puts the event (p_id, p_payload) of each into the outbox; without an id, none.
-- Returns how many it moved: the others were moved, or changed by a sync, by somebody else. Locks: rows of
-- crons by key, skipping locked ones; then inserts.
create or replace function stepbase.fire_crons(
  p_function uuid[], p_n smallint[], p_spec text[], p_was timestamptz[], p_scheduled timestamptz[],
  p_next timestamptz[], p_id text[], p_name text, p_payload text[]
) returns integer
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_moved integer[];
begin
  with held as materialized (
    select c.function_id, c.n, u.i
      from unnest(p_function, p_n, p_spec, p_was) with ordinality as u (function_id, n, spec, was, i)
      join stepbase.crons c on c.function_id = u.function_id and c.n = u.n
      where c.spec = u.spec and c.scheduled_at is not distinct from u.was
      order by c.function_id, c.n
      for update of c skip locked
  ), moved as (
    update stepbase.crons c
      set scheduled_at = p_scheduled[held.i], next_at = coalesce(p_next[held.i], 'infinity')
      from held
      where c.function_id = held.function_id and c.n = held.n
      returning held.i::int
  )
  select coalesce(array_agg(moved.i), '{}') into v_moved from moved;
  insert into stepbase.outbox (id, name, payload, created_at, due_at)
    select p_id[m.i], p_name, p_payload[m.i]::json, v_now, v_now
      from unnest(v_moved) as m (i)
      where p_id[m.i] is not null;
  if found then
    perform pg_catalog.pg_notify('stepbase', 'o');
  end if;
  return cardinality(v_moved);
end
$$;
