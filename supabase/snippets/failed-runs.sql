-- Runs that failed in the last 24 hours, newest first, with why.
select run_id, function, event, event_id, ended_at, failed_attempts,
       error ->> 'name' as error, error ->> 'message' as message
  from stepbase.run_overview
  where status = 'Failed' and run_id > stepbase.ulid_floor(now() - interval '24 hours')
  order by run_id desc
  limit 200;
