-- Start rules that wait: debounce and batch. `ingest` puts events into buffers and sets out to start what
-- is due; r_*: as ingest has them, p_places are places of starts in s_*.

-- Debounce: the latest event by its own time takes the place of the one before; each pushes the start out by
-- r_period, at most to r_ends after the first (microseconds). Returns the events whose place was taken, and
-- the function. Locks: buffers by function and key.
create or replace function stepbase._debounce(
  p_places integer[], e_id text[], e_ts timestamptz[], s_event integer[], s_run text[], s_function uuid[],
  r_start integer[], r_rule text[], r_key text[], r_period bigint[], r_ends bigint[], p_now timestamptz
) returns table (late_event text, late_function uuid)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  return query
    with asked as materialized (
      select r.start, s_function[r.start] as function_id, r.key, r.period, r.ends,
             e_id[s_event[r.start]] as event_id, e_ts[s_event[r.start]] as ts
        from unnest(r_start, r_rule, r_key, r_period, r_ends) as r (start, rule, key, period, ends)
        join unnest(p_places) as p (place) on p.place = r.start
        where r.rule = 'debounce'
    ), latest as materialized (
      select distinct on (a.function_id, a.key) a.*
        from asked a order by a.function_id, a.key, a.ts desc, a.start desc
    ), stored as (
      insert into stepbase.buffers as b
        (id, function_id, kind, key, event_ids, bytes, first_at, last_ts, ends_at, due_at)
        select s_run[l.start], l.function_id, 'debounce', l.key, array[l.event_id], 0, p_now, l.ts,
               p_now + l.ends * interval '1 microsecond',
               p_now + least(l.period, l.ends) * interval '1 microsecond'
          from latest l order by l.function_id, l.key
        on conflict (function_id, kind, key) where not is_closed do update
          set before = b.event_ids[1], event_ids = excluded.event_ids, last_ts = excluded.last_ts,
              gen = b.gen + 1, due_at = least(excluded.due_at, b.ends_at)
          where excluded.last_ts >= b.last_ts
        returning b.function_id, b.event_ids[1] as event_id, b.before
    )
    select a.event_id, a.function_id from asked a
      where not exists (
        select from stored t where t.function_id = a.function_id and t.event_id = a.event_id
      )
    union all
    select t.before, t.function_id from stored t where t.before is not null;
end
$$;

-- Batch: events gather until r_limit of them or 10 MiB are there, or r_period has passed since the first.
-- Says whether a batch is full. Locks: buffers by function and key.
create or replace function stepbase._gather(
  p_places integer[], e_id text[], e_payload text[], s_event integer[], s_run text[], s_function uuid[],
  r_start integer[], r_rule text[], r_key text[], r_limit integer[], r_period bigint[], p_now timestamptz
) returns boolean
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_group record;
  v_open stepbase.buffers;
  v_start integer;
  v_is_new boolean;
  v_is_full boolean := false;
begin
  for v_group in
    select s_function[r.start] as function_id, r.key, max(r.size) as size, max(r.period) as period,
           array_agg(r.start order by r.start) as starts
      from unnest(r_start, r_rule, r_key, r_limit, r_period) as r (start, rule, key, size, period)
      join unnest(p_places) as p (place) on p.place = r.start
      where r.rule = 'batch'
      group by s_function[r.start], r.key
      order by s_function[r.start], r.key
  loop
    loop
      -- So that there is something to lock; the first start's run is the batch's.
      insert into stepbase.buffers (id, function_id, kind, key, event_ids, bytes, first_at, due_at)
        values (s_run[v_group.starts[1]], v_group.function_id, 'batch', v_group.key, '{}', 0, p_now,
                p_now + v_group.period * interval '1 microsecond')
        on conflict do nothing;
      select * into v_open from stepbase.buffers b
        where b.function_id = v_group.function_id and b.kind = 'batch' and b.key = v_group.key
          and not b.is_closed
        for update;
      -- Not found: an engine has just taken it.
      exit when found;
    end loop;
    v_is_new := false;
    foreach v_start in array v_group.starts loop
      if v_open.id is null then
        v_open.id := s_run[v_start];
        v_open.event_ids := '{}';
        v_open.bytes := 0;
        v_is_new := true;
      end if;
      v_open.event_ids := v_open.event_ids || e_id[s_event[v_start]];
      v_open.bytes := v_open.bytes + octet_length(e_payload[s_event[v_start]]);
      if cardinality(v_open.event_ids) >= v_group.size or v_open.bytes >= 10 * 1024 * 1024 then
        perform stepbase._put_batch(v_open.id, v_is_new, v_group.function_id, v_group.key, v_open.event_ids,
                                    v_open.bytes, p_now, p_now, true);
        v_open.id := null;
        v_is_full := true;
      end if;
    end loop;
    if v_open.id is not null then
      perform stepbase._put_batch(
        v_open.id, v_is_new, v_group.function_id, v_group.key, v_open.event_ids, v_open.bytes, p_now,
        p_now + v_group.period * interval '1 microsecond', false
      );
    end if;
  end loop;
  if v_is_full then
    perform pg_catalog.pg_notify('stepbase', 'b');
  end if;
  return v_is_full;
