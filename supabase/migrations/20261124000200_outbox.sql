-- The outbox: events written in the transaction of the change they tell of.
--
-- An event is one row. `stepbase.emit` and the row triggers of `stepbase.track` insert it in the
-- caller's own transaction: no commit, no event; commit, and there will be an event, whatever crashes
-- afterwards (the table is logged). A relay then moves rows to where events are kept:
--
--   due ──take──► leased ──ack──► gone
--    ▲              │ │
--    └── lease ends ┘ └─fail──► due again later, or dead ──requeue──► due
--
-- The engine of this project is the relay of its own database and deletes the row inside the
-- transaction that stores the event, so that transfer is exactly once; a relay to anywhere else acks
-- after sending, so it delivers at least once, always under the same id. Order is not promised.
--
-- A lease is a token and a time: `due_at` says when the row may be taken (again). Whoever comes with
-- another token changes nothing. Policy (how long, how often, when to give up) is the relay's; this
-- file only decides what a lock must decide.

create table stepbase.outbox (
  -- The event's id: a UUIDv7, hence in order of time, unless the emitter gave one of its own.
  id text collate "C" primary key,
  name text not null,
  -- The whole event as functions will see it: name, data, id, ts and, if given, user and v.
  payload json not null,
  created_at timestamptz not null,
  due_at timestamptz not null,
  tries int not null default 0,
  token text,
  error text,
  dead_at timestamptz
) with (
  -- A queue: rows live for moments, so their remains are swept at once.
  fillfactor = 80,
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 10000,
  autovacuum_vacuum_cost_delay = 0
);

-- outbox_take: what is due, oldest first.
create index outbox_due on stepbase.outbox (due_at) where dead_at is null;

comment on table stepbase.outbox is
  'Events on their way out, written by emit and row triggers in the transaction of the change.';

-- Until when a relay that sleeps wants to be woken, in milliseconds since 1970. A sequence, because
-- every writer looks at it: a function reads it without a query, for a fifth of the price of a row.
create sequence stepbase.relay_idle_until minvalue 0 start 0;

comment on sequence stepbase.relay_idle_until is
  'Until when a sleeping relay wants a NOTIFY for each new event, in ms since 1970. See outbox_idle.';

create table stepbase.relay_state (
  one boolean primary key default true,
  project text,
  constraint there_is_one_row check (one),
  constraint a_project_has_a_name check (project <> '')
);

insert into stepbase.relay_state default values;

comment on table stepbase.relay_state is 'One row: which project the outbox belongs to.';

alter table stepbase.outbox enable row level security;
alter table stepbase.relay_state enable row level security;

-- Refuses a name that no event may have. For emit and track. Raises SB010.
create function stepbase.check_event_name(p_name text) returns void
  language plpgsql
  immutable
  set search_path = ''
  as $$
begin
  if p_name is null or p_name = '' then
    raise exception 'an event needs a name'
      using errcode = 'SB010', hint = 'Names look like "currency/award.requested".';
  elsif length(p_name) > 512 then
    raise exception 'event name "%…" has % characters, at most 512 are allowed',
      left(p_name, 40), length(p_name)
      using errcode = 'SB010';
  elsif starts_with(p_name, 'inngest/') then
    raise exception 'event name "%" is reserved: only an engine sends events that begin with "inngest/"',
      p_name
      using errcode = 'SB010', hint = 'Choose another prefix.';
  end if;
end
$$;

-- Puts one event into the outbox. For emit, which has checked everything; p_more is the text of further
-- fields. Returns the event's id. Raises SB010 when the event is too large, and 23505 when its id is in
-- the outbox already. Notifies only while a relay has said that it sleeps: NOTIFY takes a lock at commit
-- that the whole server shares.
--
-- The trigger functions of track do the same in place, because each business transaction pays for them,
-- and a call is a quarter of the price. A test compares the two. For the same reason the table has no
-- check constraints: each would cost as much as an index.
create function stepbase.enqueue_event(
  p_name text,
  p_data json,
  p_id text default null,
  p_ts timestamptz default null,
  p_more text default null
) returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_now constant timestamptz := stepbase.now();
  v_ms constant bigint := floor(date_part('epoch', v_now) * 1000)::bigint;
  -- UUIDv7 (RFC 9562 5.7): 48 bits of milliseconds, then a random UUID from behind its version digit.
  v_hex constant text := lpad(to_hex(v_ms), 12, '0');
  v_id constant text := coalesce(p_id, left(v_hex, 8) || '-' || right(v_hex, 4) || '-7'
    || substr(gen_random_uuid()::text, 16));
  v_payload json := json_build_object('name', p_name, 'data', p_data, 'id', v_id, 'ts',
    coalesce(floor(date_part('epoch', p_ts) * 1000)::bigint, v_ms));
