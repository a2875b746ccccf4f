-- Events, runs, steps, the queue and pauses: the engine's whole state.
--
-- ULIDs are text in the C collation: readable, sortable, what people paste. What users wrote is
-- `json`, kept byte for byte; `jsonb` would refuse `\u0000` and reorder keys. There are no foreign
-- keys between these tables: their key-share locks would break the lock order, and orphans are
-- ruled out by tests instead.

create table stepbase.events (
  id text collate "C" primary key,
  event_id text,
  name text not null,
  payload json not null,
  ts timestamptz not null,
  received_at timestamptz not null,
  source text not null default 'api'
);
comment on table stepbase.events is 'Events as functions see them. id: internal ULID; event_id: the sender''s id, if it gave one.';
-- serves: events by name, newest first
create index events_by_name on stepbase.events (name, id);
-- serves: pruning by age
create index events_by_age on stepbase.events using brin (received_at);

create table stepbase.runs (
  run_id text collate "C" primary key,
  function_id uuid not null,
  fn_version integer not null,
  event_id text collate "C" not null,
  event_ids text[],
  cause text not null default 'event',
  status text not null default 'Scheduled'
    constraint status_is_known
    check (status in ('Scheduled', 'Running', 'Completed', 'Failed', 'Cancelled', 'Skipped')),
  req_version smallint not null default -1,
  planning smallint not null default 0
    constraint planning_is_none_or_group_or_race check (planning between 0 and 2),
  parent_run text collate "C",
  parent_hash text,
  step_count integer not null default 0,
  state_bytes integer not null default 0,
  output json,
  error json,
  created_at timestamptz not null,
  started_at timestamptz,
  ended_at timestamptz,
  deadline_at timestamptz,
  original_run_id text,
  -- Of a rerun: what a step runs with instead, {"<hash>": {"input": […]}}.
  edits json,
  singleton text,
  constraint ended_exactly_when_status_is_final
    check ((ended_at is null) = (status in ('Scheduled', 'Running')))
) with (fillfactor = 75);
comment on table stepbase.runs is
  'One execution of a function for its event. event_id is the internal ULID; singleton: the value of its singleton key; planning: 1 while a group of parallel steps is open, 2 while a race is; parent_*: the step that invoked it.';
-- serves: runs of a function, newest first
create index runs_by_function on stepbase.runs (function_id, run_id);
-- serves: GET /v1/events/{id}/runs
create index runs_by_event on stepbase.runs (event_id);
-- serves: the run that a step invoked
create index runs_by_parent on stepbase.runs (parent_run, parent_hash) where parent_run is not null;
-- serves: which reruns of batches still need an event
create index reruns_by_batch on stepbase.runs using gin (event_ids)
  where event_ids is not null and original_run_id is not null;
-- holds: of a singleton one run at a time is going on
create unique index a_singleton_runs_alone on stepbase.runs (function_id, singleton)
  where singleton is not null and ended_at is null;
-- serves: pruning, and what ended lately. Without failed runs, which are kept longer: the search for what
-- has reached its age must not go over them each time
create index runs_by_end on stepbase.runs (ended_at) where ended_at is not null and status <> 'Failed';
-- serves: the same for failed runs
create index failed_runs_by_end on stepbase.runs (ended_at) where ended_at is not null and status = 'Failed';

create table stepbase.steps (
  run_id text collate "C" not null,
  hash text not null,
  pos integer not null,
  name text not null,
  op text not null,
  status text not null
    constraint status_is_known
    check (status in (
      'done', 'failed', 'cancelled', 'sleeping', 'waiting', 'planned', 'invoking'
    )),
  memo json,
  attempt smallint not null default 0,
  started_at timestamptz not null,
  ended_at timestamptz,
  primary key (run_id, hash)
);
comment on table stepbase.steps is 'Steps of a run. memo is the stored outcome exactly as calls carry it; pos is its place in the stack.';

