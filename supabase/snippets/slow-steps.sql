-- How long the steps took of runs that ended in the last hour, the slowest first (milliseconds).
select function, step, count, median_ms, p95_ms, max_ms, retried
  from stepbase.slow_steps;
