-- Waits that look back: events that arrived just before the wait began.
--
-- `settle` stores such a wait like any other, with an item of kind `look` in place of its timer. Once that is
-- committed, every event that comes finds the wait. Those before it are in stepbase.events, but for the ones
-- whose transaction is still open: `await_ingests` waits for these, and then `look_back` reads the rest. So each
-- event is seen by the wait or by the look, some by both, and a step keeps its first outcome.

-- What a run has seen of events: those it was started by (ids), and those that ended its waits (MD5 of what
-- the step gives, which is the event as it is stored).
create or replace function stepbase._seen_events(p_run text) returns text[]
language plpgsql stable security invoker set search_path = '' set enable_seqscan = off
as $$
begin
  return (
    select array[r.event_id] || coalesce(r.event_ids, '{}') from stepbase.runs r where r.run_id = p_run
  ) || array(
    select md5(k.memo::text) from stepbase.steps k
      where k.run_id = p_run and k.op = 'WaitForEvent' and k.status = 'done' and k.memo::text <> 'null'
  );
end
$$;

-- Returns when every event of a wait's name is stored whose transaction may not have seen the wait; false if
-- it has ended. `ingest` holds the name's advisory lock, shared, until it commits; but only when somebody has
-- looked back before: the first one ever waits for all writers of events, which costs the others nothing
-- until then. Locks: that one lock (the first time: events, then the epoch row), released when it returns.
create or replace function stepbase.await_ingests(p_run text, p_hash text) returns boolean
language plpgsql security invoker set search_path = '' set enable_seqscan = off
as $$
declare
  v_name text;
begin
  select p.event_name into v_name from stepbase.pauses p where p.run_id = p_run and p.hash = p_hash;
  if not found then
    return false;
  end if;
  if (select e.looks_back from stepbase.epoch e) then
    perform pg_advisory_xact_lock(hashtextextended(v_name, 8));
  else
    lock table stepbase.events in share mode;
    update stepbase.epoch set looks_back = true;
  end if;
  return true;
end
$$;

-- The lowest ULID of a time: ids carry when their engine made them, or what a sender's seed says.
create or replace function stepbase._first_ulid(p_time timestamptz) returns text
language sql immutable security invoker set search_path = ''
as $$
  select string_agg(
           substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((t.ms >> (5 * (9 - i))) & 31)::int + 1, 1), '' order by i
         ) || repeat('0', 16)
    from (select floor(extract(epoch from p_time) * 1000)::bigint as ms) t, generate_series(0, 9) as i
$$;

-- Looks at one page (p_limit) of the events that came before a wait, oldest first, from id p_after on (null:
-- the first); what came before looks_from, and what the run has seen, does not count. Returns what fits as
-- far as the index goes, the rest of the condition (CEL), the id to go on after, or null at the end, and when
-- the wait's time is over. No row: the wait has ended. Locks: nothing.
create or replace function stepbase.look_back(
  p_run text, p_hash text, p_after text, p_limit integer
) returns table (
  payloads text[], residual text, last text, expires_at timestamptz
)
language plpgsql stable security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_wait stepbase.pauses;
  v_after text := p_after;
begin
  select * into v_wait from stepbase.pauses p where p.run_id = p_run and p.hash = p_hash;
  if not found then
    return;
  end if;
  if v_after is null then
    -- The clock that made an id may have been behind the database's.
    v_after := stepbase._first_ulid(v_wait.looks_from - interval '1 minute');
  end if;
  return query
    with page as materialized (
      select e.id, e.payload, e.received_at from stepbase.events e
        where e.name = v_wait.event_name and e.id > v_after order by e.id limit p_limit
    ), fitting as (
      select p.id, p.payload::text as payload from page p
        where p.received_at >= v_wait.looks_from
          and not (p.id = any (v_wait.own_events))
          and not (md5(p.payload::text) = any (v_wait.own_events))
          and (
            v_wait.path = ''
            or stepbase.canon(p.payload::jsonb #> string_to_array(v_wait.path, '.')) = v_wait.value
          )
    )
    select coalesce((select array_agg(f.payload order by f.id) from fitting f), '{}'),
           v_wait.residual,
           (select case when count(*) = p_limit then max(p.id) end from page p),
           v_wait.expires_at;
end
$$;
