-- Who reads the outbox: the engine of this database, `stepbase relay`, or the relay on pg_net. One kind at a time.
--
-- Each takes what it can get. Two kinds beside each other would each have a part of the events; and a relay
-- would carry the engine's own (its schedules, its failed runs) to a server that knows nothing of them. So
-- whichever comes second is refused. Readers of one kind share the work, as many as there are.
--
-- Engines and relays are known by a shared advisory lock that their listening session holds: it costs no event
-- anything, needs no heartbeat and no clock, and is gone when the session is. The relay on pg_net, which is no
-- session, is known by its row in relay_pg_net.

-- Says that the caller's connection reads the outbox as p_kind ('engine' or 'relay'), for as long as it is open.
-- Returns nothing; raises 22023 for another kind. Takes a shared advisory lock, for which it never waits. A
-- peer whose machine is gone is noticed within a minute, else its session would stand here for hours.
create function stepbase.outbox_read_as(p_kind text) returns void
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  v_number constant int := array_position(array['engine', 'relay'], p_kind);
begin
  if v_number is null then
    raise exception 'sessions read the outbox as "engine" or as "relay", not as "%"', p_kind
      using errcode = '22023';
  end if;
  perform set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false),
    set_config('tcp_keepalives_count', '3', false);
  -- ASCII for "srly"; 0 is the tick of the relay on pg_net.
  perform pg_advisory_lock_shared(1936878713, v_number);
end
$$;

-- Who reads the outbox now: kind ('engine', 'relay' or 'pg_net'), and of sessions their pid, the name they
-- gave themselves and since when they are connected (null where this role may not see it).
create function stepbase.outbox_readers()
  returns table (kind text, pid int, name text, since timestamptz)
  language sql
  stable
  set search_path = ''
  as $$
    select (array['engine', 'relay'])[l.objid::bigint::int], l.pid, a.application_name, a.backend_start
    from pg_locks as l
    join pg_database as d on d.oid = l.database and d.datname = current_database()
    left join pg_stat_activity as a on a.pid = l.pid
    where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
      and l.classid::bigint = 1936878713 and l.objid::bigint in (1, 2)
    union all
    select 'pg_net', null, s.url, null
    from stepbase.relay_pg_net as s
    where not s.is_stopped and s.home = stepbase.relay_home()
    order by 1, 2
  $$;

-- Says who reads the outbox as another kind than p_kind, in words for people; null if nobody does.
create function stepbase.outbox_others(p_kind text) returns text
  language sql
  stable
  set search_path = ''
  as $$
    select string_agg(
      case r.kind
        when 'pg_net' then format('the relay on pg_net (to %s)', r.name)
        when 'engine' then format('an engine (session %s)', r.pid)
        else format('stepbase relay (session %s, "%s")', r.pid, r.name)
      end, ', ')
    from stepbase.outbox_readers() as r
    where r.kind <> p_kind
  $$;

-- Raises SB015 if the outbox is read as another kind than p_kind ('engine', 'relay', 'pg_net').
create function stepbase.outbox_alone(p_kind text) returns void
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_others constant text := stepbase.outbox_others(p_kind);
begin
  if v_others is not null then
    raise exception 'the outbox of this database is read by % already, and two kinds of readers would get a part of the events each',
      v_others
      using errcode = 'SB015',
        hint = 'Stop that one first: the process, or select stepbase.relay_stop() for the relay on pg_net.'
          ' A session whose process is gone: select pg_terminate_backend(<session>).';
  end if;
end
$$;
