-- Events come in: one statement for a whole batch of them and of the runs they start.

-- Stores events, ends the runs they cancel, and starts runs.
--
-- e_*: the events. e_outbox is the outbox row an event was taken from, or null: that row is deleted
--      here, and an event whose row is already gone is dropped, so the transfer happens once.
-- s_*: the starts the engine worked out from its copy of the functions. s_event is the place of the
--      event in e_*, from 1; s_key the sender's event id (de-duplicated for 24 hours per function) or
--      null; s_due null for "now"; s_deadline seconds until a start timeout, or null; s_direct asks
--      for the item to be leased to p_owner at once; s_parent "<run>.<hash>" of the step that invoked it.
-- w_*: the pauses of those runs (cancel_on); w_start is the place in s_*, from 1; w_value is a JSON
--      literal.
--
-- Sending the same batch again is harmless: same ids, nothing new. An event that is stored already
-- starts and cancels nothing, also when it comes again in another batch (a client repeats a request
-- whose answer it did not see): what it was to do was done in the transaction that stored it.
-- Returns, per start that has a run: its place, whether it is leased to p_owner, and its gen.
-- Raises SB101 when the functions have changed since p_epoch. Locks: outbox rows, then as the order
-- says (the runs of _match before dedupe).
create or replace function stepbase.ingest(
  p_epoch bigint, p_owner text, p_lease interval,
  e_id text[], e_event_id text[], e_name text[], e_payload text[], e_ts timestamptz[],
  e_source text[], e_outbox text[],
  s_event integer[], s_run text[], s_function uuid[], s_version integer[], s_key text[],
  s_due timestamptz[], s_deadline double precision[], s_direct boolean[], s_parent text[],
  w_start integer[], w_hash text[], w_event text[], w_path text[], w_value text[],
  w_residual text[], w_expires double precision[]
) returns table (start integer, run_id text, is_leased boolean, gen integer)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
  v_outbox text[] := array_remove(e_outbox, null);
  v_taken text[];
  v_kept integer[];
  v_new integer[];
  v_started integer[];
  v_hit record;
  v_cancelled text[] := '{}';
