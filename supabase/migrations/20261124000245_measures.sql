-- What is measured when somebody looks: no counter is kept for it.

-- One row about the whole database, for `GET /metrics`. Ready items, overdue ones and dead events are
-- counted up to p_most, so that no backlog makes a look expensive; queue_rows is the planner's estimate.
-- oldest_due_s: how late the most overdue timer or lost lease is, which no engine has taken up yet;
-- in_lanes: ready items that limits hold back, or may; oldest_ready_s: the age of the oldest run with a
-- ready item in no lane; snapshot_s: how long the oldest transaction of others has held back the cleaning
-- of dead rows, as far as the reader may see it. Locks: none.
create or replace function stepbase.measures(p_most integer)
returns table (
  ready bigint, in_lanes bigint, leased bigint, overdue bigint, queue_rows bigint,
  oldest_due_s double precision, oldest_ready_s double precision,
  outbox_rows bigint, outbox_dead bigint, outbox_lag_s double precision, snapshot_s double precision
)
language plpgsql stable security invoker set search_path = ''
set enable_seqscan = off set jit = off
as $$
declare
  v_now timestamptz := stepbase.now();
begin
  return query select
    (select count(*) from (
       select from stepbase.queue q where q.ready and q.lane is null limit p_most
     ) x),
    (select count(*) from (
       select from stepbase.queue q where q.ready and q.lane is not null limit p_most
     ) x),
    -- Leases end soon: they are among the first that fall due.
    (select count(*) filter (where x.owner is not null) from (
       select q.owner from stepbase.queue q where not q.ready and q.due_at > v_now
         order by q.due_at limit p_most
     ) x),
    (select count(*) from (
       select from stepbase.queue q where not q.ready and q.due_at <= v_now limit p_most
     ) x),
    (select greatest(c.reltuples, 0)::bigint from pg_catalog.pg_class c
       where c.oid = 'stepbase.queue'::regclass),
    (select greatest(extract(epoch from v_now - min(q.due_at)), 0)::double precision
       from stepbase.queue q where not q.ready and q.due_at <= v_now),
    (select greatest(extract(epoch from v_now - min(q.score)), 0)::double precision
       from stepbase.queue q where q.ready and q.lane is null),
    (select count(*) from (select from stepbase.outbox o where o.dead_at is null limit p_most) x),
    (select count(*) from (select from stepbase.outbox o where o.dead_at is not null limit p_most) x),
    (select greatest(extract(epoch from v_now - min(o.due_at)), 0)::double precision
       from stepbase.outbox o where o.dead_at is null and o.due_at <= v_now),
    (select max(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start))::double precision
       from pg_catalog.pg_stat_activity a
       where a.backend_xmin is not null and a.pid <> pg_catalog.pg_backend_pid()
         and a.backend_type = 'client backend');
end
$$;
