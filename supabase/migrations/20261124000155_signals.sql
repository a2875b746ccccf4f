-- Signals: one run at a time waits for a name. Who comes second fails or takes it over.

-- Locks the names of the signals among new waits, so that nobody else begins to wait for them until this
-- transaction ends; returns the runs that wait for them now, whose rows the caller locks next.
-- Locks: the names, in order (advisory).
create or replace function stepbase._lock_signals(w_kind text[], w_event text[]) returns text[]
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
begin
  perform pg_advisory_xact_lock(n.key)
    from (
      select distinct hashtextextended(w.event, 9) as key
        from unnest(w_kind, w_event) as w (kind, event) where w.kind = 'signal' order by 1
    ) n;
  return array(
    select p.run_id from stepbase.pauses p where p.kind = 'signal' and p.event_name = any (w_event)
  );
end
$$;

-- Raises SB102 if a new wait is for a signal that is waited for, or that another of the new ones is for, too.
-- A batch of several calls is then sent one by one. The caller holds the locks of names and runs.
create or replace function stepbase._check_signals(
  c_run text[], w_call integer[], w_hash text[], w_kind text[], w_event text[], w_replaces boolean[],
  p_now timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set enable_nestloop = on set jit = off
as $$
declare
  v_event text;
  v_run text;
begin
  select w.event into v_event from unnest(w_kind, w_event) as w (kind, event)
    where w.kind = 'signal' group by w.event having count(*) > 1 limit 1;
  if found then
    raise exception 'two steps of this run wait for the signal %', to_json(v_event)
      using errcode = 'SB102';
  end if;
  select w.event, p.run_id into v_event, v_run
    from unnest(w_call, w_hash, w_kind, w_event, w_replaces) as w (call, hash, kind, event, replaces)
    cross join lateral (
      select * from stepbase.pauses p where p.kind = 'signal' and p.event_name = w.event offset 0
    ) p
    where w.kind = 'signal' and not w.replaces and p.expires_at > p_now
      and (p.run_id, p.hash) is distinct from (c_run[w.call], w.hash)
    limit 1;
  if found then
    raise exception 'run % waits for the signal % already', v_run, to_json(v_event)
      using errcode = 'SB102';
  end if;
end
$$;
