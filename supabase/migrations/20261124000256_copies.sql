-- Copies of a database: a restored backup, a clone, a preview branch with data.
--
-- A copy has the original's live runs, sleeping ones too, its schedules, the addresses of its apps, and events that
-- the original has sent or will send. An engine on it would go on with all of that, and call the original's apps.
-- The outbox remembers whose it is (outbox_claim), so engines and relays of another project refuse to start;
-- what to do then is either to take it over, if the original is gone, or to disarm it.

-- Makes this copy of p_original's database harmless and gives it to p_project: cancels the live runs of its engine,
-- archives all apps until they register here (their schedules with them), empties the outbox and what waits for a
-- start, and stops the relay on pg_net. The history stays. Returns how many of each. p_original is who the database
-- belongs to until now (relay_state.project), null if that is nobody. On the original all this would throw away
-- live work, and its own row is all that tells it from a copy made a moment ago. So it raises 22023 if the database is
-- not p_original's, or is p_project's own, and SB015 if an engine or a relay is at work on it. Locks relay_state,
-- the epoch, the runs, a thousand at a time.
create function stepbase.disarm_copy(p_project text, p_original text)
  returns table (runs bigint, apps bigint, events bigint)
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  -- '' is no kind, so these are all readers. A dump's row in relay_pg_net is of another database, and none.
  v_readers constant text := stepbase.outbox_others('');
  v_owner text;
  v_ids text[];
  v_last text := '';
  v_count bigint;
begin
  if coalesce(p_project, '') = '' then
    raise exception 'which project is the copy to belong to?' using errcode = '22023';
  end if;
  if v_readers is not null then
    raise exception 'this database is read by %, as an original is: its live runs and events are not thrown away',
      v_readers
      using errcode = 'SB015',
        hint = 'Are you connected to the right database? If it is the copy, stop what reads it first: the process, or'
          ' select stepbase.relay_stop() for the relay on pg_net.';
  end if;
  select s.project into strict v_owner from stepbase.relay_state as s for update;
  if v_owner = p_project then
    raise exception 'this database belongs to project "%" and is no copy: its live runs are not thrown away',
      v_owner
      using errcode = '22023', hint = 'Name the project that the copy is to belong to.';
  end if;
  if v_owner is distinct from p_original then
    raise exception 'this database belongs to %, not to %',
      coalesce('project "' || v_owner || '"', 'nobody'), coalesce('"' || p_original || '"', 'nobody')
      using errcode = '22023',
        hint = 'Are you connected to the right database? p_original is its owner until now, or null if it has none:'
          ' select project from stepbase.relay_state.';
  end if;
  select count(*) into apps
  from stepbase.remove_apps(array(select a.name from stepbase.apps as a where a.archived_at is null));
  runs := 0::bigint;
  loop
    -- Every live run of an engine has an item here, and few others have; runs keeps all that ever were.
    v_ids := array(
      select distinct q.run_id from stepbase.queue as q where q.run_id > v_last order by q.run_id limit 1000
    );
    exit when cardinality(v_ids) = 0;
    v_last := v_ids[cardinality(v_ids)];
    select count(*) into v_count
    from stepbase.cancel(
      v_ids, '{"name": "CopyDisarmed", "message": "this database is a copy, whose live runs were ended"}');
    runs := runs + v_count;
  end loop;
  delete from stepbase.buffers;
  -- Last, because ending runs tells of it.
  delete from stepbase.outbox;
  get diagnostics events = row_count;
  update stepbase.relay_pg_net as s set is_stopped = true;
  update stepbase.relay_state as s set project = p_project;
  return next;
end
$$;