begin
  perform 1 from stepbase.epoch e where e.n = p_epoch;
  if not found then
    raise exception 'the functions have changed since epoch %', p_epoch using errcode = 'SB101';
  end if;

  if cardinality(v_outbox) > 0 then
    with gone as (delete from stepbase.outbox o where o.id = any (v_outbox) returning o.id)
    select coalesce(array_agg(gone.id), '{}') into v_taken from gone;
  end if;
  select array_agg(u.i) into v_kept
    from unnest(e_outbox) with ordinality as u (outbox, i)
    where u.outbox is null or u.outbox = any (v_taken);
  if v_kept is null then
    return;
  end if;

  with stored as (
    insert into stepbase.events (id, event_id, name, payload, ts, received_at, source)
      select e_id[k.i], e_event_id[k.i], e_name[k.i], e_payload[k.i]::json, e_ts[k.i], v_now,
             e_source[k.i]
        from unnest(v_kept) as k (i)
      on conflict do nothing
      returning events.id
  )
  select coalesce(array_agg(k.i), '{}') into v_new
    from unnest(v_kept) as k (i) join stored on stored.id = e_id[k.i];

  perform stepbase._match(
    (select array_agg(e_id[n.i]) from unnest(v_new) as n (i)),
    (select array_agg(e_name[n.i]) from unnest(v_new) as n (i)),
    (select array_agg(e_payload[n.i]) from unnest(v_new) as n (i)),
    v_now
  );

  if cardinality(s_run) = 0 then
    return;
  end if;

  -- Which starts are new, or were made by an earlier sending of this batch: of those with an event
  -- id the first of each (function, event id) that is not remembered.
  with wanted as (
    select u.i, u.function_id, u.key
      from unnest(s_function, s_key, s_event) with ordinality as u (function_id, key, event, i)
      where u.event = any (v_new)
         or u.event = any (v_kept)
            and exists (select from stepbase.runs r where r.run_id = s_run[u.i])
  ), firsts as (
    select distinct on (w.function_id, w.key) w.i, w.function_id, w.key
      from wanted w where w.key is not null
      order by w.function_id, w.key, w.i
  ), fresh as (
    insert into stepbase.dedupe as d (function_id, key, run_id, until)
      select f.function_id, f.key, s_run[f.i], v_now + interval '24 hours'
        from firsts f order by f.function_id, f.key
      on conflict (function_id, key) do update
        set run_id = excluded.run_id, until = excluded.until
        where d.until <= v_now or d.run_id = excluded.run_id
      returning d.run_id
  )
  select array_agg(w.i order by w.i) into v_started
    from wanted w
    where w.key is null or s_run[w.i] in (select fresh.run_id from fresh);
  if v_started is null then
    return;
  end if;

  with born as (
    insert into stepbase.runs as r
      (run_id, function_id, fn_version, event_id, created_at, parent_run, parent_hash)
      select s_run[s.i], s_function[s.i], s_version[s.i], e_id[s_event[s.i]], v_now,
             split_part(s_parent[s.i], '.', 1), split_part(s_parent[s.i], '.', 2)
        from unnest(v_started) as s (i)
      on conflict do nothing
      returning r.run_id
  ), items as (
    insert into stepbase.queue (run_id, job, kind, ready, score, due_at, gen, owner)
      select s_run[s.i], 'main', 'edge', t.due is null and not t.direct, v_now,
             case when t.due is not null then t.due when t.direct then v_now + p_lease end,
             (t.due is null and t.direct)::int, case when t.due is null and t.direct then p_owner end
        from unnest(v_started) as s (i)
        join born on born.run_id = s_run[s.i]
        cross join lateral (
          select case when s_due[s.i] > v_now then s_due[s.i] end as due, s_direct[s.i] as direct
        ) t
  ), deadlines as (
    insert into stepbase.queue (run_id, job, kind, step, ready, score, due_at)
      select s_run[s.i], 'deadline:start', 'deadline', 'start', false, v_now,
             v_now + s_deadline[s.i] * interval '1 second'
        from unnest(v_started) as s (i)
        join born on born.run_id = s_run[s.i]
        where s_deadline[s.i] is not null
  )
  insert into stepbase.pauses
    (run_id, hash, kind, event_name, path, value, residual, own_events, expires_at)
    select s_run[w.start], w.hash, 'cancel', w.event, w.path, stepbase.canon(w.value::jsonb),
           w.residual, array[e_id[s_event[w.start]]], v_now + w.expires * interval '1 second'
      from unnest(w_start, w_hash, w_event, w_path, w_value, w_residual, w_expires)
        as w (start, hash, event, path, value, residual, expires)
      join born on born.run_id = s_run[w.start];

  -- A later event of this very batch may end a run that it starts.
  if cardinality(w_start) > 0 and cardinality(v_new) > 1 then
    for v_hit in
      select s_run[w.start] as run_id, w.hash, e_id[e.i] as event_id,
             w.residual is null and w.path <> '' as is_exact
        from unnest(w_start, w_hash, w_event, w_path, w_value, w_residual)
          as w (start, hash, event, path, value, residual)
        join unnest(v_new) as e (i)
          on e_name[e.i] = w.event and e.i > s_event[w.start]
        where w.start = any (v_started)
          and (w.path = ''
               or stepbase.canon(e_payload[e.i]::jsonb #> string_to_array(w.path, '.'))
                  = stepbase.canon(w.value::jsonb))
    loop
      if v_hit.is_exact then
        v_cancelled := v_cancelled || v_hit.run_id;
      else
        perform stepbase._check_later(v_hit.event_id, array[v_hit.run_id], array[v_hit.hash], v_now);
      end if;
    end loop;
    if cardinality(v_cancelled) > 0 then
      perform stepbase.cancel(
        v_cancelled, '{"name":"Cancelled","message":"an event matched cancel_on"}'
      );
    end if;
  end if;

  if exists (
    select from unnest(v_started) as s (i) where not s_direct[s.i]
  ) then
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;

  return query
    select s.i, s_run[s.i], coalesce(q.owner = p_owner and q.gen = 1, false), coalesce(q.gen, 0)
      from unnest(v_started) as s (i)
      left join stepbase.queue q on q.run_id = s_run[s.i] and q.job = 'main';
end
$$;
