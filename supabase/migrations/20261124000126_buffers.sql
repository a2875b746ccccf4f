-- What keeps an event from starting a run of its own, and what came of it.

-- Written only where a rule kept an event from starting a run, so that the question "why did it not
-- start?" has an answer as long as the event is kept.
create table stepbase.not_started (
  event_id text collate "C" not null,
  function_id uuid not null,
  reason text not null
    constraint reason_is_known check (reason in ('duplicate', 'idempotent', 'rate_limited', 'skipped')),
  at timestamptz not null,
  primary key (event_id, function_id)
);
comment on table stepbase.not_started is 'Why an event started no run of its own of a function. event_id: internal ULID.';
alter table stepbase.not_started enable row level security;
