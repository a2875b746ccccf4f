-- Copies of a database: a restored backup, a clone, a preview branch with data.
--
-- A copy has the original's live runs, sleeping ones too, its schedules, the addresses of its apps, and events that
-- the original has sent or will send. An engine on it would go on with all of that, and call the original's apps.
-- The outbox remembers whose it is (outbox_claim), so engines and relays of another project refuse to start;
-- what to do then is either to take it over, if the original is gone, or to disarm it.

-- Makes this copy harmless and gives it to p_project: cancels the live runs of its engine, archives all apps until
-- they register here (their schedules with them), empties the outbox and what waits for a start, and stops the
-- relay on pg_net. The history stays. Returns how many of each. Raises 22023 if the database is p_project's own
-- already: there it would throw away live work. Locks relay_state, the epoch, the runs, a thousand at a time.
create function stepbase.disarm_copy(p_project text)
  returns table (runs bigint, apps bigint, events bigint)
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  v_owner text;
  v_ids text[];
  v_count bigint;
begin
  if coalesce(p_project, '') = '' then
    raise exception 'which project is the copy to belong to?' using errcode = '22023';
  end if;
  select s.project into strict v_owner from stepbase.relay_state as s for update;
  if v_owner = p_project then
    raise exception 'this database belongs to project "%" and is no copy: its live runs are not thrown away',
      v_owner
      using errcode = '22023', hint = 'Name the project that the copy is to belong to.';
  end if;
  select count(*) into apps
  from stepbase.remove_apps(array(select a.name from stepbase.apps as a where a.archived_at is null));
  runs := 0::bigint;
  loop
    v_ids := array(
      select r.run_id
      from stepbase.runs as r
      where r.ended_at is null and r.recorded_at is null
      order by r.run_id limit 1000
    );
    exit when cardinality(v_ids) = 0;
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
