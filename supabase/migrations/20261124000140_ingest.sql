-- Events come in: one statement for a whole batch of them and of the runs they start.

-- Stores events, ends the runs they cancel, and starts runs.
--
-- e_*: the events. e_outbox is the outbox row an event was taken from, or null: that row is deleted
--      here, and an event whose row is already gone is dropped, so the transfer happens once.
-- s_*: the starts the engine worked out from its copy of the functions. s_event is the place of the
--      event in e_*, from 1; s_key the sender's event id (de-duplicated for 24 hours per function) or
--      null; s_due null for "now"; s_deadline seconds until a start timeout, or null; s_direct asks
--      for the item to be leased to p_owner at once; s_parent "<run>.<hash>" of the step that invoked it;
--      s_priority seconds by which it goes before others; s_lane, s_key_1, s_key_2 where it waits and
--      what it counts for if the calls are limited (lanes.sql), else null: then it is never leased at once.
-- w_*: the pauses of those runs (cancel_on); w_start is the place in s_*, from 1; w_value is a JSON
--      literal.
-- r_*: the rules of those starts: r_rule 'once' (idempotency), 'rate' or 'singleton' (r_limit 1: the newer
--      run wins), r_key what shares the rule, r_period in microseconds. Starts that a rule drops are noted
--      in not_started. 'debounce' (r_period, r_ends) and 'batch' (r_limit events, r_period) put the event
--      into a buffer instead of starting a run.
-- b_*: the starts (b_start) that take a buffer's events: its id, which is the run's, the gen it was taken
--      with, and for a batch the ids of its events, comma between them. Their event is stored already.
-- w_*, r_* and b_*: a column of nulls, or a group without rows, may be one null.
--
-- Sending the same batch again is harmless: same ids, nothing new. An event that is stored already
-- starts and cancels nothing, also when it comes again in another batch (a client repeats a request
-- whose answer it did not see): what it was to do was done in the transaction that stored it.
-- Returns, per start that has a run: its place, whether it is leased to p_owner, and its gen.
-- Raises SB101 when the functions have changed since p_epoch. Locks: the names of its events (advisory, shared,
-- if waits look back: look_back.sql), outbox rows, advisory locks of singletons, then as the order says (the
-- runs of _match before dedupe, then gates, then buffers by key).
create or replace function stepbase.ingest(
  p_epoch bigint, p_owner text, p_lease interval,
  e_id text[], e_event_id text[], e_name text[], e_payload text[], e_ts timestamptz[],
  e_source text[], e_outbox text[],
  s_event integer[], s_run text[], s_function uuid[], s_version integer[], s_key text[],
  s_due timestamptz[], s_deadline double precision[], s_direct boolean[], s_parent text[],
  s_priority double precision[], s_lane text[], s_key_1 text[], s_key_2 text[],
  w_start integer[], w_hash text[], w_event text[], w_path text[], w_value text[],
  w_residual text[], w_expires double precision[],
  r_start integer[], r_rule text[], r_key text[], r_limit integer[], r_period bigint[], r_ends bigint[],
  b_start integer[], b_id text[], b_gen integer[], b_events text[]
) returns table (start integer, run_id text, is_leased boolean, gen integer)
language plpgsql security invoker set search_path = ''
-- The joins below are between arrays, up to some ten thousand entries each: hashed, never nested. The
-- tables themselves are only reached by `= any (array)`, which is an index look-up.
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_looks_back boolean;
  v_outbox text[] := array_remove(e_outbox, null);
  v_taken text[] := '{}'::text[];
  v_new text[];
  v_again text[] := '{}'::text[];
  v_started integer[];
  v_twice integer[];
  v_out integer[];
  v_reasons text[];
  v_rivals text[] := '{}'::text[];
  v_fired text[] := '{}'::text[];
  v_places integer[];
  v_out_events text[];
  v_functions uuid[];
  v_born text[];
