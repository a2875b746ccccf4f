-- Events that have not left the outbox: dead ones first, then those that wait longest.
select id, name, tries, created_at, due_at, dead_at, error
  from stepbase.outbox
  where dead_at is not null or created_at < now() - interval '5 minutes' or tries > 0
  order by dead_at is null, created_at
  limit 200;
