-- What happened in one run, in order: put its id in place of the newest failed one.
select at, what, name, status, attempt, ms, error ->> 'message' as message
  from stepbase.run_timeline
  where run_id = (
    select run_id from stepbase.run_overview where status = 'Failed' order by run_id desc limit 1
  );
