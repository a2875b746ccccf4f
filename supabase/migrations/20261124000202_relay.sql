-- Relaying to another server: what a relay does beyond taking and acking, and what people ask about it.
--
-- Two relays post events to an event API: `stepbase relay`, a process, and the SQL-only one on pg_net
-- (…000250). Both keep to the rules here. They cannot know whether an event whose answer was lost has
-- arrived, so they send it again under the same id: the receiver de-duplicates for 24 hours.
--
-- What is whose fault. A receiver that is away (refused, silent, 5xx, 429, wrong key) says nothing about
-- an event: it is tried again, later and later, and becomes a dead letter only when it has been tried
-- often *and* is old; both, so that neither an outage nor a relay that was switched off for long loses
-- anything. An event that the receiver refused by itself (400 and it was alone) is dead at once.

-- How long an event waits after its p_tries-th failed try: 1 s, doubled each time, at most 5 minutes,
-- less up to a half of it by chance, so that what failed together does not come again together.
create function stepbase.relay_delay(p_tries int) returns interval
  language sql
  volatile
  set search_path = ''
  as $$
    select least(power(2, least(p_tries, 20) - 1), 300) * (0.5 + random() / 2) * interval '1 second'
  $$;

-- Leases as outbox_take does, but no more events than fit into p_bytes (of JSON text; the first one
-- always does), so that no relay holds more than it can carry. Reads no payload beyond those: a backlog
-- of large events costs no more than what is sent of it. Returns them in the order they fell due.
create function stepbase.outbox_take_some(p_n int, p_bytes bigint, p_token text, p_for interval)
  returns table (id text, name text, payload json, tries int)
  language plpgsql
  volatile
  set search_path = ''
  -- As in outbox_take.
  set enable_seqscan = off
  set enable_hashjoin = off
  set enable_mergejoin = off
  as $$
declare
  v_id text;
  v_payload json;
  v_ids text[] := array[]::text[];
  v_bytes bigint := 0::bigint;
begin
  for v_id, v_payload in
    select o.id, o.payload
    from stepbase.outbox as o
    where o.dead_at is null and o.due_at <= stepbase.now()
    order by o.due_at
    limit p_n
    for update skip locked
  loop
    v_bytes := v_bytes + octet_length(v_payload::text) + 1;
    exit when v_bytes > p_bytes and cardinality(v_ids) > 0;
    v_ids := array_append(v_ids, v_id);
  end loop;

  return query
    with taken as (
      update stepbase.outbox as o
      set token = p_token, tries = o.tries + 1, due_at = stepbase.now() + p_for
      from unnest(v_ids) with ordinality as i(id, n)
      where o.id = i.id
      returning o.id, o.name, o.payload, o.tries, i.n
    )
    select t.id, t.name, t.payload, t.tries from taken as t order by t.n;
end
$$;

-- Gives events back that could not be delivered, through no fault of theirs that is known: each is due
-- again after relay_delay of its tries, and not before p_at_least is over; or it is dead, if it was tried
-- p_most_tries times and is older than p_most_age. Returns those that p_token held, and which are dead now.
create function stepbase.outbox_give_back(
  p_ids text[],
  p_error text,
  p_token text,
  p_at_least interval,
  p_most_tries int,
  p_most_age interval
) returns table (id text, is_dead boolean)
  language sql
  volatile
  set search_path = ''
  as $$
    update stepbase.outbox as o
    set token = null,
      error = left(coalesce(nullif(p_error, ''), 'no reason given'), 4000),
      due_at = stepbase.now() + greatest(stepbase.relay_delay(o.tries), p_at_least),
      dead_at = case
        when o.tries >= p_most_tries and o.created_at < stepbase.now() - p_most_age then stepbase.now()
      end
    where o.id = any (p_ids) and o.token = p_token
    returning o.id, o.dead_at is not null
  $$;

