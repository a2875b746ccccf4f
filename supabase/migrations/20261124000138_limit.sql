-- Start rules that drop: rate limits, and idempotency by an expression.

-- Of the starts p_places (places in s_*, in their order), returns those that their rules drop, with the
-- reason, and takes the permits of the others. r_*: as ingest has them. Rate limits are GCRA: a start
-- costs r_period, and r_limit starts may be ahead of the rate; so from idle r_limit + 1 start at once.
-- A start dropped by one rule takes nothing from the other. Locks: gates by key.
create or replace function stepbase._limit(
  p_places integer[], r_start integer[], r_rule text[], r_key text[], r_limit integer[], r_period bigint[],
  p_now timestamptz
) returns table (place integer, reason text)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
declare
  v_keys text[];
  v_once integer[];
  v_over integer[];
  v_locked integer;
begin
  select array_agg(distinct r.key order by r.key) into v_keys
    from unnest(r_start, r_rule, r_key) as r (place, rule, key)
    join unnest(p_places) as p (place) on p.place = r.place
    where r.rule in ('once', 'rate');
  if v_keys is null then
    return;
  end if;
  loop
    insert into stepbase.gates (key, tat) select k, '-infinity' from unnest(v_keys) as k order by k
      on conflict do nothing;
    perform 1 from stepbase.gates g where g.key = any (v_keys) order by g.key for update;
    get diagnostics v_locked = row_count;
    -- Fewer if a sweep came between the two.
    exit when v_locked = cardinality(v_keys);
  end loop;

  select array_agg(o.place) into v_once
    from (
      select r.place, row_number() over (partition by r.key order by r.place) as n, g.tat
        from unnest(r_start, r_rule, r_key) as r (place, rule, key)
        join unnest(p_places) as p (place) on p.place = r.place
        join stepbase.gates g on g.key = r.key and g.key = any (v_keys)
        where r.rule = 'once'
    ) o
    where o.n > 1 or o.tat > p_now;

  select array_agg(o.place) into v_over
    from (
      select r.place, row_number() over (partition by r.key order by r.place) as n,
             -- How far the key is ahead of its rate, in microseconds.
             case when g.tat > p_now then extract(epoch from g.tat - p_now) * 1000000 else 0 end as ahead,
             r.at_once, r.period
        from unnest(r_start, r_rule, r_key, r_limit, r_period) as r (place, rule, key, at_once, period)
        join unnest(p_places) as p (place) on p.place = r.place
        join stepbase.gates g on g.key = r.key and g.key = any (v_keys)
        where r.rule = 'rate' and not (r.place = any (coalesce(v_once, '{}')))
    ) o
    where o.ahead + (o.n - 1) * o.period > o.at_once * o.period;

  update stepbase.gates g
    set tat = greatest(g.tat, p_now) + t.cost * interval '1 microsecond'
    from (
      select r.key, sum(r.period)::double precision as cost
        from unnest(r_start, r_rule, r_key, r_period) as r (place, rule, key, period)
        join unnest(p_places) as p (place) on p.place = r.place
        where r.rule in ('once', 'rate')
          and not (r.place = any (coalesce(v_once, '{}') || coalesce(v_over, '{}')))
        group by r.key
    ) t
    where g.key = t.key and g.key = any (v_keys);
  return query
    select o.place, 'idempotent' from unnest(v_once) as o (place)
    union all
    select o.place, 'rate_limited' from unnest(v_over) as o (place);
end
$$;

-- Notes why starts did not become runs. Where a step of a run had asked for one (invoke), that step is
-- told by an item of its own, so that nobody waits for what will not come.
create or replace function stepbase._note(
  p_places integer[], p_reasons text[], e_id text[],
  s_event integer[], s_function uuid[], s_parent text[], p_now timestamptz
) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_nestloop = off set enable_mergejoin = off set jit = off
as $$
begin
  insert into stepbase.not_started (event_id, function_id, reason, at)
    select e.id, s.function_id, n.reason, p_now
      from unnest(p_places, p_reasons) as n (place, reason)
      join unnest(s_event, s_function) with ordinality as s (event, function_id, place)
        on s.place = n.place
      join unnest(e_id) with ordinality as e (id, i) on e.i = s.event
    on conflict do nothing;
  insert into stepbase.queue (run_id, job, kind, step, ready, score)
    select split_part(s.parent, '.', 1), 'refused:' || n.reason || ':' || split_part(s.parent, '.', 2),
           'invoke', split_part(s.parent, '.', 2), true, p_now
      from unnest(p_places, p_reasons) as n (place, reason)
      join unnest(s_parent) with ordinality as s (parent, place) on s.place = n.place
      where s.parent is not null and n.reason <> 'duplicate'
    on conflict do nothing;
  if found then
    perform pg_catalog.pg_notify('stepbase', 'q');
  end if;
end
$$;