begin
  if p_more is not null then
    v_payload := (left(v_payload::text, -1) || p_more || '}')::json;
  end if;
  if pg_column_size(v_payload) > 3145728 then
    raise exception 'event "%" has % bytes, at most 3145728 (3 MiB) are allowed',
      p_name, pg_column_size(v_payload)
      using errcode = 'SB010',
        hint = 'Send an id and let the function read the rest from the database.';
  end if;

  insert into stepbase.outbox (id, name, payload, created_at, due_at)
  values (v_id, p_name, v_payload, v_now, v_now);

  if pg_sequence_last_value('stepbase.relay_idle_until') > v_ms then
    perform pg_notify('stepbase', 'o');
  end if;
  return v_id;
end
$$;

-- Checks what emit is given, and puts it into the outbox. See there.
create function stepbase.emit_event(
  p_name text,
  p_data jsonb,
  p_id text,
  p_ts timestamptz,
  p_user jsonb,
  p_v text
) returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_more constant text :=
    nullif(concat(', "user" : ' || p_user::text, ', "v" : ' || to_json(p_v)::text), '');
begin
  perform stepbase.check_event_name(p_name);
  if p_data is null or jsonb_typeof(p_data) <> 'object' then
    raise exception 'data of event "%" is %, but must be a JSON object',
      p_name, coalesce(jsonb_typeof(p_data), 'null')
      using errcode = 'SB010', hint = 'Name the value, as in jsonb_build_object(''amount'', 12).';
  elsif p_id = '' or length(p_id) > 512 then
    raise exception 'id of event "%" must have 1 to 512 characters, not %', p_name, length(p_id)
      using errcode = 'SB010', hint = 'Leave it out to have one made.';
  elsif not isfinite(p_ts) then
    raise exception 'ts of event "%" is %, but must be a moment', p_name, p_ts
      using errcode = 'SB010';
  elsif jsonb_typeof(p_user) <> 'object' then
    raise exception '"user" of event "%" is %, but must be a JSON object or null',
      p_name, jsonb_typeof(p_user)
      using errcode = 'SB010';
  end if;

  if p_id is null then
    return stepbase.enqueue_event(p_name, p_data::json, null, p_ts, v_more);
  end if;
  -- A block that writes takes a transaction id of its own, so only where a conflict can be.
  begin
    return stepbase.enqueue_event(p_name, p_data::json, p_id, p_ts, v_more);
  exception when unique_violation then
    return p_id;
  end;
end
$$;

-- Emits one event when, and only when, the caller's transaction commits. Returns its id, which is
-- also what de-duplicates it for 24 hours: an id that is still in the outbox is the same event and
-- changes nothing (a transaction that is just emitting it is waited for). ts is when it happened
-- (default: now). "user" is handed to functions as event.user, v is the version of the data.
-- Parameters have the names of the event's own fields: select stepbase.emit('a/b', '{}', id => 'x').
-- Raises SB010 when a value is not allowed.
create function stepbase.emit(
  name text,
  data jsonb,
  id text default null,
  ts timestamptz default null,
  "user" jsonb default null,
  v text default null
) returns text
  -- Not plpgsql, whose checker warns of a parameter called "user".
  language sql
  volatile
  set search_path = ''
  as $$
    select stepbase.emit_event($1, $2, $3, $4, $5, $6)
  $$;

comment on function stepbase.emit is
  'Emits an event when the caller''s transaction commits; returns its id.';