-- Gives events back that were not tried after all: due now, and the try not counted. Returns how many
-- p_token held.
create function stepbase.outbox_put_back(p_ids text[], p_token text) returns int
  language sql
  volatile
  set search_path = ''
  as $$
    with back as (
      update stepbase.outbox as o
      set token = null, tries = greatest(o.tries - 1, 0), due_at = stepbase.now()
      where o.id = any (p_ids) and o.token = p_token
      returning 1
    )
    select count(*)::int from back
  $$;

-- As outbox_idle; also returns the seconds until the next event falls due (0: one is due already; null:
-- there is none), so that the caller knows how long it may sleep.
create function stepbase.outbox_doze(p_for interval) returns double precision
  language plpgsql
  volatile
  set search_path = ''
  as $$
begin
  perform stepbase.outbox_idle(p_for);
  return (
    select greatest(extract(epoch from o.due_at - stepbase.now()), 0)::double precision
    from stepbase.outbox as o
    where o.dead_at is null
    order by o.due_at
    limit 1
  );
end
$$;

-- Makes events due now that wait for their next try: all of them (null), or the given ones, also where a
-- relay holds a lease on them; that relay's answer is then no longer heard, and they may be sent twice
-- under the same id. Dead ones are brought back by outbox_requeue. Returns how many.
create function stepbase.outbox_retry(p_ids text[] default null) returns int
  language sql
  volatile
  set search_path = ''
  as $$
    with due as (
      update stepbase.outbox as o
      set due_at = stepbase.now(), token = null
      where o.dead_at is null
        and o.due_at > stepbase.now()
        and case when p_ids is null then o.token is null else o.id = any (p_ids) end
      returning 1
    )
    select count(*)::int from due
  $$;

-- What there is to say about the outbox, in one call: a JSON object of
--   project   whom it belongs to (outbox_claim), or null
--   waiting, leased, retrying, dead   how many events (each counted up to 100,000)
--   lag_s     how long the longest due event has been due, in seconds; 0 if none is
--   stuck     the dead, and the oldest of those not delivered p_stuck_after their creation; at most p_most
--             of them, each an object: id, name, state, tries, age_s, due_in_s (null: dead) and error
create function stepbase.outbox_report(
  p_stuck_after interval default '5 minutes',
  p_most int default 100
) returns jsonb
  language plpgsql
  stable
  set search_path = ''
  as $$
declare
  v_now constant timestamptz := stepbase.now();
begin
  return (
    select jsonb_build_object(
      'project', (select s.project from stepbase.relay_state as s),
      'waiting', count(*) filter (where c.state = 'waiting'),
      'leased', count(*) filter (where c.state = 'leased'),
      'retrying', count(*) filter (where c.state = 'retrying'),
      'dead', (
        select count(*)
        from (select from stepbase.outbox as o where o.dead_at is not null limit 100000) as d
      ),
      'lag_s', coalesce(round(extract(epoch from v_now - (
        select min(o.due_at) from stepbase.outbox as o where o.dead_at is null and o.due_at <= v_now
      )), 3), 0))
    from (
      select stepbase.outbox_state(o, v_now) as state
      from stepbase.outbox as o
      where o.dead_at is null
      limit 100000
    ) as c
  ) || jsonb_build_object('stuck', (
    select coalesce(jsonb_agg(to_jsonb(s) order by s.due_in_s is not null, s.age_s desc), '[]')
    from (
      select o.id, o.name, stepbase.outbox_state(o, v_now) as state, o.tries,
        round(extract(epoch from v_now - o.created_at)) as age_s,
        case when o.dead_at is null then round(extract(epoch from o.due_at - v_now)) end as due_in_s,
        o.error
      from stepbase.outbox as o
      where o.dead_at is not null or o.created_at < v_now - p_stuck_after
      order by o.dead_at is null, o.created_at
      limit p_most
    ) as s
  ));
end
$$;

-- The state of an outbox row at a moment, in one word. For outbox_report.
create function stepbase.outbox_state(p_row stepbase.outbox, p_now timestamptz) returns text
  language sql
  immutable
  set search_path = ''
  as $$
    select case
      when p_row.dead_at is not null then 'dead'
      when p_row.due_at <= p_now then 'waiting'
      when p_row.token is not null then 'leased'
      else 'retrying'
    end
  $$;
