-- Events of the last 7 days that started no run, and the rule that kept them from it (none: no function listens).
select received_at, name, event_id, not_started
  from stepbase.event_overview
  where started is null and id > stepbase.ulid_floor(now() - interval '7 days')
  order by id desc
  limit 200;