create table stepbase.attempts (
  run_id text collate "C" not null,
  id bigint generated always as identity,
  hash text,
  attempt smallint not null,
  at timestamptz not null,
  http_status integer,
  error json not null,
  primary key (run_id, id)
);
comment on table stepbase.attempts is 'Failed attempts only. hash is the step, or null for the code between steps.';

create table stepbase.queue (
  run_id text collate "C" not null,
  -- 'main': the run's next call; a step's hash: what that open step waits for; else a duty of the engine.
  job text not null,
  -- edge: call the function; step: call it for one planned step; gateway: … for a request to make; sleep: wake the run; wait, invoke:
  -- give up waiting; look: look at the events that came before; match: check a condition; deadline: end the run.
  kind text not null
    constraint kind_is_known check (
      kind in ('edge', 'step', 'gateway', 'sleep', 'wait', 'invoke', 'look', 'match', 'deadline')
    ),
  step text,
  ready boolean not null,
  -- Its turn: the start of its run, or when it last made room for others, less its priority (seconds).
  score timestamptz not null,
  priority integer not null default 0,
  due_at timestamptz,
  gen integer not null default 0 constraint gen_is_not_negative check (gen >= 0),
  attempt smallint not null default 0 constraint attempt_is_not_negative check (attempt >= 0),
  losses smallint not null default 0,
  hops smallint not null default 0,
  outage_since timestamptz,
  owner text,
  -- Where it waits while calls of its kind are limited, and what it counts for while it is leased.
  lane text collate "C",
  key_1 text collate "C",
  key_2 text collate "C",
  -- Of a run's own item: what the run counts for from its first call to its end, if runs are limited.
  place text collate "C",
  primary key (run_id, job),
  constraint ready_items_have_no_owner check (not (ready and owner is not null)),
  constraint items_not_ready_are_due_some_time check (ready or due_at is not null),
  constraint items_with_keys_are_in_a_lane check (key_1 is null or lane is not null)
) with (
  fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
comment on table stepbase.queue is
  'What is to be done. Ready: ready. Leased: owner set, due_at = end of the lease. Timer: neither, due_at = when it becomes ready.';
-- serves: lease
create index queue_ready on stepbase.queue (score) where ready and lane is null;
-- serves: timers, sleeps, retries, and leases that ran out
create index queue_due on stepbase.queue (due_at) where not ready;

create table stepbase.pauses (
  run_id text collate "C" not null,
  hash text not null,
  kind text not null constraint kind_is_known check (kind in ('event', 'cancel', 'signal')),
  event_name text not null,
  path text not null,
  value text,
  residual text,
  own_events text[] not null,
  -- Of a wait that looks back: events received from then on count.
  looks_from timestamptz,
  expires_at timestamptz not null,
  primary key (run_id, hash)
) with (
  fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
comment on table stepbase.pauses is
  'Waits for an event. An event of that name whose value at path equals value matches; residual is the rest of the condition (CEL), checked by the engine. path '''' means: residual only.';
-- serves: match — the one refund among a million sleeping runs
create index pauses_by_value on stepbase.pauses (event_name, path, value);
-- holds: one run at a time waits for a signal of one name
create unique index a_signal_wakes_one_run on stepbase.pauses (event_name) where kind = 'signal';

create table stepbase.dedupe (
  function_id uuid not null,
  key text not null,
  run_id text not null,
  until timestamptz not null,
  primary key (function_id, key)
);
comment on table stepbase.dedupe is 'Event ids (the sender''s) that started a run of a function, for 24 hours.';
-- serves: pruning
create index dedupe_by_age on stepbase.dedupe (until);

alter table stepbase.events enable row level security;
alter table stepbase.runs enable row level security;
alter table stepbase.steps enable row level security;
alter table stepbase.attempts enable row level security;
alter table stepbase.queue enable row level security;
alter table stepbase.pauses enable row level security;
alter table stepbase.dedupe enable row level security;