-- Leases up to p_n due events to p_token for p_for, the longest due first, and counts the try.
-- Returns them with the number of this try, from 1. Skips rows that another relay is just taking.
create function stepbase.outbox_take(p_n int, p_token text, p_for interval)
  returns table (id text, name text, payload json, tries int)
  language sql
  volatile
  set search_path = ''
  -- Statistics of a queue lie: it is empty when it is analysed and long when it matters.
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  as $$
    with due as materialized (
      select o.id, o.due_at
      from stepbase.outbox as o
      where o.dead_at is null and o.due_at <= stepbase.now()
      order by o.due_at
      limit p_n
      for update skip locked
    ), taken as (
      update stepbase.outbox as o
      set token = p_token, tries = o.tries + 1, due_at = stepbase.now() + p_for
      from due
      where o.id = due.id
      returning o.id, o.name, o.payload, o.tries, due.due_at
    )
    select id, name, payload, tries from taken order by due_at, id
  $$;

-- Removes events that were delivered. Returns how many p_token still held; the others were given to
-- another relay when the lease ended, and will be delivered once more under the same id.
create function stepbase.outbox_ack(p_ids text[], p_token text) returns int
  language sql
  volatile
  set search_path = ''
  as $$
    with gone as (
      delete from stepbase.outbox as o where o.id = any (p_ids) and o.token = p_token returning 1
    )
    select count(*)::int from gone
  $$;

-- Gives an event back with the reason: due again at p_retry_at, or dead at once when that is null.
-- Returns false, and changes nothing, when p_token does not hold it (any more).
create function stepbase.outbox_fail(
  p_id text,
  p_error text,
  p_retry_at timestamptz,
  p_token text
) returns boolean
  language plpgsql
  set search_path = ''
  as $$
begin
  update stepbase.outbox
  set token = null,
    error = left(coalesce(nullif(p_error, ''), 'no reason given'), 4000),
    due_at = coalesce(p_retry_at, due_at),
    dead_at = case when p_retry_at is null then stepbase.now() end
  where id = p_id and token = p_token;
  return found;
end
$$;

-- Makes dead events due now, with their tries counted anew: the given ones, or all of them.
-- Returns how many. The ids stay, so a function that has seen one within 24 hours does not run again.
create function stepbase.outbox_requeue(p_ids text[] default null) returns int
  language sql
  volatile
  set search_path = ''
  as $$
    with back as (
      update stepbase.outbox as o
      set dead_at = null, error = null, tries = 0, due_at = stepbase.now()
      where o.dead_at is not null and (p_ids is null or o.id = any (p_ids))
      returning 1
    )
    select count(*)::int from back
  $$;

-- A relay says that it sleeps and wants a NOTIFY on channel stepbase (payload 'o') for each new event
-- in the next p_for; zero says that it is awake. Call it, then take once more, then sleep: an event
-- whose transaction was open meanwhile may come without a NOTIFY, so keep polling, seldom. It is so at
-- once, whatever becomes of the caller's transaction.
create function stepbase.outbox_idle(p_for interval) returns void
  language sql
  volatile
  set search_path = ''
  as $$
    select setval('stepbase.relay_idle_until',
      floor(date_part('epoch', stepbase.now() + p_for) * 1000)::bigint)
  $$;

-- A relay says on behalf of which project it works (its reference, or the URL's host), before it
-- takes anything. The first to say so owns the outbox. A database restored or branched into another
-- project carries its old owner's name along: there this raises SB013, so that a copy's events do not
-- reach the world twice, until somebody says p_take_over. Returns the project. Locks relay_state.
create function stepbase.outbox_claim(p_project text, p_take_over boolean default false) returns text
  language plpgsql
  set search_path = ''
  as $$
declare
  v_owner text;
begin
  select project into strict v_owner from stepbase.relay_state for update;
  if v_owner is distinct from p_project then
    if v_owner is not null and not p_take_over then
      raise exception 'this outbox belongs to project "%", not to "%"', v_owner, p_project
        using errcode = 'SB013',
          hint = 'Is this a restored copy or a branch? Empty the outbox if its events are not to be'
            ' sent again, then call stepbase.outbox_claim(project, true).';
    end if;
    update stepbase.relay_state set project = p_project;
  end if;
  return p_project;
end
$$;