begin
  -- The first look ever waits for whoever holds this lock, and reads the flag after it: so a transaction that
  -- takes no name's lock is one that it has waited for.
  lock table stepbase.events in row exclusive mode;
  select e.looks_back into v_looks_back from stepbase.epoch e where e.n = p_epoch;
  if not found then
    raise exception 'the functions have changed since epoch %', p_epoch using errcode = 'SB101';
  end if;
  if v_looks_back then
    perform pg_advisory_xact_lock_shared(n.key)
      from (
        select distinct hashtextextended(u.name, 8) as key from unnest(e_name) as u (name) order by 1
      ) n;
  end if;

  if cardinality(v_outbox) > 0 then
    with gone as (delete from stepbase.outbox o where o.id = any (v_outbox) returning o.id)
    select coalesce(array_agg(gone.id), '{}') into v_taken from gone;
  end if;

  with stored as (
    insert into stepbase.events (id, event_id, name, payload, ts, received_at, source)
      select u.id, u.event_id, u.name, u.payload::json, u.ts, v_now, u.source
        from unnest(e_id, e_event_id, e_name, e_payload, e_ts, e_source, e_outbox)
          as u (id, event_id, name, payload, ts, source, outbox)
        where u.outbox is null or u.outbox = any (v_taken)
      on conflict do nothing
      returning events.id
  )
  select coalesce(array_agg(stored.id), '{}') into v_new from stored;

  if 'singleton' = any (r_rule) then
    perform stepbase._take_turns(s_function, r_start, r_rule, r_key);
    v_rivals := stepbase._rivals(s_function, r_start, r_rule, r_key, r_limit);
  end if;
  if cardinality(v_new) = cardinality(e_id) then
    perform stepbase._match(e_id, e_name, e_payload, v_now, v_rivals);
  else
    perform stepbase._match(n.ids, n.names, n.payloads, v_now, v_rivals)
      from (
        select array_agg(u.id) as ids, array_agg(u.name) as names, array_agg(u.payload) as payloads
          from unnest(e_id, e_name, e_payload) as u (id, name, payload)
          join unnest(v_new) as n (id) on n.id = u.id
      ) n;
    select coalesce(array_agg(r.run_id), '{}') into v_again
      from stepbase.runs r where r.run_id = any (s_run);
  end if;

  if cardinality(b_id) > 0 then
    v_fired := stepbase._take_out(b_id, b_gen);
  end if;

  -- Which starts are new, or were made by an earlier sending of this batch: of those with an event
  -- id the first of each (function, event id) that is not remembered.
  with wanted as materialized (
    select s.i, s.run_id, s.function_id, s.key
      from unnest(s_event, s_run, s_function, s_key) with ordinality
        as s (event, run_id, function_id, key, i)
      join unnest(e_id) with ordinality as e (id, i) on e.i = s.event
      left join unnest(v_new) as n (id) on n.id = e.id
      left join unnest(v_again) as a (run_id) on a.run_id = s.run_id
      left join unnest(v_fired) as f (run_id) on f.run_id = s.run_id
      where n.id is not null or a.run_id is not null or f.run_id is not null
  ), firsts as (
    select distinct on (w.function_id, w.key) w.run_id, w.function_id, w.key
      from wanted w where w.key is not null
      order by w.function_id, w.key, w.i
  ), fresh as (
    insert into stepbase.dedupe as d (function_id, key, run_id, until)
      select f.function_id, f.key, f.run_id, v_now + interval '24 hours'
        from firsts f order by f.function_id, f.key
      on conflict (function_id, key) do update
        set run_id = excluded.run_id, until = excluded.until
        where d.until <= v_now or d.run_id = excluded.run_id
      returning d.run_id
  )
  select array_agg(w.i::int order by w.i) filter (where w.key is null or fresh.run_id is not null),
         array_agg(w.i::int order by w.i) filter (where w.key is not null and fresh.run_id is null)
    into v_started, v_twice
    from wanted w
    left join fresh on fresh.run_id = w.run_id;
  if v_twice is not null then
    perform stepbase._note(
      v_twice, array_fill('duplicate'::text, array[cardinality(v_twice)]), e_id, s_event, s_function,
      s_parent, v_now
    );
  end if;
  if cardinality(r_start) > 0 and v_started is not null then
    select array_agg(l.place), array_agg(l.reason) into v_out, v_reasons
      from stepbase._limit(
        -- Those of an earlier sending are runs already.
        array(
          select t.i from unnest(v_started) as t (i) where not (s_run[t.i] = any (v_again)) order by t.i
        ),
        r_start, r_rule, r_key, r_limit, r_period, v_now
      ) l;
    if v_out is not null then
      perform stepbase._note(v_out, v_reasons, e_id, s_event, s_function, s_parent, v_now);
      select array_agg(t.i order by t.i) into v_started
        from unnest(v_started) as t (i)
        left join unnest(v_out) as o (i) on o.i = t.i
        where o.i is null;
    end if;
  end if;
  if r_rule && array['debounce', 'batch'] and v_started is not null then
    v_places := array(
      select t.i from unnest(v_started) as t (i)
        join unnest(r_start, r_rule) as r (start, rule)
          on r.start = t.i and r.rule in ('debounce', 'batch')
        where not (s_run[t.i] = any (v_again))
    );
    select array_agg(d.late_event), array_agg(d.late_function) into v_out_events, v_functions
      from stepbase._debounce(
        v_places, e_id, e_ts, s_event, s_run, s_function, r_start, r_rule, r_key, r_period, r_ends, v_now
      ) d;
    if v_out_events is not null then
      perform stepbase._note_debounced(v_out_events, v_functions, v_now);
    end if;
    perform stepbase._gather(
      v_places, e_id, e_payload, s_event, s_run, s_function, r_start, r_rule, r_key, r_limit, r_period,
      v_now
    );
    select array_agg(t.i order by t.i) into v_started
      from unnest(v_started) as t (i) where not (t.i = any (v_places));
  end if;
  if 'singleton' = any (r_rule) and v_started is not null then
    select array_agg(x.place) into v_out
      from stepbase._yield(
        array(select t.i from unnest(v_started) as t (i) where not (s_run[t.i] = any (v_again))),
        s_function, r_start, r_rule, r_key, r_limit, v_rivals
      ) as x (place);
    if v_out is not null then
      perform stepbase._skip(v_out, e_id, s_event, s_run, s_function, s_version, s_parent, v_now);
      select array_agg(t.i order by t.i) into v_started
        from unnest(v_started) as t (i)
        left join unnest(v_out) as o (i) on o.i = t.i
        where o.i is null;
    end if;
  end if;
  if v_started is null then
    return;
  end if;

  with started as materialized (
    select s.run_id, k.key as singleton, string_to_array(b.events, ',') as event_ids,
           s.function_id, s.version, s.deadline, e.id as event_id,
           split_part(s.parent, '.', 1) as parent_run, split_part(s.parent, '.', 2) as parent_hash,
           case when s.due > v_now then s.due end as due,
           s.direct and s.lane is null and coalesce(s.due <= v_now, true) as is_direct,
           -- Those of one batch in their order, which rows with one score would not keep.
           v_now - s.priority * interval '1 second' + s.i * interval '1 microsecond' as score,
           s.priority::integer, s.lane, s.key_1, s.key_2
      from unnest(
             s_event, s_run, s_function, s_version, s_due, s_deadline, s_direct, s_parent,
             s_priority, s_lane, s_key_1, s_key_2
           )
        with ordinality as s (
          event, run_id, function_id, version, due, deadline, direct, parent, priority, lane, key_1, key_2, i
        )
      join unnest(v_started) as t (i) on t.i = s.i
      join unnest(e_id) with ordinality as e (id, i) on e.i = s.event
      left join unnest(r_start, r_rule, r_key) as k (start, rule, key)
        on k.start = s.i and k.rule = 'singleton'
      left join unnest(b_start, b_events) as b (start, events) on b.start = s.i
  ), born as (
    insert into stepbase.runs as r
      (run_id, function_id, fn_version, event_id, created_at, parent_run, parent_hash, singleton,
       event_ids)
      select s.run_id, s.function_id, s.version, s.event_id, v_now, s.parent_run, s.parent_hash, s.singleton,
             s.event_ids
        from started s
        order by s.function_id, s.singleton
      on conflict do nothing
      returning r.run_id
  ), items as (
    insert into stepbase.queue
      (run_id, job, kind, ready, score, priority, due_at, gen, owner, lane, key_1, key_2)
      select s.run_id, 'main', 'edge', s.due is null and not s.is_direct, s.score, s.priority,
             case when s.is_direct then v_now + p_lease else s.due end, s.is_direct::int,
             case when s.is_direct then p_owner end, s.lane, s.key_1, s.key_2
        from started s join born on born.run_id = s.run_id
  ), deadlines as (
    insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
      select s.run_id, 'deadline:start', 'deadline', 'start', false, v_now,
             v_now + s.deadline * interval '1 second'
        from started s join born on born.run_id = s.run_id
        where s.deadline is not null
  )
  select coalesce(array_agg(born.run_id), '{}') into v_born from born;

  if 'singleton' = any (r_rule) then
    -- Another engine's start of the same key was a moment earlier.
    select array_agg(t.i) into v_out from unnest(v_started) as t (i)
      where not (s_run[t.i] = any (v_born || v_again));
    if v_out is not null then
      perform stepbase._skip(v_out, e_id, s_event, s_run, s_function, s_version, s_parent, v_now);
      v_started := array(select t.i from unnest(v_started) as t (i) where not (t.i = any (v_out)));
    end if;
  end if;

  if cardinality(b_id) > 0 then
    insert into stepbase.not_started (event_id, function_id, reason, run_id, at)
      select x.event_id, s_function[b.start], 'batched', s_run[b.start], v_now
        from unnest(b_start, b_events) as b (start, events)
        join unnest(v_born) as n (run_id) on n.run_id = s_run[b.start]
        cross join lateral unnest(string_to_array(b.events, ',')) with ordinality as x (event_id, place)
        where x.place > 1
      on conflict do nothing;
  end if;

  if cardinality(w_start) > 0 then
    insert into stepbase.pauses
      (run_id, hash, kind, event_name, path, value, residual, own_events, expires_at)
      select s.run_id, w.hash, 'cancel', w.event, w.path, stepbase.canon(w.value::jsonb),
             w.residual, array[e.id], v_now + w.expires * interval '1 second'
        from unnest(w_start, w_hash, w_event, w_path, w_value, w_residual, w_expires)
          as w (start, hash, event, path, value, residual, expires)
        join unnest(s_event, s_run) with ordinality as s (event, run_id, i) on s.i = w.start
        join unnest(v_born) as b (run_id) on b.run_id = s.run_id
        join unnest(e_id) with ordinality as e (id, i) on e.i = s.event;
    if cardinality(v_new) > 1 then
      perform stepbase._match_batch(
        v_new, e_id, e_name, e_payload, v_born, s_event, s_run,
        w_start, w_hash, w_event, w_path, w_value, w_residual, v_now
      );
    end if;
  end if;

  if false in (select s_direct[t.i] from unnest(v_started) as t (i)) then
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;

  return query
    select s.i::int, s.run_id, coalesce(q.owner = p_owner and q.gen = 1, false), coalesce(q.gen, 0)
      from unnest(s_run) with ordinality as s (run_id, i)
      join unnest(v_started) as t (i) on t.i = s.i
      left join stepbase.queue q
        on q.run_id = s.run_id and q.job = 'main' and q.run_id = any (s_run)
      order by s.i;
