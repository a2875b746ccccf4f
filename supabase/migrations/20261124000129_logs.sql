-- What fails shows in Postgres' own log (on Supabase: Logs → Postgres): one line for each failed attempt and
-- each failed run, as key=value. Names and ids only: what an error says may come from the data.
-- `alter database … set stepbase.log_failures = 'off'` silences them for sessions that begin later.

-- The name in an error object, quoted as in JSON, so on one line. Not read as JSON: what users send may be
-- JSON that Postgres keeps and cannot take apart (\u0000).
create or replace function stepbase._error_name(p_error json) returns text
language sql immutable security invoker set search_path = ''
as $$
  select coalesce(substring(p_error::text from '"name"\s*:\s*("(?:[^"\\]|\\.){0,100})') || '"', '""')
$$;

-- Says of failed runs that they failed. For whoever ends them; a run that does not fail costs nothing.
create or replace function stepbase.log_failed_runs(p_runs text[]) returns void
language plpgsql security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
declare
  v record;
begin
  if current_setting('stepbase.log_failures', true) = 'off' then
    return;
  end if;
  for v in
    select r.run_id, f.slug, stepbase._error_name(r.error) as error, r.step_count
      from stepbase.runs r left join stepbase.functions f on f.function_id = r.function_id
      where r.run_id = any (p_runs) and r.status = 'Failed' order by r.run_id
  loop
    raise log 'stepbase what=run_failed run=% function=% error=% steps=%',
      v.run_id, to_json(coalesce(v.slug, '')), v.error, v.step_count;
  end loop;
end
$$;

-- Says of an attempt that it failed: a trigger of a table that only failures write to.
create or replace function stepbase._log_attempt() returns trigger
language plpgsql security invoker set search_path = ''
as $$
begin
  raise log 'stepbase what=attempt_failed run=% step=% attempt=% http=% error=%',
    new.run_id, coalesce(new.hash, '-'), new.attempt, coalesce(new.http_status, 0),
    stepbase._error_name(new.error);
  return null;
end
$$;
create trigger failed_attempts_are_logged after insert on stepbase.attempts for each row
  when (coalesce(current_setting('stepbase.log_failures', true), '') <> 'off')
  execute function stepbase._log_attempt();
