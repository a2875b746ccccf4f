-- Events of the last 7 days that started no run, and the rule that kept them from it.
select received_at, name, event_id,
       coalesce(not_started, 'no function is triggered by it, or it still gathers others') as why
  from stepbase.event_overview
  where started is null and id > stepbase.ulid_floor(now() - interval '7 days')
  order by id desc
  limit 200;
