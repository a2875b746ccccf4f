-- A relay without a process, for projects on Supabase: pg_cron calls it, pg_net carries the requests.
--
-- pg_net alone loses events: its queue is unlogged (a crash empties it), it never retries, and a request
-- is gone from the queue before it is sent. So here it only carries. Events are leased from the outbox as
-- by any relay; which request carries which events is written beside the leases (relay_requests, logged);
-- an event is acked only when the answer stands in net._http_response; and what pg_net lost is sent again,
-- under the same id. What the answers mean, and how long what failed has to wait, is as in …000202 and in
-- `stepbase relay`.
--
--   tick:  read answers ──► ack, give back, take apart or give up  ──► lease the next ──► net.http_post
--
-- Everything of pg_net, pg_cron and Vault is named in dynamic SQL (put together by format, so that linters do
-- not miss what a project has not enabled): this file applies to a database that has none of them, and
-- `relay_start` says which one is missing. For the owner of this schema, who must be
-- allowed to use the three (`postgres` on Supabase is).

create table stepbase.relay_pg_net (
  one boolean primary key default true,
  -- Where and how, as given to relay_start.
  url text not null,
  key_secret text not null,
  env text,
  batch_events int not null,
  batch_bytes bigint not null,
  in_flight int not null,
  timeout interval not null,
  most_tries int not null,
  most_age interval not null,
  -- Which database it was started on; a copy differs.
  home text not null,
  -- How the receiver is: failures in a row, and until when it is left alone.
  failures int not null default 0,
  pause_until timestamptz,
  -- After relay_stop: answers are still read, nothing is sent.
  is_stopped boolean not null default false,
  constraint there_is_one_row check (one)
);

comment on table stepbase.relay_pg_net is
  'At most one row: how the relay on pg_net is set up, and how its receiver is.';

create table stepbase.relay_requests (
  -- As pg_net numbers them; after a crash it begins anew.
  request_id bigint primary key,
  life uuid not null,
  token text not null,
  -- In the order of the request's body.
  event_ids text[] not null,
  sent_at timestamptz not null,
  -- The receiver's failures when it was sent: of requests under way together only one failure counts.
  failures int not null
);

comment on table stepbase.relay_requests is
  'Requests given to pg_net whose answer was not read yet, and the events they carry.';

-- Unlogged on purpose, as the tables of pg_net are: a crash empties it together with them. A request
-- of another life than the present one is lost, and its number may be another request's by now.
create unlogged table stepbase.relay_life (
  one boolean primary key default true,
  life uuid not null,
  constraint there_is_one_row check (one)
);

comment on table stepbase.relay_life is
  'One row, gone after a crash: tells requests that pg_net lost in it from those it still has.';

-- When an event was last sent by the transaction that wrote it, in milliseconds since 1970. See emit_poke.
create sequence stepbase.relay_poked_at minvalue 0 start 0;

alter table stepbase.relay_pg_net enable row level security;
alter table stepbase.relay_requests enable row level security;
alter table stepbase.relay_life enable row level security;

-- What an event API's answer says of the p_count events of a request: outcome is accepted (all), refused
-- (the first that was not accepted), too_large (the request) or away (nothing is known); the first
-- `accepted` events are taken. p_status null: no answer. Tests hold it to the same table of answers as
-- stepbase/relay/answer.py.
create function stepbase.relay_read_answer(
  p_status int,
  p_content text,
  p_count int,
  out outcome text,
  out accepted int,
  out reason text
)
  language plpgsql
  immutable
  set search_path = ''
  as $$
declare
  v_body jsonb;
  v_ids jsonb;
  v_error text;
