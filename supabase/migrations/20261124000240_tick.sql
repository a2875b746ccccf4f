-- The one statement of an idle engine.

-- Says what an engine would otherwise have to ask for in several statements: seconds until the next
-- timer or lease end (null: none), whether items are ready, whether others wait in lanes (which may be
-- full), whether outbox rows are due, and seconds until the next schedule fires and the next buffer is due
-- (null: none). With p_idle it also declares, for that long, that the outbox's writers must notify.
create or replace function stepbase.tick(p_idle interval)
returns table (
  seconds double precision, has_ready boolean, has_lanes boolean, has_outbox boolean,
  cron_seconds double precision, buffer_seconds double precision
)
language plpgsql security invoker set search_path = ''
set enable_seqscan = off
as $$
declare
  v_now timestamptz := stepbase.now();
begin
  if p_idle is not null then
    perform stepbase.outbox_idle(p_idle);
  end if;
  return query
    select extract(epoch from
             (select q.due_at from stepbase.queue q where not q.ready and q.due_at < 'infinity' order by q.due_at limit 1)
             - v_now)::double precision,
           exists (select from stepbase.queue q where q.ready and q.lane is null),
           exists (select from stepbase.queue q where q.ready and q.lane is not null),
           exists (select from stepbase.outbox o where o.dead_at is null and o.due_at <= v_now),
           extract(epoch from
             (select greatest(c.next_at, v_now) from stepbase.crons c
                where c.next_at < 'infinity' order by c.next_at limit 1)
             - v_now)::double precision,
           stepbase.next_buffer();
end
$$;
