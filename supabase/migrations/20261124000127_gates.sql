-- Rates: one row per key, which is its lock too.

create table stepbase.gates (
  key text primary key,
  tat timestamptz not null
);
comment on table stepbase.gates is
  'Rates by key (GCRA): tat is when the next start would be due if all kept to the rate exactly. Past: the key is idle, the row may go.';
-- serves: pruning
create index gates_by_age on stepbase.gates (tat);
alter table stepbase.gates enable row level security;