begin
  begin
    v_body := p_content::jsonb;
  exception when others then
    v_body := null;
  end;
  if jsonb_typeof(v_body) = 'object' then
    v_error := case when jsonb_typeof(v_body -> 'error') = 'string' then v_body ->> 'error' end;
    v_ids := case jsonb_typeof(v_body -> 'ids')
      when 'array' then v_body -> 'ids'
      -- How some servers write an empty list.
      when 'null' then case when v_error <> '' then '[]'::jsonb end
    end;
  end if;
  -- Where the first event is bad, the list holds one empty string.
  select least(coalesce(min(i.n) - 1, jsonb_array_length(v_ids), 0), p_count)::int
  into accepted
  from jsonb_array_elements(coalesce(v_ids, '[]')) with ordinality as i(id, n)
  where jsonb_typeof(i.id) <> 'string' or i.id = '""';
  reason := 'HTTP ' || p_status || ': ' || left(coalesce(nullif(v_error, ''), p_content, ''), 4000);

  if p_status between 200 and 299 then
    outcome := case when accepted = p_count then 'accepted' else 'away' end;
    reason := reason || format(' (%s of %s events are named as accepted)', accepted, p_count);
  elsif p_status in (400, 422) and v_ids is not null then
    outcome := case when accepted = p_count then 'accepted' else 'refused' end;
  else
    outcome := case when p_status = 413 then 'too_large' else 'away' end;
    accepted := 0;
    reason := coalesce(reason, 'no answer');
  end if;
end
$$;

-- Which database this is, in a word that a copy does not share: the cluster's identity and the
-- database's. (A copy made by copying the files of the whole cluster does share it.)
create function stepbase.relay_home() returns text
  language sql
  stable
  set search_path = ''
  as $$
    select format('%s/%s', c.system_identifier, d.oid)
    from pg_control_system() as c, pg_database as d
    where d.datname = current_database()
  $$;

-- Says what the relay on pg_net lacks on this database, or null. For relay_start.
create function stepbase.relay_lacks() returns text
  language sql
  stable
  set search_path = ''
  as $$
    select case
      when to_regprocedure('net.http_post(text,jsonb,jsonb,jsonb,integer)') is null then 'pg_net'
      when to_regclass('vault.decrypted_secrets') is null then 'supabase_vault'
      when to_regprocedure('cron.schedule(text,text,text)') is null then 'pg_cron'
    end
  $$;

-- Why an event's JSON cannot be put into a request of pg_net, which takes jsonb; null if it can. For
-- relay_send.
create function stepbase.relay_problem(p_payload json) returns text
  language plpgsql
  immutable
  set search_path = ''
  as $$
begin
  return case when p_payload::jsonb is null then 'it is null' end;
exception when others then
  return sqlerrm;
end
$$;

-- Gives leased events to pg_net as one request, and writes down which; those that p_token does not hold
-- (any more) are left out, those that cannot be sent at all become dead letters. Returns pg_net's number of
-- the request, or null if nothing was left. It is sent when, and only when, this transaction commits.
-- Raises SB014 if the event key is not in Vault.
create function stepbase.relay_send(p_ids text[], p_token text) returns bigint
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  v_set stepbase.relay_pg_net;
  v_ids text[];
  v_body jsonb;
  v_key text;
  v_request bigint;
  v_gone stepbase.relay_requests;
