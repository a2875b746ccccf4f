-- Every grant of the framework. Nothing is granted by default on a new Supabase project, and too much on an
-- older one, so everything is taken back first and then said. A test compares the catalogue with a list.
--
-- anon and authenticated get nothing: no function of theirs may touch this schema, and the API does not
-- serve it. service_role gets what the ledger and a relay over the API need, and what people look at.
-- The engine connects as the owner.

revoke all on schema stepbase from public, anon, authenticated, service_role;
revoke all on all tables in schema stepbase from public, anon, authenticated, service_role;
revoke all on all sequences in schema stepbase from public, anon, authenticated, service_role;
revoke all on all functions in schema stepbase from public, anon, authenticated, service_role;
revoke all on function
  public.stepbase_call(text, json, text, text, text, json, int),
  public.stepbase_write(text, text, json, text, text, text, json, int, boolean),
  public.stepbase_record(json),
  public.stepbase_accept(text, json, json, int, bigint, int)
  from public, anon, authenticated, service_role;

grant usage on schema stepbase to service_role;
grant execute on function stepbase.now() to service_role;

-- Events: emit, and a relay that takes them.
grant select, insert, update, delete on stepbase.outbox to service_role;
grant select, update on stepbase.relay_state to service_role;
grant select on stepbase.relay_pg_net to service_role;
grant usage, update on sequence stepbase.relay_idle_until to service_role;
grant execute on function
  stepbase.check_event_name(text),
  stepbase.enqueue_event(text, json, text, timestamptz, text),
  stepbase.emit_event(text, jsonb, text, timestamptz, jsonb, text),
  stepbase.emit(text, jsonb, text, timestamptz, jsonb, text),
  stepbase.outbox_take(int, text, interval),
  stepbase.outbox_ack(text[], text),
  stepbase.outbox_fail(text, text, timestamptz, text),
  stepbase.outbox_requeue(text[]),
  stepbase.outbox_idle(interval),
  stepbase.outbox_claim(text, boolean),
  stepbase.relay_delay(int),
  stepbase.outbox_take_some(int, bigint, text, interval),
  stepbase.outbox_give_back(text[], text, text, interval, int, interval),
  stepbase.outbox_put_back(text[], text),
  stepbase.outbox_doze(interval),
  stepbase.outbox_retry(text[]),
  stepbase.outbox_state(stepbase.outbox, timestamptz),
  stepbase.outbox_report(interval, int),
  stepbase.relay_home(),
  stepbase.outbox_read_as(text),
  stepbase.outbox_readers(),
  stepbase.outbox_others(text),
  stepbase.outbox_alone(text)
  to service_role;

-- Events of signed-in users.
grant select, insert, update, delete on stepbase.sender_rates to service_role;
grant execute on function
  stepbase.take_rate(text, int, interval, int),
  public.stepbase_accept(text, json, json, int, bigint, int)
  to service_role;

-- Exactly-once calls and writes.
grant select, insert, update on stepbase.ledger to service_role;
grant select on stepbase.callable_schemas to service_role;
grant execute on function
  stepbase.fitting_functions(text, jsonb),
  stepbase.refuse_call(text, jsonb),
  stepbase.resolve_call(text, jsonb),
  stepbase.call_statement(stepbase.callable),
  stepbase.run_call(text, json, text, jsonb),
  stepbase.hash_args(jsonb, jsonb),
  stepbase.ledger_take(text, text, text, text, jsonb),
  stepbase.ledger_key(text, text, text, text, text),
  stepbase.run_once(text, text, text, text, jsonb, text, json, text, jsonb, int),
  public.stepbase_call(text, json, text, text, text, json, int),
  stepbase.resolve_table(text),
  stepbase.typed_columns(regclass, text[]),
  stepbase.filter_condition(regclass, text, jsonb),
  stepbase.conflict_clause(regclass, text[], jsonb, boolean),
  stepbase.insert_parts(regclass, text, jsonb),
  stepbase.change_part(regclass, text, text, jsonb),
  stepbase.write_statement(regclass, text, text, jsonb, boolean),
  stepbase.write_arguments(jsonb),
  public.stepbase_write(text, text, json, text, text, text, json, int, boolean)
  to service_role;

-- Reports of calls; with its owner's rights, because nobody but an engine writes runs.
grant execute on function public.stepbase_record(json) to service_role;

-- To look at.
grant select on
  stepbase.apps, stepbase.functions, stepbase.events, stepbase.runs, stepbase.steps, stepbase.attempts,
  stepbase.queue, stepbase.pauses, stepbase.recorded_waits, stepbase.crons, stepbase.buffers, stepbase.not_started,
  stepbase.row_triggers,
  stepbase.run_overview, stepbase.run_timeline, stepbase.not_started_events, stepbase.failing_functions,
  stepbase.throughput_by_minute, stepbase.outbox_health, stepbase.waiting_runs, stepbase.slow_steps,
  stepbase.failing_steps, stepbase.event_overview, stepbase.table_sizes
  to service_role;
grant execute on function stepbase.ulid_floor(timestamptz) to service_role;

notify pgrst, 'reload schema';