end
$$;

-- Stores one buffer of a batch, which the caller has locked if it is not new.
create or replace function stepbase._put_batch(
  p_id text, p_is_new boolean, p_function uuid, p_key text, p_events text[], p_bytes bigint,
  p_now timestamptz, p_due timestamptz, p_is_closed boolean
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
begin
  if p_is_new then
    insert into stepbase.buffers
      (id, function_id, kind, key, event_ids, bytes, first_at, due_at, is_closed)
      values (p_id, p_function, 'batch', p_key, p_events, p_bytes, p_now, p_due, p_is_closed);
  else
    update stepbase.buffers b
      set event_ids = p_events, bytes = p_bytes, is_closed = p_is_closed,
          due_at = case when p_is_closed then p_due else b.due_at end
      where b.id = p_id;
  end if;
end
$$;

-- Gives up to p_n due buffers to an engine that will start their runs, for p_lease; a batch takes no more
-- events from now on, a debounced event still may be replaced, which raises gen. Locks: the rows,
-- skipping locked ones.
create or replace function stepbase.take_buffers(p_n integer, p_lease interval)
returns table (
  id text, gen integer, function_id uuid, kind text, event_ids text[], payloads text[]
)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
begin
  return query
    with due as materialized (
      select b.id, b.bytes, b.due_at from stepbase.buffers b
        where b.due_at <= v_now order by b.due_at limit p_n for update skip locked
    ), fitting as materialized (
      -- Batches may be large: not too much at a time.
      select f.id
        from (select d.id, sum(d.bytes) over (order by d.due_at, d.id) - d.bytes as before from due d) f
        where f.before < 16 * 1024 * 1024
    ), taken as (
      update stepbase.buffers b
        set gen = b.gen + 1, due_at = v_now + p_lease, is_closed = b.is_closed or b.kind = 'batch'
        from fitting f
        where b.id = f.id and b.id = any (array(select f.id from fitting f))
        returning b.*
    )
    select t.id, t.gen, t.function_id, t.kind, t.event_ids, stepbase._payloads(t.event_ids) from taken t;
end
$$;

-- Takes the buffers out whose runs are about to start, unless something came between (gen); returns which
-- are to start. Locks: buffers by function and key.
create or replace function stepbase._take_out(p_ids text[], p_gens integer[]) returns text[]
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_out text[];
begin
  perform 1 from stepbase.buffers b where b.id = any (p_ids)
    order by b.function_id, b.kind, b.key, b.id for update;
  with gone as (
    delete from stepbase.buffers b
      using unnest(p_ids, p_gens) as u (id, gen)
      where b.id = u.id and b.gen = u.gen and b.id = any (p_ids)
      returning b.id
  )
  select coalesce(array_agg(gone.id), '{}') into v_out from gone;
  return v_out;
end
$$;

-- Seconds until a buffer is due; null: there is none.
create or replace function stepbase.next_buffer() returns double precision
language plpgsql stable security invoker set search_path = '' set enable_seqscan = off
as $$
begin
  return extract(epoch from (
    select b.due_at from stepbase.buffers b order by b.due_at limit 1
  ) - stepbase.now())::double precision;
end
$$;

-- Notes that later events took the place of these; a step that had invoked the function by one is told.
create or replace function stepbase._note_debounced(
  p_events text[], p_functions uuid[], p_now timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  insert into stepbase.not_started (event_id, function_id, reason, at)
    select n.event_id, n.function_id, 'debounced', p_now
      from unnest(p_events, p_functions) as n (event_id, function_id)
    on conflict do nothing;
  insert into stepbase.queue (run_id, job, kind, step, ready, score)
    select split_part(x.parent, '.', 1), 'refused:debounced:' || split_part(x.parent, '.', 2),
           'invoke', split_part(x.parent, '.', 2), true, p_now
      from (
        select e.payload #>> '{data,_inngest,correlation_id}' as parent
          from (
            select * from stepbase.events e
              where e.id = any (p_events) and e.name = 'inngest/function.invoked' offset 0
          ) e
      ) x
      where x.parent is not null
    on conflict do nothing;
  if found then
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;
end
$$;