begin
  select s.* into strict v_set from stepbase.relay_pg_net as s;
  begin
    select array_agg(o.id order by i.n), jsonb_agg(o.payload::jsonb order by i.n)
    into v_ids, v_body
    from unnest(p_ids) with ordinality as i(id, n)
    join stepbase.outbox as o on o.id = i.id
    where o.token = p_token;
  exception when others then
    -- One of them is no jsonb (a NUL character, say). It is found out here, and stops nobody.
    perform stepbase.outbox_fail(o.id, 'cannot be sent: ' || stepbase.relay_problem(o.payload), null, p_token)
    from stepbase.outbox as o
    where o.id = any (p_ids) and o.token = p_token and stepbase.relay_problem(o.payload) is not null;
    return stepbase.relay_send(
      (
        select array_agg(i.id order by i.n)
        from unnest(p_ids) with ordinality as i(id, n)
        join stepbase.outbox as o on o.id = i.id
        where o.token = p_token and o.dead_at is null
      ),
      p_token);
  end;
  if v_ids is null then
    return null;
  end if;

  execute format('select decrypted_secret from %I.decrypted_secrets where name = $1', 'vault')
    into v_key using v_set.key_secret;
  if v_key is null then
    raise exception 'there is no secret "%" in Vault', v_set.key_secret
      using errcode = 'SB014', hint = 'select vault.create_secret(''<event key>'', '''
        || v_set.key_secret || ''')';
  end if;
  execute
    format('select %I.http_post(url => $1, body => $2, headers => $3, timeout_milliseconds => $4)', 'net')
    into v_request
    using v_set.url || '/e/' || v_key, v_body,
      jsonb_strip_nulls(jsonb_build_object(
        'Content-Type', 'application/json',
        'User-Agent', 'stepbase-relay-sql',
        'x-inngest-env', v_set.env)),
      (extract(epoch from v_set.timeout) * 1000)::int;
  -- If pg_net was installed anew, it counts from 1 again, and what it had is gone.
  delete from stepbase.relay_requests as r where r.request_id = v_request returning r.* into v_gone;
  perform stepbase.outbox_put_back(v_gone.event_ids, v_gone.token);
  insert into stepbase.relay_requests (request_id, life, token, event_ids, sent_at, failures)
  select v_request, l.life, p_token, v_ids, stepbase.now(), v_set.failures
  from stepbase.relay_life as l;
  return v_request;
end
$$;

-- Reads one answer: acks what was accepted, and gives back, gives up or sends in parts what was not.
-- p_status null: none came, because of p_reason. For relay_tick.
create function stepbase.relay_answered(
  p_request stepbase.relay_requests,
  p_status int,
  p_content text,
  p_reason text,
  p_retry_after interval
) returns void
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  v_count constant int := cardinality(p_request.event_ids);
  v_rest text[];
  v_answer record;
  v_set stepbase.relay_pg_net;
  v_suspect boolean;
begin
  select s.* into strict v_set from stepbase.relay_pg_net as s;
  select * into strict v_answer from stepbase.relay_read_answer(p_status, p_content, v_count);
  perform stepbase.outbox_ack(p_request.event_ids[:v_answer.accepted], p_request.token);
  v_rest := p_request.event_ids[v_answer.accepted + 1:];

  if v_answer.outcome = 'away' then
    -- One that has failed often, and now alone, may be what the receiver fails at.
    select v_count = 1 and v_set.failures = 0 and coalesce(bool_or(o.tries > 3), true)
    into v_suspect
    from stepbase.outbox as o
    where o.id = any (v_rest) and o.token = p_request.token;
    perform stepbase.outbox_give_back(
      v_rest, coalesce(p_reason, v_answer.reason), p_request.token, p_retry_after,
      v_set.most_tries, v_set.most_age);
    if not v_suspect and p_request.failures = v_set.failures then
      update stepbase.relay_pg_net as s
      set failures = s.failures + 1,
        pause_until = stepbase.now() + greatest(
          least(0.5 * power(2, least(s.failures + 1, 10)), 30) * (0.5 + random() / 2) * interval '1 second',
          p_retry_after);
    end if;
    return;
  end if;

  update stepbase.relay_pg_net as s set failures = 0, pause_until = null where s.failures > 0;
  if cardinality(v_rest) = 0 then
    return;
  elsif v_count = 1 then
    perform stepbase.outbox_fail(v_rest[1], v_answer.reason, null, p_request.token);
  elsif v_answer.outcome = 'too_large' then
    perform stepbase.relay_send(v_rest[:v_count / 2], p_request.token);
    perform stepbase.relay_send(v_rest[v_count / 2 + 1:], p_request.token);
  else
    -- Alone it is certain that this event is meant; nobody else's fault ends in a dead letter.
    perform stepbase.relay_send(v_rest[:1], p_request.token);
    perform stepbase.relay_send(v_rest[2:], p_request.token);
  end if;
end
$$;

-- Reads what pg_net has answered, and finds out what it has lost: everything in a crash, single requests
-- (when its worker was restarted in the middle) by their time being over. Returns how many requests ended.
-- For relay_tick.
create function stepbase.relay_collect() returns int
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  v_now constant timestamptz := stepbase.now();
  v_life uuid;
  v_request stepbase.relay_requests;
  v_id bigint;
  v_status int;
  v_content text;
  v_reason text;
  v_retry_after interval;
  v_ended int := 0;
begin
  insert into stepbase.relay_life (life) values (gen_random_uuid()) on conflict do nothing;
  select l.life into strict v_life from stepbase.relay_life as l;
  for v_request in
    delete from stepbase.relay_requests as r where r.life <> v_life returning r.*
  loop
    perform stepbase.outbox_put_back(v_request.event_ids, v_request.token);
    v_ended := v_ended + 1;
  end loop;

  for v_id, v_status, v_content, v_reason, v_retry_after in execute format(
    $q$
      select r.request_id, h.status_code, h.content,
        case
          when h.id is null then 'the request was lost on its way'
          when h.status_code is null then 'no answer: ' || coalesce(h.error_msg, 'timed out')
        end as reason,
        coalesce((
          select least(each.value::int, 600)
          from jsonb_each_text(h.headers) as each
          where lower(each.key) = 'retry-after' and each.value ~ '^[0-9]{1,6}$'
          limit 1
        ), 0) * interval '1 second' as retry_after
      from stepbase.relay_requests as r
      left join %1$I._http_response as h on h.id = r.request_id
      where h.id is not null
        or (
          r.sent_at < $1 - (select s.timeout from stepbase.relay_pg_net as s) - interval '1 minute'
          and not exists (select from %1$I.http_request_queue as q where q.id = r.request_id)
        )
      order by r.request_id
    $q$, 'net') using v_now
  loop
    delete from stepbase.relay_requests as r where r.request_id = v_id
    returning r.* into strict v_request;
    perform stepbase.relay_answered(
      v_request, v_status, v_content, v_reason, v_retry_after);
    v_ended := v_ended + 1;
  end loop;

  -- What waits long in pg_net's queue stays ours, or it would be sent twice and make the queue longer.
  update stepbase.outbox as o
  set due_at = v_now + interval '5 minutes'
  from stepbase.relay_requests as r
  where o.id = any (r.event_ids) and o.token = r.token and o.due_at < v_now + interval '2 minutes';
  return v_ended;
end
$$;

-- One turn of the relay: reads answers, then leases and sends what is due, up to the number of requests
-- that may be under way. pg_cron calls it; calling it by hand does no harm. Returns {"answered", "sent",
-- "under_way"}: requests, or null if another session is just at it. Raises SB013 on a copy of the database
-- that it was set up on, SB014 if it was not set up or the event key is gone, SB015 if an engine or a relay
-- reads the outbox; of a relay that was stopped it only reads answers. Takes an advisory lock.
create function stepbase.relay_tick() returns jsonb
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  v_set stepbase.relay_pg_net;
  v_answered int;
  v_under_way int;
  v_sent int := 0;
  v_token text;
  v_batch record;
begin
  -- ASCII for "srly".
  if not pg_try_advisory_xact_lock(1936878713, 0) then
    return null;
  end if;
  select s.* into v_set from stepbase.relay_pg_net as s;
  if v_set.one is null then
    raise exception 'there is no relay on pg_net here'
      using errcode = 'SB014', hint = 'Set it up with stepbase.relay_start.';
  elsif v_set.home <> stepbase.relay_home() then
    raise exception 'the relay on pg_net was set up on another database: this is a copy'
      using errcode = 'SB013',
        hint = 'Empty the outbox if its events are not to be sent again, then call'
          ' stepbase.relay_start(…, p_take_over => true). Or, if this is the original after a major'
          ' upgrade of Postgres, call it right away.';
  end if;

  v_answered := stepbase.relay_collect();
  select s.* into strict v_set from stepbase.relay_pg_net as s;
  select count(*)::int into v_under_way from stepbase.relay_requests;
  -- An error would undo what was just read.
  if v_set.is_stopped
    or v_answered + v_under_way > 0 and stepbase.outbox_others('pg_net') is not null
  then
    return jsonb_build_object('answered', v_answered, 'sent', 0, 'under_way', v_under_way);
  end if;
  perform stepbase.outbox_alone('pg_net');
  loop
    -- A receiver that failed is asked with one event at a time, after its pause.
    exit when v_under_way + v_sent >= case when v_set.failures > 0 then 1 else v_set.in_flight end
      -- None is longer: a clock that was set back must not stop the relay for as long.
      or v_set.pause_until between stepbase.now() and stepbase.now() + interval '11 minutes';
    v_token := gen_random_uuid()::text;
    v_batch := null;
    -- What has failed often travels alone: it may be what the receiver fails at.
    select array_agg(t.id order by t.n) filter (where t.tries <= 3) as fresh,
      array_agg(t.id order by t.n) filter (where t.tries > 3) as suspects
    into v_batch
    from stepbase.outbox_take_some(
      case when v_set.failures > 0 then 1 else v_set.batch_events end,
      v_set.batch_bytes, v_token, '5 minutes'
    ) with ordinality as t(id, name, payload, tries, n);
    exit when v_batch.fresh is null and v_batch.suspects is null;
    v_sent := v_sent
      + (stepbase.relay_send(v_batch.fresh, v_token) is not null)::int
      + (
        select count(stepbase.relay_send(array[s.id], v_token))::int
        from unnest(v_batch.suspects) as s(id)
      );
  end loop;
  return jsonb_build_object('answered', v_answered, 'sent', v_sent, 'under_way', v_under_way + v_sent);
end
$$;

-- Sends an event from the transaction that writes it, at most once a second, so that in quiet times it need
-- not wait for the next tick: a trigger on the outbox that relay_start makes if it is asked for. pg_net
-- sends it if the transaction commits. If that is lost, the tick finds it. Never fails the writer.
-- SECURITY DEFINER, as row triggers are: whoever emits need not be allowed to use pg_net and Vault.
create function stepbase.emit_poke() returns trigger
  language plpgsql
  security definer
  set search_path = ''
  as $$
declare
  v_ms constant bigint := floor(date_part('epoch', stepbase.now()) * 1000)::bigint;
  v_token text;
  v_ids text[];
begin
  if pg_sequence_last_value('stepbase.relay_poked_at') > v_ms - 1000
    or not exists (select from stepbase.relay_life)
    or not exists (
      select from stepbase.relay_pg_net as s
      where s.failures = 0 and not s.is_stopped and s.home = stepbase.relay_home()
    )
    or stepbase.outbox_others('pg_net') is not null
  then
    return null;
  end if;
  perform setval('stepbase.relay_poked_at', v_ms);
  begin
    v_token := gen_random_uuid()::text;
    with taken as (
      update stepbase.outbox as o
      set token = v_token, tries = 1, due_at = stepbase.now() + interval '5 minutes'
      from (select n.id from new_rows as n limit 100) as n
      where o.id = n.id
      returning o.id
    )
    select array_agg(t.id) into v_ids from taken as t;
    perform stepbase.relay_send(v_ids, v_token);
  exception when others then
    raise log 'stepbase: an event was not sent at once: %', sqlerrm;
  end;
  return null;
end
$$;

-- Sets the relay on pg_net up, or changes how it is set up, and has pg_cron call it.
--   p_project      whose outbox this is (see outbox_claim); p_take_over: though it was another's
--   p_url          origin of the event API
--   p_key_secret   name of the event key in Vault
--   p_schedule     of pg_cron; before version 1.5, which knows no seconds, a default becomes every minute.
--                  null: nothing is scheduled, and relay_tick is called by somebody else
--   p_poke         whether events are also sent from the transactions that write them (see emit_poke)
--   p_env          the environment (branch) of the server that is meant
-- The others are as `stepbase relay` has them. Returns the schedule. Raises SB013 for another project's
-- outbox, SB014 for what is missing: pg_net, supabase_vault, pg_cron, the key, and SB015 if an engine or a
-- relay reads the outbox. With p_poke it locks the outbox against writers.
create function stepbase.relay_start(
  p_project text,
  p_url text default 'https://inn.gs',
  p_key_secret text default 'inngest_event_key',
  p_schedule text default '5 seconds',
  p_poke boolean default false,
  p_take_over boolean default false,
  p_env text default null,
  p_batch_events int default 500,
  p_batch_bytes bigint default 1048576,
  p_in_flight int default 10,
  p_timeout interval default '20 seconds',
  p_most_tries int default 20,
  p_most_age interval default '7 days'
) returns text
  language plpgsql
  volatile
  set search_path = ''
  as $$
declare
  v_lacks constant text := stepbase.relay_lacks();
  v_call constant text :=
    format('select %I.schedule(''stepbase-relay'', $1, ''select stepbase.relay_tick()'')', 'cron');
  v_schedule text := p_schedule;
  v_found boolean;
begin
  if v_lacks is not null and not (v_lacks = 'pg_cron' and p_schedule is null) then
    raise exception 'the relay without a process needs the extension %', v_lacks
      using errcode = 'SB014',
        hint = format('Enable %s (on Supabase: Database → Extensions), or run `stepbase relay`, which needs'
          ' no extension.', v_lacks);
  elsif p_url !~ '^https?://[^/]+(/.*[^/])?$' then
    raise exception 'p_url must be an http(s) URL without a slash at its end, not "%"', p_url
      using errcode = 'SB014', hint = 'Inngest''s is https://inn.gs.';
  end if;
  execute format('select exists (select from %I.decrypted_secrets where name = $1)', 'vault')
    into v_found using p_key_secret;
  if not v_found then
    raise exception 'there is no secret "%" in Vault', p_key_secret
      using errcode = 'SB014',
        hint = format('select vault.create_secret(''<event key>'', %L)', p_key_secret);
  end if;

  perform stepbase.outbox_alone('pg_net');
  perform stepbase.outbox_claim(p_project, p_take_over);
  insert into stepbase.relay_pg_net as s (
    url, key_secret, env, batch_events, batch_bytes, in_flight, timeout, most_tries, most_age, home)
  values (
    p_url, p_key_secret, p_env, p_batch_events, p_batch_bytes, p_in_flight, p_timeout, p_most_tries,
    p_most_age, stepbase.relay_home())
  on conflict (one) do update
  set url = excluded.url, key_secret = excluded.key_secret, env = excluded.env,
    batch_events = excluded.batch_events, batch_bytes = excluded.batch_bytes,
    in_flight = excluded.in_flight, timeout = excluded.timeout, most_tries = excluded.most_tries,
    most_age = excluded.most_age, home = excluded.home, failures = 0, pause_until = null, is_stopped = false;

  drop trigger if exists stepbase_poke on stepbase.outbox;
  if p_poke then
    create trigger stepbase_poke after insert on stepbase.outbox
      referencing new table as new_rows
      for each statement execute function stepbase.emit_poke();
  end if;
  if p_schedule is null then
    return null;
  end if;
  begin
    execute v_call using v_schedule;
  exception when others then
    if p_schedule <> '5 seconds' then
      raise;
    end if;
    v_schedule := '* * * * *';
    execute v_call using v_schedule;
    raise notice 'this pg_cron knows no seconds (that needs 1.5): the relay runs every minute';
  end;
  return v_schedule;
end
$$;

-- Stops the relay on pg_net: nothing calls it any more. Requests under way are still sent, and relay_tick by hand
-- reads their answers; events whose answer nobody reads stay leased for up to five minutes, and the next reader
-- has them again, under the same ids. Returns how many requests those are. Locks the outbox against writers for a moment if events were sent at once (p_poke).
create function stepbase.relay_stop() returns int
  language plpgsql
  volatile
  set search_path = ''
  as $$
begin
  if to_regclass('cron.job') is not null then
    execute format('select %1$I.unschedule(j.jobid) from %1$I.job as j where j.jobname = $1', 'cron')
      using 'stepbase-relay';
  end if;
  if exists (
    select from pg_trigger
    where tgrelid = 'stepbase.outbox'::regclass and tgname = 'stepbase_poke'
  ) then
    drop trigger stepbase_poke on stepbase.outbox;
  end if;
  update stepbase.relay_pg_net as s set is_stopped = true;
  return (select count(*)::int from stepbase.relay_requests);
end
$$;
