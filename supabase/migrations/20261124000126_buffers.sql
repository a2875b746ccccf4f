-- What keeps an event from starting a run of its own, and what came of it.

-- Written only where a rule kept an event from starting a run, so that the question "why did it not
-- start?" has an answer as long as the event is kept.
create table stepbase.not_started (
  event_id text collate "C" not null,
  function_id uuid not null,
  reason text not null
    constraint reason_is_known check (reason in ('duplicate', 'idempotent', 'rate_limited', 'skipped', 'debounced', 'batched')),
  -- Of a batch: the run that got the event.
  run_id text collate "C",
  at timestamptz not null,
  primary key (event_id, function_id)
);
-- serves: pruning, with the run
create index not_started_by_run on stepbase.not_started (run_id) where run_id is not null;
comment on table stepbase.not_started is 'Why an event started no run of its own of a function. event_id: internal ULID.';
alter table stepbase.not_started enable row level security;

-- Events that wait: for quiet (debounce: event_ids has the latest one) or for company (batch: all of them).
create table stepbase.buffers (
  -- The id of the run that will start, so that it starts once.
  id text collate "C" primary key,
  function_id uuid not null,
  kind text not null constraint kind_is_known check (kind in ('debounce', 'batch')),
  key text not null,
  event_ids text[] not null,
  bytes bigint not null,
  first_at timestamptz not null,
  -- The latest event's own time: an older one does not take its place.
  last_ts timestamptz,
  -- When a debounce starts at the latest.
  ends_at timestamptz,
  -- When it is due; while an engine starts the run: when another one may.
  due_at timestamptz not null,
  gen integer not null default 0,
  is_closed boolean not null default false,
  -- The event whose place the latest one took, for one moment inside a statement.
  before text
);
comment on table stepbase.buffers is
  'Events that wait for their run: the latest of a debounce, all of a batch. id: of the run that will start; closed: takes no more.';
-- holds: of each key one buffer is open
create unique index one_buffer_is_open on stepbase.buffers (function_id, kind, key) where not is_closed;
-- serves: what is due
create index buffers_by_due on stepbase.buffers (due_at);
-- serves: pruning, which spares the events of buffers
create index buffers_by_age on stepbase.buffers (first_at);
alter table stepbase.buffers enable row level security;

-- The payloads of events, in the order of the ids; null for null.
create or replace function stepbase._payloads(p_ids text[]) returns text[]
language plpgsql stable security invoker set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
begin
  if p_ids is null then
    return null;
  end if;
  return (
    select array_agg(e.payload::text order by i.place)
      from unnest(p_ids) with ordinality as i (id, place)
      cross join lateral (
        select x.payload from stepbase.events x where x.id = i.id offset 0
      ) e
  );
end
$$;