end
$$;

-- A later event of a batch may end a run that an earlier one starts: runs the new events of a batch
-- against the pauses of the runs born with it. The arrays are `ingest`'s; p_new are the ids of events
-- not stored before, p_born those of new runs. Locks: the run rows in order (through cancel), which
-- nobody else sees yet, then queue.
create or replace function stepbase._match_batch(
  p_new text[], e_id text[], e_name text[], e_payload text[],
  p_born text[], s_event integer[], s_run text[],
  w_start integer[], w_hash text[], w_event text[], w_path text[], w_value text[],
  w_residual text[], p_now timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_exact text[];
  v_events text[];
  v_runs text[];
  v_hashes text[];
begin
  with waits as materialized (
    select s.run_id, s.event as place, w.hash, w.event, w.path, w.residual,
           coalesce(stepbase.canon(w.value::jsonb), '') as value
      from unnest(w_start, w_hash, w_event, w_path, w_value, w_residual)
        as w (start, hash, event, path, value, residual)
      join unnest(s_event, s_run) with ordinality as s (event, run_id, i) on s.i = w.start
      join unnest(p_born) as b (run_id) on b.run_id = s.run_id
  ), facts as materialized (
    select e.i, e.id, k.event, k.path,
           case when k.path = '' then ''
                else stepbase.canon(e.payload::jsonb #> string_to_array(k.path, '.')) end as value
      from (select distinct waits.event, waits.path from waits) k
      join unnest(e_id, e_name, e_payload) with ordinality as e (id, name, payload, i)
        on e.name = k.event
      join unnest(p_new) as n (id) on n.id = e.id
  ), hits as (
    select w.run_id, w.hash, f.id as event_id, w.residual is null and w.path <> '' as is_exact
      from waits w
      join facts f on f.event = w.event and f.path = w.path and f.value = w.value
      where f.i > w.place
  )
  select array_agg(h.run_id) filter (where h.is_exact),
         array_agg(h.event_id) filter (where not h.is_exact),
         array_agg(h.run_id) filter (where not h.is_exact),
         array_agg(h.hash) filter (where not h.is_exact)
    into v_exact, v_events, v_runs, v_hashes
    from hits h;
  if v_events is not null then
    perform stepbase._check_later(v_events, v_runs, v_hashes, p_now);
  end if;
  if v_exact is not null then
    perform stepbase.cancel(
      v_exact, '{"name":"Cancelled","message":"an event matched cancel_on"}'
    );
  end if;
end
$$;
