-- Events from signed-in users: how many each may send, and into the outbox with them.
--
-- An endpoint that has checked a user's token calls `public.stepbase_accept`. In one transaction it takes
-- what the events cost from the user's rate and writes them to the outbox; so an event that was answered
-- for is as safe as one a row trigger wrote, and one that was refused has cost nothing.
--
-- The rate is GCRA with a row per user, whose lock also makes several endpoints take turns: tat is when
-- the user's allowance would be whole again if they sent nothing more. A row with a tat in the past says
-- nothing, so it may go at any time, and the table may be empty after a crash: it is unlogged.
--
-- Locks: the user's row, then outbox rows by id. Idle rows of others are removed only where nobody has them.

create unlogged table stepbase.sender_rates (
  user_id text collate "C" primary key,
  tat timestamptz not null
);

comment on table stepbase.sender_rates is
  'How much of their allowance users who send events have used (GCRA): whole again at tat.';

-- serves: the removal of idle rows, in take_rate
create index sender_rates_by_tat on stepbase.sender_rates (tat);

alter table stepbase.sender_rates enable row level security;

-- Takes p_n events from a user's rate: one each p_each, p_burst of them at once. Returns null, or how long
-- it will be until they could be had; then nothing was taken. A user's first row removes up to two idle
-- ones, so the table holds no more rows than there were users lately. Raises 22023 when p_n can never be
-- had. Locks the user's row.
create function stepbase.take_rate(p_user_id text, p_n int, p_each interval, p_burst int)
  returns interval
  language plpgsql
  set search_path = ''
  as $$
declare
  v_now constant timestamptz := stepbase.now();
  v_cost constant interval := p_n * p_each;
  v_most constant interval := p_burst * p_each;
  v_is_new boolean;
  v_wait interval;
begin
  if p_n > p_burst then
    raise exception '% events at once, but a user may send at most %', p_n, p_burst
      using errcode = '22023';
  end if;
  insert into stepbase.sender_rates as r (user_id, tat)
  values (p_user_id, v_now + v_cost)
  on conflict (user_id) do update
    set tat = greatest(r.tat, v_now) + v_cost
    where greatest(r.tat, v_now) + v_cost <= v_now + v_most
  returning r.xmax = 0 into v_is_new;

  if v_is_new is null then
    select r.tat + v_cost - v_most - v_now into strict v_wait
    from stepbase.sender_rates as r
    where r.user_id = p_user_id;
    return v_wait;
  end if;
  if v_is_new then
    delete from stepbase.sender_rates as r
    using (
      select i.user_id
      from stepbase.sender_rates as i
      where i.tat < v_now
      order by i.tat
      limit 2
      for update skip locked
    ) as idle
    where r.user_id = idle.user_id;
  end if;
  return null;
end
$$;

-- Accepts a user's events, all or none: [{"name", "data", "id"?}, …], each with p_user as its user. Returns
-- {"ids": […]} in their order, or {"retry_after_ms": …} when the user's rate (p_limit events in p_period_ms,
-- p_burst of them at once; no limit when null) does not allow them now. An id that is still in the outbox is
-- the same event, and changes nothing. Raises SB010 when an event is not allowed. For the service role: who
-- calls it answers for p_user_id. Locks the user's rate, then outbox rows by id.
create function public.stepbase_accept(
  p_user_id text,
  p_user json,
  p_events json,
  p_limit int default null,
  p_period_ms bigint default null,
  p_burst int default null
) returns json
  language plpgsql
  set search_path = ''
  set statement_timeout = '10s'
  as $$
declare
  v_each constant interval := p_period_ms * interval '1 millisecond' / p_limit;
  v_wait interval;
  v_ids text[];
  v_event record;
begin
  if p_limit is not null then
    v_wait := stepbase.take_rate(
      p_user_id, json_array_length(p_events), v_each, coalesce(p_burst, p_limit));
    if v_wait is not null then
      return json_build_object(
        'retry_after_ms', greatest(ceil(extract(epoch from v_wait) * 1000), 1)::bigint);
    end if;
  end if;

  v_ids := array_fill(null::text, array[json_array_length(p_events)]);
  for v_event in
    select e.n, e.event ->> 'name' as name, (e.event -> 'data')::jsonb as data, e.event ->> 'id' as id
    from json_array_elements(p_events) with ordinality as e(event, n)
    order by (e.event ->> 'id') collate "C", e.n
  loop
    v_ids[v_event.n] := stepbase.emit(
      v_event.name, v_event.data, id => v_event.id, "user" => p_user::jsonb);
  end loop;
  return json_build_object('ids', v_ids);
end
$$;

comment on function public.stepbase_accept is
  'Takes a signed-in user''s events into the outbox, within their rate. service_role only.';
