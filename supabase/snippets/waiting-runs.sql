-- What live runs wait for, what comes next first.
select until, function, step, waits_for, what, since, run_id
  from stepbase.waiting_runs
  where until < now() + interval '7 days' or until is null
  order by until nulls first
  limit 200;
