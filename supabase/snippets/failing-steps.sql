-- Where attempts failed in the last 24 hours. still_live: runs that are tried again right now.
select function, coalesce(step, '(between steps)') as step, failed_attempts, runs, still_live, last_at,
       last_run, last_error ->> 'message' as last_message
  from stepbase.failing_steps;
